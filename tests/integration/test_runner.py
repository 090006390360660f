"""The database layer on a real server: launcher, listener, sweeper, without Celery."""

from __future__ import annotations

import os
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from celery_pgbg.database import schema
from celery_pgbg.database.values import to_exception
from celery_pgbg.errors import BindingError, ConfigurationError
from celery_pgbg.execution.records.expiry import Expiry
from celery_pgbg.execution.runner import Runner
from celery_pgbg.outcomes import Cancelled, Detached, Lost, Raised, Returned
from celery_pgbg.settings import read_settings
from celery_pgbg.watch import Interruption, Watch
from tests.effects import effects, running
from tests.fix_runner import in_background, is_revoked, order, run
from tests.fix_server import url_of
from tests.waiting import eventually

#: ``make soak`` makes it 10,000.
FAST_LAUNCHES = int(os.environ.get("PGBG_FAST_LAUNCHES", "1000"))


@pytest.mark.timeout(600)
def test_thousands_of_fast_launches_lose_nothing_and_have_the_right_pid(runner: Runner) -> None:
    wrong: list[Any] = []

    def launch_many() -> None:
        for _ in range(FAST_LAUNCHES // 20):
            asked = order("SELECT pg_backend_pid()", returns="value")
            watch = Watch(asked.attempt)
            ending = runner.run(asked, watch)
            if ending != Returned(watch.pid):
                wrong.append((ending, watch.pid))

    threads = [threading.Thread(target=launch_many) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert (runner.counts.launched, runner.counts.succeeded) == (FAST_LAUNCHES, FAST_LAUNCHES)
    for launcher in runner.launchers:
        launcher.flush()
        assert launcher.states() == {}


@pytest.mark.parametrize("notify", [True, False])
def test_outcomes_arrive_with_and_without_notify(new_runner: Callable[..., Runner], notify: bool) -> None:
    assert run(new_runner(pgbg_notify=notify), order("SELECT 1 AS one", notify=notify)) == Returned([{"one": 1}])


@pytest.mark.parametrize(
    ("returns", "value"),
    [("rows", [{"i": 1}, {"i": 2}]), ("row", {"i": 1}), ("value", 1), ("count", 2), (None, [{"i": 1}, {"i": 2}])],
)
def test_a_result_has_the_shape_that_was_asked_for(runner: Runner, returns: Any, value: Any) -> None:
    assert run(runner, order("SELECT i FROM generate_series(1, 2) AS i", returns=returns)) == Returned(value)


@pytest.mark.parametrize(("returns", "value"), [("rows", []), ("row", None), ("value", None), ("count", 0)])
def test_no_rows_have_a_shape_too(runner: Runner, returns: Any, value: Any) -> None:
    assert run(runner, order("SELECT 1 AS a WHERE false", returns=returns)) == Returned(value)


def test_a_statement_without_rows_gives_its_count(runner: Runner, table: str) -> None:
    assert run(runner, order(f"INSERT INTO {table} VALUES ('a'), ('b')")) == Returned(2)


def test_asking_for_rows_where_there_are_none_is_an_error_that_says_so(
    runner: Runner, table: str, database: Any
) -> None:
    ending = run(runner, order(f"INSERT INTO {table} VALUES ('a')", returns="rows"))
    assert isinstance(ending, Raised)
    assert 'returns="rows"' in ending.report.message
    assert effects(database, table) == []


def test_every_type_comes_back_as_psycopg_gives_it(runner: Runner, database: Any) -> None:
    database.execute("DROP TYPE IF EXISTS mood; CREATE TYPE mood AS ENUM ('happy')")
    database.execute("DROP DOMAIN IF EXISTS positive; CREATE DOMAIN positive AS int CHECK (value > 0)")
    query = """
        SELECT 1::int2 AS a, 2::int8 AS b, 1.50::numeric AS c, 0.5::float8 AS d, true AS e, 'x'::text AS f,
            NULL::int AS g,
            '\\x00ff'::bytea AS h, '2026-02-03'::date AS i, '10:11:12.5'::time AS j, '1 day 2 hours'::interval AS k,
            '2026-02-03 04:05:06+00'::timestamptz AS l, '2026-02-03 04:05:06'::timestamp AS m,
            ARRAY[[1, 2], [3, NULL]] AS n, '{"a": [1, "x"]}'::jsonb AS o, '[1,5)'::int4range AS p,
            'b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid AS q, '10.0.0.0/8'::cidr AS r, 'happy'::mood AS s,
            3::positive AS t, ARRAY['a"b', 'c,d', NULL, '', '\\'] AS u, 'infinity'::float8 AS v, ''::text AS w,
            'a"b,(c)'::text AS x, '{1,2}'::int4multirange AS y, ROW(1, 'z')::text AS z
    """.replace("'{1,2}'::int4multirange", "'{[1,2)}'::int4multirange")
    ending = run(runner, order(query))
    with psycopg.connect(database.info.dsn, options="-c timezone=UTC") as session:
        cursor = session.execute(query)
        assert cursor.description is not None
        names = [column.name for column in cursor.description]
        row = cursor.fetchone()
    assert row is not None
    assert ending == Returned([dict(zip(names, row, strict=True))])


def test_a_value_python_cannot_hold_is_an_error_that_says_so(runner: Runner) -> None:
    ending = run(runner, order("SELECT 'infinity'::date AS d"))
    assert isinstance(ending, Raised)
    assert "cannot be loaded" in ending.report.message


@pytest.mark.parametrize(("returns", "value"), [("rows", [{}]), ("row", {}), ("value", None), ("count", 1)])
def test_a_row_without_columns_has_a_shape(runner: Runner, returns: Any, value: Any) -> None:
    assert run(runner, order("SELECT", returns=returns)) == Returned(value)


def test_a_result_above_the_limit_is_refused_and_rolled_back(runner: Runner, table: str, database: Any) -> None:
    query = f"INSERT INTO {table} SELECT repeat('x', 1000) FROM generate_series(1, 100) RETURNING v"
    ending = run(runner, order(query, max_result_bytes=50_000))
    assert isinstance(ending, Raised)
    assert "pgbg_max_result_bytes (50000 bytes)" in ending.report.message
    assert effects(database, table) == []
    assert isinstance(run(runner, order(query, max_result_bytes=200_000)), Returned)


@pytest.mark.parametrize(("encoding", "bad"), [("SQL_ASCII", r"\xe4"), ("WIN1252", r"\x81")])
def test_text_that_the_server_cannot_send_fails_its_own_task_only(
    new_database: Callable[..., str], encoding: str, bad: str
) -> None:
    dsn = new_database(encoding=encoding)
    with psycopg.connect(dsn, autocommit=True, client_encoding="utf8") as session:
        schema.install(session)
    runner = Runner(dsn, read_settings({"pgbg_dsn": dsn}))
    try:
        assert run(runner, order("SELECT %(v)s || 'ä'", params={"v": "ö€"}, returns="value")) == Returned("ö€ä")
        for query in (f"SELECT E'{bad}' AS v", f"DO $$ BEGIN RAISE EXCEPTION E'{bad}'; END $$"):
            _, thread, endings = in_background(runner, order(query))
            _, other_thread, other_endings = in_background(runner, order("SELECT 'ä'", returns="value"))
            thread.join(60)
            other_thread.join(60)
            assert other_endings == [Returned("ä")]
            assert isinstance(endings[0], Raised)
            assert isinstance(to_exception(endings[0].report), psycopg.DataError)
    finally:
        runner.close()


@pytest.mark.parametrize("options", [{}, {"reuse": True}, {"atomic": False}])
@pytest.mark.parametrize("way", ["default", "settings"])
def test_row_security_is_off_for_a_statement_but_not_for_our_tables(
    new_database: Callable[..., str], options: dict[str, Any], way: str
) -> None:
    dsn, role = new_database(), f"pgbg_test_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute(f"CREATE ROLE {role} LOGIN")
        schema.install(session, grant_to=[role])
        session.execute("CREATE TABLE kept (v int); ALTER TABLE kept ENABLE ROW LEVEL SECURITY")
        session.execute(f"CREATE POLICY only_one ON kept USING (v = 1); GRANT SELECT ON kept TO {role}")
        if way == "default":
            session.execute(f"ALTER ROLE {role} SET row_security = off")
    runner = Runner(url_of(dsn, user=role), read_settings({"pgbg_dsn": dsn}))
    try:
        settings = {"settings": {"row_security": "off"}} if way == "settings" else {}
        refused = run(runner, order("SELECT v FROM kept", returns="rows", **options, **settings))
        assert isinstance(refused, Raised)
        assert 'policy for table "kept"' in refused.report.message
        assert run(runner, order("SELECT 1 AS v", returns="rows", **options, **settings)) == Returned([{"v": 1}])
    finally:
        runner.close()
        with psycopg.connect(dsn, autocommit=True) as session:
            session.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


@pytest.mark.parametrize("options", [{}, {"reuse": True}, {"atomic": False}, {"settings": {"celery_pgbg.a": "ä"}}])
def test_any_text_is_possible_in_a_database_without_an_encoding(
    new_database: Callable[..., str], options: dict[str, Any]
) -> None:
    dsn = new_database(encoding="SQL_ASCII")
    with psycopg.connect(dsn, autocommit=True, client_encoding="utf8") as session:
        schema.install(session)
    runner = Runner(dsn, read_settings({"pgbg_dsn": dsn}))
    try:
        rows = order("SELECT 'ö' AS ä", returns="rows", task_name="täsk", **options)
        assert run(runner, rows) == Returned([{"ä": "ö"}])
        ending = run(runner, order("DO $$ BEGIN RAISE EXCEPTION 'ä' USING DETAIL = 'ö'; END $$", **options))
        assert isinstance(ending, Raised)
        assert (ending.report.message, ending.report.fields["message_detail"]) == ("ä", "ö")
        with psycopg.connect(dsn, client_encoding="utf8") as session:
            failures = session.execute("SELECT message FROM celery_pgbg.outcome WHERE NOT succeeded").fetchall()
        assert failures == [("ä",)]
    finally:
        runner.close()


@pytest.mark.parametrize("options", [{}, {"reuse": True}, {"atomic": False}])
@pytest.mark.parametrize(
    ("task_id", "task_name"),
    [("ä" * 40, "täsk"), ("it's \" % \\ id", "a'b\"c%s"), ("x" * 3000, "y" * 500), ("a\nb", "")],
)
def test_any_id_and_name_is_attached_to_and_revoked_from_elsewhere(
    new_runner: Callable[..., Runner], database: Any, task_id: str, task_name: str, options: dict[str, Any]
) -> None:
    sleep = "SELECT pg_sleep(600)" if options.get("atomic", True) else "DO 'BEGIN PERFORM pg_sleep(600); END'"
    asked = order(sleep, task_id=f"{task_id} {uuid.uuid4()}", task_name=task_name, **options)
    watch, thread, _ = in_background(new_runner(), asked)
    eventually("it runs", lambda: watch.pid)
    other, other_thread, other_endings = in_background(new_runner(), asked)
    eventually("the other is attached", lambda: other.pid)
    assert other.pid == watch.pid
    other.interrupt(Interruption.REVOKE)
    for each in (thread, other_thread):
        each.join(60)
    assert other_endings == [Cancelled()]
    assert database.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [watch.pid]).fetchone() is None


def test_an_error_keeps_its_fields(runner: Runner, table: str, database: Any) -> None:
    database.execute(f"ALTER TABLE {table} ADD CONSTRAINT {table}_unique UNIQUE (v)")
    database.execute(f"INSERT INTO {table} VALUES ('a')")
    ending = run(runner, order(f"INSERT INTO {table} VALUES ('a')"))
    assert isinstance(ending, Raised)
    assert ending.report.sqlstate == "23505"
    assert ending.report.fields["constraint_name"] == f"{table}_unique"
    assert "(v)=(a)" in ending.report.fields["message_detail"]


@pytest.fixture
def failing_functions(database: Any) -> Iterator[None]:
    """``context_inner`` fails where it is told to, and ``context_outer`` calls it."""
    database.execute("""
        CREATE FUNCTION context_inner(i int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1 / i; END';
        CREATE FUNCTION context_outer(i int) RETURNS int LANGUAGE plpgsql AS '
            DECLARE n int;
            BEGIN
                SELECT context_inner(i) INTO n;
                RETURN n;
            END'
    """)
    yield
    database.execute("DROP FUNCTION context_outer(int), context_inner(int)")


@pytest.mark.usefixtures("failing_functions")
@pytest.mark.parametrize("returns", [None, "rows", "row", "value", "count", "command"])
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT context_outer(0)",
        """SELECT 'PL/pgSQL', context_outer(i)
             FROM generate_series(1, 0, -1) AS i""",
        "DO 'BEGIN PERFORM context_outer(0); END'",
        "SELECT 1 / n FROM (VALUES (1), (0)) AS t (n)",
        "SELECT 1 / 0",
        """SELECT '{"a": "SQL statement"'::json""",
        "SELEC 1",
    ],
)
def test_an_error_reads_as_if_a_client_had_sent_the_statement(
    runner: Runner, database: Any, statement: str, returns: Any
) -> None:
    ending = run(runner, order(statement, returns=returns, atomic=returns != "command"))
    with pytest.raises(psycopg.Error) as raised:
        database.execute(statement)
    assert "context_inner" in str(raised.value) or "context" not in statement
    # A position in the statement is not among what PL/pgSQL tells of an error; bad syntax is found before.
    expected = str(raised.value)
    if statement != "SELEC 1":
        expected = re.sub(r"LINE 1: .*\n.*\^\n?", "", expected).strip()
    error = to_exception(ending.report)
    if statement.startswith("DO") and returns in ("rows", "row", "value"):
        assert "returns no rows" in str(error)
    else:
        assert type(error) is type(raised.value)
        assert str(error) == expected
        assert error.diag.context == raised.value.diag.context


