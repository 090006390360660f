"""SQL tasks inside a test's transaction: they do, return and raise what a background worker would."""

from __future__ import annotations

import dataclasses
import datetime
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy
from celery import Celery, chain, chord, group
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import pq, sql
from psycopg.types.json import Jsonb
from psycopg.types.range import Range
from sqlalchemy.orm import Session

from celery_pgbg.errors import CannotRunInline
from celery_pgbg.execution.inline import InlineRunner
from celery_pgbg.execution.runner import Runner
from celery_pgbg.outcomes import Ending, Raised
from celery_pgbg.runners import close_runners
from celery_pgbg.settings import read_settings
from celery_pgbg.testing import inline
from tests.apps.shop import define_tasks
from tests.effects import effects
from tests.fix_runner import order, run

Connection = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def runner(dsn: str) -> Iterator[Runner]:
    """What runs statements in background workers."""
    made = Runner(dsn, read_settings({"pgbg_dsn": dsn}))
    yield made
    made.close()


@pytest.fixture
def connection(dsn: str, table: str) -> Iterator[Connection]:
    """A connection whose transaction is the test's, and ends before the table is dropped."""
    made = psycopg.connect(dsn)
    made.execute("SELECT")
    yield made
    made.close()


@pytest.fixture
def app(dsn: str) -> Iterator[Celery]:
    """The test app; its tasks are called, never sent to a broker."""
    made = Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)
    made.conf.pgbg_dsn = dsn
    define_tasks(made)
    yield made
    close_runners()
    made.close()


# --- as in a background worker ---------------------------------------------------------------------

_SHAPES = ["rows", "row", "value", "count", None]

_TYPES = """
    SELECT 1::int2 AS a, 2::int8 AS b, 1.50::numeric AS c, 0.1::float8 AS d, 0.1::float4 AS e, true AS f,
        'x'::text AS g, NULL::int AS h, '\\x00ff'::bytea AS i, '2026-02-03'::date AS j, '10:11:12.5'::time AS k,
        '1 day 02:03:04'::interval AS l, '2026-02-03 04:05:06+00'::timestamptz AS m,
        '2026-02-03 04:05:06'::timestamp AS n, ARRAY[[1, 2], [3, NULL]] AS o, '{"a": [1, "x"]}'::jsonb AS p,
        '[1,5)'::int4range AS q, 'b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid AS r, '10.0.0.0/8'::cidr AS s,
        ROW(1, 'z') AS t, ARRAY['a"b', 'c,d', NULL, ''] AS u, 'infinity'::float8 AS v, ''::text AS w,
        current_setting('timezone') AS x
"""

_STATEMENTS = [
    _TYPES,
    "SELECT i AS n FROM generate_series(1, 3) AS i",
    "SELECT 1 AS n WHERE false",
    "SELECT",
    "SELECT NULL::text AS n",
    "SELECT 1 AS a, 2 AS a",
    "SELECT 'infinity'::date AS d",
    "VALUES (1, 'x'), (2, 'y')",
    "CREATE TEMP TABLE t (v int); INSERT INTO t VALUES (1), (2); UPDATE t SET v = 3 RETURNING v",
    "CREATE TEMP TABLE t (v int); INSERT INTO t VALUES (1), (2)",
    "CREATE TEMP TABLE t (v int)",
    "DO $$ BEGIN PERFORM 1; END $$",
    "SELECT 1 / 0 AS n",
    "SELECT * FROM nowhere",
    "SELEC 1",
    "COMMIT",
    "SAVEPOINT s",
    "VACUUM",
    "CREATE TEMP TABLE t (v int PRIMARY KEY); INSERT INTO t VALUES (1), (1)",
    "CREATE TEMP TABLE t (v int UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO t VALUES (1), (1)",
    "DO $$ BEGIN RAISE EXCEPTION 'no' USING HINT = 'a hint', DETAIL = 'more', ERRCODE = 'ZZ001', TABLE = 't'; END $$",
    "SELECT repeat('x', 3000) AS n",
]