@pytest.mark.parametrize("ignore_result", [False, True])
def test_an_error_at_commit_is_found_by_the_sweeper(runner: Runner, database: Any, ignore_result: bool) -> None:
    database.execute("CREATE TABLE IF NOT EXISTS accounts (owner text, amount int)")
    database.execute("TRUNCATE accounts")
    serializable = {"default_transaction_isolation": "serializable"}
    query = "SELECT sum(amount) FROM accounts; SELECT pg_sleep(0.7); INSERT INTO accounts VALUES ('x', 1)"
    orders = [order(query, settings=serializable, ignore_result=ignore_result) for _ in range(2)]
    started = [in_background(runner, asked) for asked in orders]
    for _, thread, _ in started:
        thread.join(60)
    endings = [endings[0] for _, _, endings in started]
    kinds = sorted(type(ending).__name__ for ending in endings)
    assert kinds == ["Raised", "Returned"]
    [failed] = [ending for ending in endings if isinstance(ending, Raised)]
    assert failed.report.sqlstate == "40001"
    assert database.execute("SELECT count(*) FROM accounts").fetchone() == (1,)


#: Longer than pg_background keeps of an error, in characters of two bytes each: it clips one in the middle.
LONG = ("ä" * 3000, "x" + "ä" * 3000)
RAISE_LONG = "RAISE EXCEPTION USING MESSAGE = '{}', DETAIL = '{}'".format(*LONG)


@pytest.mark.parametrize("atomic", [True, False])
def test_a_long_error_is_whole(runner: Runner, atomic: bool) -> None:
    error = to_exception(run(runner, order(f"DO $$ BEGIN {RAISE_LONG}; END $$", atomic=atomic)).report)
    assert isinstance(error, psycopg.errors.RaiseException)
    assert (error.diag.message_primary, error.diag.message_detail) == LONG


@pytest.fixture
def fails_at_commit(database: Any) -> Iterator[str]:
    """A statement whose error, a long one, comes in the commit itself: nothing before brings it forward."""
    database.execute(f"""
        CREATE TABLE at_commit_first (v int);
        CREATE TABLE at_commit_second (v int);
        CREATE FUNCTION at_commit_first() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                SET CONSTRAINTS at_commit_second DEFERRED;
                INSERT INTO at_commit_second VALUES (1);
                RETURN NULL;
            END $$;
        CREATE FUNCTION at_commit_second() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {RAISE_LONG}; END $$;
        CREATE CONSTRAINT TRIGGER at_commit_first AFTER INSERT ON at_commit_first
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_commit_first();
        CREATE CONSTRAINT TRIGGER at_commit_second AFTER INSERT ON at_commit_second
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_commit_second();
    """)
    yield "INSERT INTO at_commit_first VALUES (1)"
    database.execute("DROP TABLE at_commit_first, at_commit_second")
    database.execute("DROP FUNCTION at_commit_first, at_commit_second")