@pytest.mark.parametrize("statement", _STATEMENTS, ids=lambda statement: " ".join(statement.split())[:40])
def test_a_statement_ends_inline_as_in_a_background_worker(
    runner: Runner, connection: Connection, statement: str
) -> None:
    for returns in _SHAPES:
        options = {"returns": returns, "max_result_bytes": 2500}
        in_background = _comparable(run(runner, order(statement, **options)))
        inline_runner = InlineRunner(connection)
        assert _comparable(run(inline_runner, order(statement, **options))) == in_background, returns
        connection.rollback()


def _comparable(ending: Ending) -> Ending:
    """Without the context, which tells how deep the call was, and the number of the session's temporary schema."""
    if isinstance(ending, Raised):
        fields = {name: value for name, value in ending.report.fields.items() if name != "context"}
        if fields.get("schema_name", "").startswith("pg_temp"):
            del fields["schema_name"]
        return Raised(dataclasses.replace(ending.report, fields=fields))
    return ending


_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.binary(),
    st.dates(),
    st.times(),
    st.datetimes(),
    st.datetimes(timezones=st.just(datetime.timezone.utc)),
    st.timedeltas(datetime.timedelta(-1000), datetime.timedelta(1000)),
    st.uuids(),
    st.lists(st.integers(-5, 5), min_size=1),
    st.lists(st.text("ab\"\\,{}' ", max_size=5), min_size=1),
    st.dictionaries(st.text("ab"), st.integers()).map(Jsonb),
    st.tuples(st.integers(0, 5), st.integers(6, 9)).map(lambda ends: Range(*ends)),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(_scalars, min_size=1, max_size=8), data=st.data())
def test_any_values_are_bound_and_returned_inline_as_in_a_background_worker(
    runner: Runner, connection: Connection, values: list[Any], data: st.DataObject
) -> None:
    params = {f"v{number}": value for number, value in enumerate(values)}
    query = "SELECT " + ", ".join(f"%({name})s AS {name}" for name in params)
    returns: Any = data.draw(st.sampled_from(_SHAPES))
    in_background = run(runner, order(query, params=params, returns=returns))
    assert run(InlineRunner(connection), order(query, params=params, returns=returns)) == in_background


#: Calls of the tests' tasks: name, arguments.
_CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("add", (1,)),
    ("days", (datetime.date(2026, 2, 3), 3)),
    ("fail", ()),
    ("divide", (1, 0)),
    ("divide", (6, 3)),
    ("insert", ("{table}", "a", 0)),
    ("insert_unique", ("{table}", "a")),
    ("several", ("{table}",)),
    ("serializable", ("{table}",)),
    ("pair", (1,)),
    ("percent", ()),
    ("as_reader", ()),
    ("wrong_role", ()),
    ("wrong_setting", ()),
    ("too_slow", ()),
    ("large", (10,)),
    ("missing_argument", (1,)),
    ("lone_percent", ()),
    ("syntax_error", ()),
    ("database_name", ()),
    *(("returned", (kind,)) for kind in ("none", "empty", "number", "too few", "mixed", "object", "nul", "surrogate")),
]


@pytest.mark.parametrize(("name", "arguments"), _CALLS, ids=lambda value: str(value))
def test_a_task_ends_inline_as_in_a_background_worker(
    app: Celery,
    connection: Connection,
    table: str,
    database: Connection,
    reader_role: None,
    name: str,
    arguments: tuple[Any, ...],
) -> None:
    task = app.tasks[f"shop.{name}"]
    given = [value.format(table=table) if isinstance(value, str) else value for value in arguments]
    in_background = _call(task, given)
    database.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(table)))
    with inline(connection):
        assert _call(task, given) == in_background


def _call(task: Any, arguments: list[Any]) -> tuple[Any, ...]:
    try:
        return ("returned", task(*arguments))
    except Exception as exc:
        return (type(exc), str(exc), getattr(exc, "sqlstate", None))


@pytest.fixture
def reader_role(database: Connection) -> None:
    """The role that the task ``as_reader`` runs as."""
    database.execute("DO $$ BEGIN CREATE ROLE pgbg_test_reader; EXCEPTION WHEN duplicate_object THEN NULL; END $$")


# --- in the test's transaction ---------------------------------------------------------------------