def test_a_long_error_at_commit_is_whole(runner: Runner, database: Any, fails_at_commit: str) -> None:
    asked = order(fails_at_commit)
    error = to_exception(run(runner, asked).report)
    assert isinstance(error, psycopg.errors.RaiseException)
    assert (error.diag.message_primary, error.diag.message_detail) == LONG
    # in English: PL/pgSQL function at_commit_second() line 1 at RAISE
    assert re.fullmatch(r"PL/pgSQL\S* ?\S* at_commit_second\(\) \S+ 1 \S+ RAISE", error.diag.context or "")
    # It is stored for other deliveries, by the session that read it.
    assert to_exception(run(runner, asked).report).diag.message_detail == LONG[1]
    query = "SELECT launches FROM celery_pgbg.execution WHERE task_id = %s"
    assert database.execute(query, [asked.attempt.task_id]).fetchone() == (1,)


def test_a_long_error_at_commit_is_clipped_where_no_result_was_kept(runner: Runner, fails_at_commit: str) -> None:
    error = to_exception(run(runner, order(fails_at_commit, ignore_result=True)).report)
    assert isinstance(error, psycopg.errors.RaiseException)
    for whole, told in zip(LONG, (error.diag.message_primary, error.diag.message_detail), strict=True):
        assert told
        assert whole.startswith(told)


def test_repeatable_read_sees_its_launch(runner: Runner) -> None:
    ending = run(
        runner,
        order(
            "SHOW transaction_isolation", returns="value", settings={"default_transaction_isolation": "repeatable read"}
        ),
    )
    assert ending == Returned("repeatable read")


def test_a_cancelled_statement_is_gone_with_its_effects(runner: Runner, table: str, database: Any) -> None:
    asked = order(f"INSERT INTO {table} VALUES ('x'); SELECT pg_sleep(60)")
    watch, thread, endings = in_background(runner, asked)
    eventually("it runs", lambda: running(database, asked.attempt.task_id))
    watch.interrupt(Interruption.REVOKE)
    thread.join(60)
    assert endings == [Cancelled()]
    assert running(database, asked.attempt.task_id) == []
    assert effects(database, table) == []


def test_a_detached_statement_keeps_running_and_is_found_again(
    new_runner: Callable[..., Runner], table: str, database: Any
) -> None:
    asked = order(f"INSERT INTO {table} VALUES ('x'); SELECT pg_sleep(2)", returns="count")
    first, second = new_runner(), new_runner()
    watch, thread, endings = in_background(first, asked)
    eventually("it runs", lambda: running(database, asked.attempt.task_id))
    watch.interrupt(Interruption.DETACH)
    thread.join(60)
    assert endings == [Detached()]
    first.close()
    assert run(second, asked) == Returned(1)
    assert second.counts.attached == 1
    assert run(second, asked) == Returned(1)
    assert effects(database, table) == ["x"]


def test_an_attempt_that_is_attached_to_can_be_cancelled(new_runner: Callable[..., Runner], database: Any) -> None:
    asked = order("SELECT pg_sleep(60)")
    started = [in_background(new_runner(), asked) for _ in range(2)]
    eventually("both know the worker", lambda: started[0][0].pid and started[0][0].pid == started[1][0].pid)
    eventually("it runs", lambda: running(database, asked.attempt.task_id))
    for watch, _, _ in started:
        watch.interrupt(Interruption.REVOKE)
    for _, thread, _ in started:
        thread.join(60)
    assert [[is_revoked(ending) for ending in endings] for _, _, endings in started] == [[True], [True]]
    assert running(database, asked.attempt.task_id) == []


def test_a_worker_ended_by_hand_fails_without_effects(runner: Runner, table: str, database: Any) -> None:
    asked = order(f"INSERT INTO {table} VALUES ('x'); SELECT pg_sleep(60)")
    _, thread, endings = in_background(runner, asked)
    [pid] = eventually("it runs", lambda: running(database, asked.attempt.task_id))
    sleeps = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
    eventually("its statement runs", lambda: database.execute(sleeps, [pid]).fetchone() is not None)
    database.execute("SELECT pg_terminate_backend(%s)", [pid])
    thread.join(60)
    assert isinstance(endings[0], Raised)
    assert endings[0].report.sqlstate in ("57P01", "57014")
    assert effects(database, table) == []