def test_what_a_task_does_is_seen_by_the_test_alone_and_rolled_back(
    app: Celery, connection: Connection, table: str, database: Connection
) -> None:
    connection.execute(sql.SQL("INSERT INTO {} VALUES ('before')").format(sql.Identifier(table)))
    with inline(connection):
        assert app.tasks["shop.insert"](table, "task") == 1
    assert effects(connection, table) == ["before", "task"]
    assert effects(database, table) == []
    connection.rollback()
    assert effects(connection, table) == []


def test_a_failed_task_leaves_what_was_before_it(app: Celery, connection: Connection, table: str) -> None:
    connection.execute(sql.SQL("INSERT INTO {} VALUES ('before')").format(sql.Identifier(table)))
    with inline(connection), pytest.raises(psycopg.errors.RaiseException):
        app.tasks["shop.fail"]()
    assert effects(connection, table) == ["before"]


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_connection_in_no_transaction_gets_one_that_is_rolled_back(
    app: Celery, dsn: str, table: str, autocommit: bool
) -> None:
    with psycopg.connect(dsn, autocommit=autocommit) as idle:
        with inline(idle):
            app.tasks["shop.insert"](table, "task")
            assert effects(idle, table) == ["task"]
        assert idle.info.transaction_status == pq.TransactionStatus.IDLE
        assert effects(idle, table) == []


def test_the_session_is_afterwards_as_it_was(app: Celery, connection: Connection, reader_role: None) -> None:
    connection.execute("SET LOCAL datestyle = German; SET LOCAL application_name = mine; SET LOCAL work_mem = '5MB'")

    def session() -> list[Any]:
        names = ("role", "datestyle", "intervalstyle", "application_name", "work_mem", "statement_timeout")
        return [connection.execute("SELECT current_setting(%s)", [name]).fetchone() for name in names]

    before = session()
    with inline(connection):
        assert app.tasks["shop.as_reader"]() == "pgbg_test_reader 77MB"
        with pytest.raises(psycopg.errors.QueryCanceled):
            app.tasks["shop.too_slow"]()
        assert session() == before


def test_deferred_constraints_are_checked_and_deferred_again(app: Celery, connection: Connection) -> None:
    connection.execute(
        "CREATE TABLE parent (id int PRIMARY KEY);"
        "CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)"
    )
    statement = app.tasks["shop.statement"]
    with inline(connection):
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            statement("INSERT INTO child VALUES (1)")
        assert statement("INSERT INTO child VALUES (2); INSERT INTO parent VALUES (2)") == 1
        connection.execute("INSERT INTO child VALUES (3); INSERT INTO parent VALUES (3)")


def test_the_same_attempt_runs_once(app: Celery, connection: Connection, table: str) -> None:
    with inline(connection, app=app):
        sent = [app.tasks["shop.insert"].apply_async((table, "once"), task_id="one-id") for _ in range(3)]
        assert [result.get() for result in sent] == [1, 1, 1]
    assert effects(connection, table) == ["once"]


def test_sent_tasks_run_at_once_where_the_app_is_given(app: Celery, connection: Connection, table: str) -> None:
    task = app.tasks
    with inline(connection, app=app):
        assert task["shop.insert"].delay(table, "a").get() == 1
        counted = chord(group(task["shop.add"].si(n, 0) for n in range(3)), task["shop.total"].s()).delay()
        assert counted.get() == 3
        assert chain(task["shop.large"].si(2), task["shop.statement"].si("SELECT 5 AS n")).delay().get() == [{"n": 5}]
    assert not app.conf.task_always_eager


def test_retries_are_attempts_of_their_own(app: Celery, connection: Connection) -> None:
    connection.execute("CREATE SEQUENCE own_tries")
    with inline(connection, app=app):
        result = app.tasks["shop.divide_with_retries"].delay("own_tries")
        assert result.get() == [{"quotient": 1}]
    assert connection.execute("SELECT last_value FROM own_tries").fetchone() == (3,)