@pytest.mark.parametrize("reuse", [False, True])
def test_a_delivery_that_comes_before_the_error_is_stored_hears_of_it(
    new_runner: Callable[..., Runner], table: str, database: Any, reuse: bool
) -> None:
    asked = order(f"INSERT INTO {table} VALUES ('x'); SELECT pg_sleep(60)", reuse=reuse)
    _, thread, endings = in_background(new_runner(pgbg_sweep_interval=4), asked)
    [pid] = eventually("it runs", lambda: running(database, asked.attempt.task_id))
    sleeps = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
    eventually("its statement runs", lambda: database.execute(sleeps, [pid]).fetchone() is not None)
    # one launched in the last three seconds counts as running
    launched = "SELECT FROM celery_pgbg.execution WHERE task_id = %s AND launched_at < now() - interval '3.1 seconds'"
    eventually(
        "that is a while ago", lambda: database.execute(launched, [asked.attempt.task_id]).fetchone() is not None
    )
    database.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])
    later = run(new_runner(pgbg_sweep_interval=4), asked)
    assert isinstance(later, Raised)
    assert later.report.sqlstate in ("57P01", "57014")
    thread.join(60)
    assert endings == [later]
    assert effects(database, table) == []


def test_a_worker_ended_with_its_launching_session_is_lost(
    new_runner: Callable[..., Runner], table: str, database: Any
) -> None:
    runner = new_runner(pgbg_launchers=1, pgbg_sweep_interval=0.2, pgbg_max_launches=1)
    asked = order(f"INSERT INTO {table} VALUES ('x'); SELECT pg_sleep(60)")
    watch, thread, endings = in_background(runner, asked)
    # Its process is there before its launch has returned; a launch that is ended with its session is no loss.
    pid = eventually("it was launched", lambda: watch.pid)
    launcher = runner.launchers[0].backend_pid
    database.execute("SELECT pg_terminate_backend(pid, 10000) FROM unnest(%s) AS pid", [[launcher, pid]])
    thread.join(60)
    assert isinstance(endings[0], Lost)
    assert endings[0].effects == "absent"
    assert effects(database, table) == []


@pytest.mark.parametrize("reuse", [False, True])
def test_a_later_delivery_launches_no_more_than_allowed(
    new_runner: Callable[..., Runner], table: str, database: Any, reuse: bool
) -> None:
    asked = order(f"INSERT INTO {table} VALUES ('x')", reuse=reuse)
    # as two Celery workers leave it that went down with the server
    database.execute(
        "INSERT INTO celery_pgbg.execution"
        " (task_id, attempt, task_name, atomic, pid, cookie, application_name, nodename, launched_at, launches)"
        " VALUES (%s, 0, '', true, 1, 1, '', '', now() - interval '1 hour', 2)",
        [asked.attempt.task_id],
    )
    ending = run(new_runner(pgbg_max_launches=2), asked)
    assert isinstance(ending, Lost)
    assert ending.hopeless
    assert "launched 2 times" in ending.reason
    assert effects(database, table) == []
    assert run(new_runner(pgbg_max_launches=3), asked) == Returned(1)
    assert effects(database, table) == ["x"]


@pytest.mark.parametrize("reuse", [False, True])
def test_what_was_cancelled_by_shutdowns_may_be_launched_again(
    new_runner: Callable[..., Runner], database: Any, reuse: bool
) -> None:
    runner = new_runner(pgbg_max_launches=1)
    asked = order("SELECT pg_sleep(600)", reuse=reuse)
    for _ in range(3):
        watch, thread, endings = in_background(runner, asked)
        eventually("it runs", lambda: running(database, asked.attempt.task_id))
        watch.interrupt(Interruption.SHUTDOWN)
        thread.join(60)
        assert endings == [Cancelled()]


def test_a_rolled_back_launch_runs_nothing(runner: Runner, table: str, database: Any, dsn: str) -> None:
    from celery_pgbg.execution import queries

    capabilities = runner.launchers[0].capabilities
    task_id = str(uuid.uuid4())
    parameters = {
        "extension_schema": capabilities.schema,
        "launch_function": capabilities.name("launch"),
        "queue_bytes": 65536,
        "task_id": task_id,
        "attempt": 0,
        "task_name": "test",
        "application_name": f"pgbg {task_id}",
        "nodename": "test",
        "preamble": None,
        "statement": f"INSERT INTO {table} VALUES ('x')",
        "is_plain_query": False,
        "returns": None,
        "role": None,
        "settings": None,
        "max_result_bytes": 1000,
        "notify": False,
        "walk": None,
        "message_id": None,
        "task_meta": None,
    }
    with psycopg.connect(dsn) as session:
        session.execute(queries.query("launch"), parameters)
        session.rollback()
        eventually("its worker is gone", lambda: not running(database, task_id))
    assert effects(database, table) == []
    assert database.execute("SELECT count(*) FROM celery_pgbg.outcome WHERE task_id = %s", [task_id]).fetchone() == (0,)


def many(level: str, statement: str = "NULL") -> str:
    """A statement with more messages than fit in the queue of a background worker, and then another one."""
    loop = f"FOR i IN 1..20000 LOOP RAISE {level} 'a message of many, as long as they are: %%', i; END LOOP"
    return f"DO $$ BEGIN {loop}; {statement}; END $$"


@pytest.mark.parametrize("options", [{}, {"ignore_result": True}, {"reuse": True}, {"atomic": False}])
def test_any_number_of_notices_holds_nothing_up(runner: Runner, options: dict[str, Any]) -> None:
    for _ in range(2):
        assert run(runner, order(many("NOTICE"), **options)) == Returned("DO" if "atomic" in options else 0)


@pytest.mark.parametrize("options", [{}, {"ignore_result": True}, {"reuse": True}])
def test_messages_that_are_sent_whatever_is_set_hold_nothing_up(
    runner: Runner, table: str, database: Any, options: dict[str, Any]
) -> None:
    assert run(runner, order(many("INFO", f"INSERT INTO {table} VALUES ('x')"), **options)) == Returned(0)
    assert effects(database, table) == ["x"]
    watch, thread, endings = in_background(runner, order(many("INFO", "PERFORM pg_sleep(600)"), **options))
    find = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
    eventually("it sleeps", lambda: watch.pid and database.execute(find, [watch.pid]).fetchone())
    watch.interrupt(Interruption.REVOKE)
    thread.join(60)
    assert endings == [Cancelled()]
    assert running(database, watch.attempt.task_id) == []


@pytest.mark.parametrize("statement", [many("INFO"), "SELECT repeat('x', 1000) FROM generate_series(1, 5000)"])
def test_a_standalone_statement_that_tells_too_much_is_stopped(runner: Runner, database: Any, statement: str) -> None:
    asked = order(statement, atomic=False)
    ending = run(runner, asked)
    assert isinstance(ending, Raised)
    assert "do not fit" in ending.report.message
    assert running(database, asked.attempt.task_id) == []
    assert run(runner, asked) == ending


def test_progress_is_on_record_for_every_session(runner: Runner, database: Any) -> None:
    if runner.launchers[0].capabilities.function("get_progress") is None:
        assert run(runner, order("SELECT celery_pgbg.report_progress(40, 'loading') IS NULL AS x")).value == [
            {"x": False}
        ]
        return
    asked = order("SELECT celery_pgbg.report_progress(40, 'loading'); SELECT pg_sleep(60)")
    watch, thread, _ = in_background(runner, asked)
    query = "SELECT progress_percent, progress_message FROM celery_pgbg.execution WHERE task_id = %s"
    eventually("progress", lambda: database.execute(query, [asked.attempt.task_id]).fetchone() == (40, "loading"))
    assert watch.progress == (40, "loading")
    watch.interrupt(Interruption.REVOKE)
    thread.join(60)


def test_a_placeholder_without_an_argument_is_refused_before_the_launch(runner: Runner) -> None:
    with pytest.raises(BindingError, match="b"):
        run(runner, order("SELECT %(b)s", params={"a": 1}))
    assert run(runner, order("SELECT 1", returns="value")) == Returned(1)


def test_create_index_concurrently_does_not_wait_for_us(runner: Runner, table: str) -> None:
    sleeping = order("SELECT pg_sleep(60)")
    watch, thread, _ = in_background(runner, sleeping)
    eventually("it runs", lambda: watch.pid)
    watch.interrupt(Interruption.REVOKE)
    thread.join(60)
    assert run(runner, order(f"CREATE INDEX CONCURRENTLY ON {table} (v)", atomic=False)) == Returned("CREATE INDEX")