def test_tasks_of_other_threads_run_there_too(app: Celery, connection: Connection, table: str) -> None:
    with inline(connection):
        threads = [threading.Thread(target=app.tasks["shop.insert"], args=(table, str(n))) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert effects(connection, table) == [str(n) for n in range(8)]


def test_without_our_schema_it_is_there_for_the_transaction(new_database: Callable[[], str], app: Celery) -> None:
    with psycopg.connect(new_database()) as connection:
        with inline(connection):
            assert app.tasks["shop.add"](1, 2) == [{"total": 3}]
            assert app.tasks["shop.add"](1, 3) == [{"total": 4}]
            report = "SELECT celery_pgbg.report_progress(40, 'loading')::text AS nothing"
            assert app.tasks["shop.statement"](report) == [{"nothing": ""}]
        assert connection.execute("SELECT to_regnamespace('celery_pgbg')").fetchone() == (None,)


# --- what it refuses -------------------------------------------------------------------------------


def test_a_task_that_stands_alone_is_refused(app: Celery, connection: Connection) -> None:
    with inline(connection), pytest.raises(CannotRunInline, match=r"shop\.vacuum.*pgbg_worker"):
        app.tasks["shop.vacuum"]("t")


def test_every_database_needs_its_connection(app: Celery, connection: Connection, dsn: str) -> None:
    name, other = app.tasks["shop.database_name"], app.tasks["shop.other_database_name"]
    with inline(connection):
        with pytest.raises(CannotRunInline, match="'other'"):
            other()
        with psycopg.connect(dsn, dbname="postgres") as elsewhere, inline(elsewhere, database="other"):
            assert (name(), other()) == (connection.info.dbname, "postgres")


def test_what_is_no_connection_is_refused() -> None:
    with pytest.raises(TypeError, match=r"expected a psycopg 3 connection.*got builtins\.str"), inline("a DSN"):
        pass
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as other, pytest.raises(TypeError, match=r"got sqlite3\.Connection"), inline(other):
        pass
    engine.dispose()


def test_a_closed_connection_is_an_error_of_the_connection(app: Celery, connection: Connection) -> None:
    with inline(connection):
        connection.close()
        with pytest.raises(psycopg.OperationalError, match="closed"):
            app.tasks["shop.add"](1)


def test_after_it_tasks_run_in_background_workers_again(app: Celery, connection: Connection) -> None:
    pid = app.tasks["shop.worker_pid"]
    with inline(connection):
        assert pid() == connection.info.backend_pid
    assert pid() != connection.info.backend_pid


# --- whose connection it is ------------------------------------------------------------------------


def test_the_owners_adapters_make_no_difference(app: Celery, connection: Connection) -> None:
    for kind in ("jsonb", "text", "int4"):
        connection.adapters.register_loader(kind, _Shouting)
    connection.adapters.register_dumper(int, _MinusOne)
    with inline(connection):
        assert app.tasks["shop.add"](1, 2) == [{"total": 3}]
        with pytest.raises(psycopg.errors.RaiseException) as caught:
            app.tasks["shop.fail"]()
    assert caught.value.diag.message_hint == "as asked"
    assert connection.execute("SELECT 'a'::text").fetchone() == ("A!",)


class _Shouting(psycopg.adapt.Loader):
    def load(self, data: Any) -> str:
        return bytes(data).decode().upper() + "!"


class _MinusOne(psycopg.adapt.Dumper):
    def dump(self, obj: Any) -> bytes:
        return b"-1"


def test_the_owners_notices_still_arrive(app: Celery, connection: Connection) -> None:
    told: list[str | None] = []
    connection.add_notice_handler(lambda diagnostic: told.append(diagnostic.message_primary))
    with inline(connection):
        app.tasks["shop.statement"]("DO $$ BEGIN RAISE WARNING 'heard'; END $$")
    assert told == ["heard"]


def test_sqlalchemys_connection_and_session_share_their_transaction(app: Celery, dsn: str, table: str) -> None:
    engine = sqlalchemy.create_engine(dsn.replace("postgresql://", "postgresql+psycopg://"))
    count = sqlalchemy.text(f"SELECT count(*) FROM {table}")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"INSERT INTO {table} VALUES ('a')"))
        with inline(connection):
            app.tasks["shop.insert"](table, "b")
            assert connection.execute(count).scalar_one() == 2
    with Session(engine) as session:
        session.execute(sqlalchemy.text(f"INSERT INTO {table} VALUES ('a')"))
        with inline(session):
            app.tasks["shop.insert"](table, "b")
        assert session.execute(count).scalar_one() == 2
        session.rollback()
        assert session.execute(count).scalar_one() == 0
    engine.dispose()