@pytest.mark.parametrize(
    ("query", "tag"),
    [
        ("SELECT 1", "SELECT 1"),
        ("SELECT 'hello'::text", "SELECT 1"),
        ("VALUES ('{1,2}'::int[], 'x'::name, '(1,2)'::point), (NULL, NULL, NULL)", "SELECT 2"),
        ("SELECT pg_sleep(0), '{}'::int[] -- of type void;", "SELECT 1"),
        ("EXPLAIN SELECT 1", "EXPLAIN"),
        ("VACUUM", "VACUUM"),
        ("DO $$ BEGIN COMMIT; END $$", "DO"),
    ],
)
def test_a_standalone_statement_returns_its_command_tag(runner: Runner, query: str, tag: str) -> None:
    assert run(runner, order(query, atomic=False)) == Returned(tag)


def test_rows_that_nobody_can_read_are_a_success_only_where_the_server_says_so(runner: Runner) -> None:
    ending = run(runner, order("SELECT FROM generate_series(1, 3)", atomic=False))
    if runner.launchers[0].capabilities.function("result_info"):
        assert ending == Returned("SELECT 3")
    else:
        assert isinstance(ending, Lost)
        assert ending.effects == "unknown"


def test_a_standalone_statement_runs_as_a_role_that_may_launch(runner: Runner, table: str, database: Any) -> None:
    role = f"pgbg_test_{uuid.uuid4().hex[:12]}"
    asked = order(f"INSERT INTO {table} SELECT current_user", atomic=False, role=role)
    refused = run(runner, asked).report
    assert refused.sqlstate == "22023"
    assert role in refused.message
    database.execute(f"CREATE ROLE {role}; GRANT INSERT ON {table} TO {role}")
    try:
        with pytest.raises(ConfigurationError, match=f"--grant-to {role}"):
            run(runner, asked)
        schema.install(database, [role])
        # What could not be launched has left nothing behind.
        assert run(runner, asked) == Returned("INSERT 0 1")
        assert effects(database, table) == [role]
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_standalone_outcome_is_returned_again(runner: Runner) -> None:
    asked = order("VACUUM", atomic=False)
    assert run(runner, asked) == Returned("VACUUM")
    assert run(runner, asked) == Returned("VACUUM")


def test_a_standalone_statement_that_ended_unseen_is_lost_with_unknown_effects(runner: Runner, database: Any) -> None:
    asked = order("DO $$ BEGIN PERFORM pg_sleep(60); END $$", atomic=False)
    watch, thread, endings = in_background(runner, asked)
    [pid] = eventually("it runs", lambda: running(database, asked.attempt.task_id))
    watch.interrupt(Interruption.DETACH)
    thread.join(60)
    assert endings == [Detached()]
    database.execute("SELECT pg_terminate_backend(%s)", [pid])
    ending = run(runner, asked)
    assert isinstance(ending, Lost)
    assert ending.effects == "unknown"


def test_expired_records_are_deleted_and_running_ones_kept(new_runner: Callable[..., Runner], database: Any) -> None:
    runner = new_runner()
    old, live = order("SELECT 1"), order("SELECT pg_sleep(60)")
    run(runner, old)
    watch, thread, _ = in_background(runner, live)
    eventually("it runs", lambda: running(database, live.attempt.task_id))
    query = "UPDATE celery_pgbg.{} SET {} = now() - interval '2 days' WHERE task_id = ANY(%s)"
    ids = [old.attempt.task_id, live.attempt.task_id]
    database.execute(query.format("outcome", "finished_at"), [ids])
    database.execute(query.format("execution", "launched_at"), [ids])
    # What is older than the last look of this day is not looked at again.
    database.execute("DELETE FROM celery_pgbg.expiry_mark")
    expiry = Expiry(86_400, batch_size=1)
    while runner.launchers[0].delete_expired(expiry):
        pass
    left = database.execute("SELECT task_id FROM celery_pgbg.execution WHERE task_id = ANY(%s)", [ids]).fetchall()
    assert left == [(live.attempt.task_id,)]
    assert database.execute("SELECT FROM celery_pgbg.outcome WHERE task_id = ANY(%s)", [ids]).fetchall() == []
    watch.interrupt(Interruption.REVOKE)
    thread.join(60)


@pytest.mark.parametrize("returns", ["rows", "value"])
def test_a_type_without_a_binary_form_is_read_as_text(runner: Runner, returns: Any) -> None:
    ending = run(runner, order("SELECT 'postgres=r/postgres'::aclitem AS a, 1 AS b", returns=returns))
    text = "postgres=r/postgres"
    assert ending == Returned(text if returns == "value" else [{"a": text, "b": 1}])
