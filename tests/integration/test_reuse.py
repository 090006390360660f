"""Background workers that run one task after another, on a real server."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
import pytest

from celery_pgbg.database import schema
from celery_pgbg.devserver import DevServer
from celery_pgbg.execution.control.operations import cancel_by_hand, executions
from celery_pgbg.execution.launching.launches import Placement
from celery_pgbg.execution.runner import Runner
from celery_pgbg.outcomes import Cancelled, Raised, Returned
from celery_pgbg.settings import read_settings
from celery_pgbg.watch import Interruption, Watch
from tests.effects import effects, running
from tests.faults.moments import hold_in_gate
from tests.fix_runner import in_background, order, run
from tests.fix_server import url_of
from tests.waiting import eventually


@pytest.fixture(scope="module")
def small_server() -> Iterator[str]:
    """A database with our schema on a server with few slots."""
    server = DevServer(f"reuse-{os.getpid()}")
    dsn = server.start(max_worker_processes=10, fsync=False)
    with psycopg.connect(dsn, autocommit=True) as session:
        schema.install(session)
    yield dsn
    server.stop(purge=True)


def reused(runner: Runner, query: str, **fields: Any) -> Any:
    """Run a query as a task that may reuse a background worker; returns its value, or its ending if it has none."""
    return reused_in(runner, query, **fields)[0]


def reused_in(runner: Runner, query: str, **fields: Any) -> tuple[Any, int | None]:
    """The same, and the PID of the background worker."""
    asked = order(query, **{"returns": "value", "reuse": True, **fields})
    watch = Watch(asked.attempt)
    ending = runner.run(asked, watch)
    return ending.value if isinstance(ending, Returned) else ending, watch.pid


def in_one_worker(runner: Runner, *queries: str, **fields: Any) -> list[Any]:
    """Run queries one after another in one background worker. Told again where another had taken one of them."""
    while True:
        found = [reused_in(runner, query, **fields) for query in (*queries, "SELECT 1")]
        if len({pid for _, pid in found}) == 1:
            return [value for value, _ in found[:-1]]


def test_one_background_worker_runs_one_task_after_another(runner: Runner) -> None:
    seen = "SELECT concat_ws(' ', pg_current_xact_id(), current_setting('application_name'))"
    [one, two] = [value.split() for value in in_one_worker(runner, seen, seen)]
    assert one[0] != two[0], "each has a transaction of its own"
    assert one[2] != two[2], "each has its own name"


def test_tasks_that_may_not_reuse_do_not(runner: Runner) -> None:
    [other] = in_one_worker(runner, "SELECT pg_backend_pid()")
    assert reused(runner, "SELECT pg_backend_pid()", reuse=False) != other
    assert reused(runner, "SELECT pg_backend_pid()", settings={"work_mem": "10MB"}) != other


def test_thousands_of_them_lose_nothing_and_have_the_right_pid(runner: Runner, database: Any, table: str) -> None:
    wrong: list[Any] = []

    def run_many(thread: int) -> None:
        for number in range(80):
            asked = order(
                f"INSERT INTO {table} VALUES ('{thread} {number}') RETURNING pg_backend_pid()",
                returns="value",
                reuse=True,
            )
            watch = Watch(asked.attempt)
            ending = runner.run(asked, watch)
            if ending != Returned(watch.pid):
                wrong.append((ending, watch.pid))

    threads = [threading.Thread(target=run_many, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert effects(database, table) == sorted(f"{thread} {number}" for thread in range(12) for number in range(80))
    (workers,) = database.execute("SELECT last_value FROM celery_pgbg.bgworker_id_seq").fetchone()
    assert workers < 12 * 80 / 2, "most were handed over"


def test_an_idle_one_ends_by_itself_and_leaves_no_row(runner: Runner, database: Any) -> None:
    asked = order("SELECT pg_backend_pid()", returns="value", reuse=True)
    pid = run(runner, asked).value
    query = "SELECT FROM celery_pgbg.bgworker WHERE task_id = %s"
    eventually("its row is deleted", lambda: not database.execute(query, [asked.attempt.task_id]).fetchall())
    query = "SELECT FROM pg_stat_activity WHERE pid = %s AND backend_type = 'pg_background'"
    eventually("it is gone", lambda: not database.execute(query, [pid]).fetchall())
    eventually("its handle is detached", lambda: all(not launcher.states() for launcher in runner.launchers))
    assert reused(runner, "SELECT 1") == 1


def test_nothing_of_a_session_is_left_to_the_next_task(runner: Runner, database: Any) -> None:
    database.execute("CREATE SEQUENCE IF NOT EXISTS pgbg_test_reused")
    leave = (
        "SELECT set_config('work_mem', '77MB', false)",
        "SELECT set_config('datestyle', 'German', false)",
        "CREATE TEMP TABLE left_behind AS SELECT 1; SELECT 1",
        "PREPARE left_behind AS SELECT 1; SELECT 1",
        "SELECT pg_try_advisory_lock(815)",
        "SELECT nextval('pgbg_test_reused')",
    )
    look = """SELECT concat_ws(' ', current_setting('work_mem'), current_setting('datestyle'),
        to_regclass('pg_temp.left_behind') IS NULL, (SELECT count(*) FROM pg_prepared_statements),
        (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND objid = 815))"""
    (memory,) = database.execute("SHOW work_mem").fetchone()
    values = in_one_worker(runner, *leave, look, "SELECT lastval()")
    assert values[-2] == f"{memory} ISO, MDY t 0 0"
    assert isinstance(values[-1], Raised)
    # "lastval is not yet defined", in the server's language.
    assert values[-1].report.sqlstate == "55000"


def test_results_of_any_shape_come_from_one_worker(runner: Runner) -> None:
    queries = {
        "SELECT 1, 'a'": "1",
        "SELECT ARRAY[1, 2]": [1, 2],
        "SELECT 1 / 0": "22012",
        "SELECT '1 day'::interval::text": "1 day",
        "SELECT 'postgres=r/postgres'::aclitem": "postgres=r/postgres",
        "SELECT 1 WHERE false": None,
        "SELECT repeat('x', 20000000)": "54000",
        "SELECT '2026-02-03'::date::text": "2026-02-03",
    }
    values = in_one_worker(runner, *queries)
    told = [value.report.sqlstate if isinstance(value, Raised) else value for value in values]
    assert told[1:] == list(queries.values())[1:]
    rows = [
        reused(runner, f"SELECT {n} AS n, 'x' AS c{n} FROM generate_series(1, {n})", returns=None) for n in (1, 2, 3)
    ]
    assert [len(found) for found in rows] == [1, 2, 3]
    assert rows[2][0] == {"n": 3, "c3": "x"}


def test_a_revoke_stops_the_task_that_runs_and_no_other(runner: Runner, database: Any, table: str) -> None:
    pid = reused(runner, "SELECT pg_backend_pid()")
    asked = order(f"INSERT INTO {table} VALUES ('x'); SELECT pg_sleep(60)", returns="value", reuse=True)
    watch, thread, endings = in_background(runner, asked)
    eventually("it runs", lambda: running(database, asked.attempt.task_id))
    assert watch.pid == pid or reused(runner, "SELECT 1") == 1
    watch.interrupt(Interruption.REVOKE)
    thread.join(30)
    assert endings == [Cancelled()]
    assert effects(database, table) == []
    assert reused(runner, "SELECT 1") == 1


def test_revokes_at_any_moment_hit_only_their_own_task(
    new_runner: Callable[..., Runner], database: Any, table: str
) -> None:
    ours, theirs = new_runner(), new_runner()
    wrong: list[str] = []
    kept: list[str] = []

    def run_some(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(40):
            name = uuid.uuid4().hex
            asked = order(f"INSERT INTO {table} VALUES ('{name}') RETURNING 1", name, returns="value", reuse=True)
            watch = Watch(asked.attempt)
            revokes = chance.random() < 0.5
            ways: list[Callable[[], Any]] = [
                partial(watch.interrupt, Interruption.REVOKE),
                # as a second delivery elsewhere does
                partial(theirs.launchers[0].terminate, asked.attempt),
                # as a Celery worker with another pool does, and ``pgbg cancel --force``
                partial(theirs.stop, asked.attempt, "by hand", "stopped by the test"),
            ]
            timer = threading.Timer(chance.uniform(0, 0.02), chance.choice(ways))
            if revokes:
                timer.start()
            ending = ours.run(asked, watch)
            if revokes:
                timer.join()
            if isinstance(ending, Returned):
                kept.append(name)
            elif not revokes:
                wrong.append(f"{name} was not revoked: {ending}")

    threads = [threading.Thread(target=run_some, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert effects(database, table) == sorted(kept)


def test_an_order_that_is_taken_while_it_is_being_stopped_costs_the_next_order_nothing(
    runner: Runner, new_runner: Callable[..., Runner], database: Any
) -> None:
    late = order("SELECT 1").attempt
    run(runner, order("SELECT 1", late.task_id))
    database.execute("DELETE FROM celery_pgbg.outcome WHERE task_id = %s", [late.task_id])
    _, thread, endings = in_background(runner, next_order := order("SELECT pg_sleep(3)", reuse=True, returns="count"))
    [pid] = eventually("it runs", lambda: running(database, next_order.attempt.task_id))
    with psycopg.connect(database.info.dsn) as holder:
        holder.execute("SELECT FROM celery_pgbg.execution WHERE task_id = %s FOR UPDATE", [late.task_id])
        found: list[bool] = []
        stop = threading.Thread(target=lambda: found.append(new_runner().launchers[0].terminate(late)))
        stop.start()
        waits = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%terminate_attempt%'"
        eventually("the stop is past the orders and rows that it has found", lambda: database.execute(waits).fetchall())
        # As if the background worker had taken the order that is being stopped, and then the next one.
        taken = database.execute(
            "UPDATE celery_pgbg.bgworker AS b SET task_id = %s FROM celery_pgbg.bgworker AS before"
            " WHERE b.id = before.id AND b.pid = %s RETURNING before.task_id",
            [late.task_id, pid],
        ).fetchone()
        holder.rollback()
        stop.join()
    database.execute("UPDATE celery_pgbg.bgworker SET task_id = %s WHERE pid = %s", [*taken, pid])
    assert found == [False]
    thread.join()
    assert endings == [Returned(1)]


def test_nothing_is_handed_over_after_a_task_that_was_stopped_in_the_gate(
    new_runner: Callable[..., Runner], dsn: str, database: Any
) -> None:
    ours, theirs = new_runner(), new_runner()
    reused(ours, "SELECT 1")
    asked = order("SELECT pg_sleep(60)", returns="value", reuse=True)
    stop = threading.Thread(target=lambda: theirs.stop(asked.attempt, "revoked"))
    blocked_by = "SELECT pid FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid)) AND backend_type ~ 'client'"
    with psycopg.connect(dsn) as holder:
        hold_in_gate(holder, asked.attempt.task_id)
        _, thread, endings = in_background(ours, asked)
        [launching] = eventually(
            "it is in the gate", lambda: database.execute(blocked_by, [holder.info.backend_pid]).fetchone()
        )
        stop.start()
        eventually("the stop waits for it", lambda: database.execute(blocked_by, [launching]).fetchone())
        holder.rollback()
    for one in (stop, thread):
        one.join(60)
    assert isinstance(endings[0], Raised)
    query = "SELECT FROM celery_pgbg.bgworker WHERE task_id = %s AND NOT is_stopped"
    assert database.execute(query, [asked.attempt.task_id]).fetchall() == []
    query = "SELECT FROM celery_pgbg.work WHERE task_id = %s"
    assert database.execute(query, [asked.attempt.task_id]).fetchall() == []


def test_a_second_delivery_gets_the_same_outcome(runner: Runner, database: Any, table: str) -> None:
    asked = order(f"INSERT INTO {table} VALUES ('x'); SELECT pg_sleep(1)", returns="count", reuse=True)
    deliveries = [in_background(runner, asked) for _ in range(4)]
    for _, thread, endings in deliveries:
        thread.join(30)
        assert endings == [Returned(1)]
    assert run(runner, asked) == Returned(1)
    assert effects(database, table) == ["x"]


def test_an_order_that_nobody_has_taken_is_taken_over(
    new_runner: Callable[..., Runner], database: Any, table: str
) -> None:
    """As one whose Celery worker died, with all its background workers, before any had taken it."""
    dead, alive = new_runner(), new_runner()
    asked = order(f"INSERT INTO {table} VALUES ('x') RETURNING 1", returns="value", reuse=True)
    [placement] = dead.launchers[0].place([("nobody's", asked)])
    assert isinstance(placement, Placement)
    assert (placement.state, placement.workers) == ("placed", 0)
    database.execute("UPDATE celery_pgbg.execution SET launched_at = now() - interval '1 hour'")
    assert run(alive, asked) == Returned(1)
    assert effects(database, table) == ["x"]
    query = "SELECT launches FROM celery_pgbg.execution WHERE task_id = %s"
    assert database.execute(query, [asked.attempt.task_id]).fetchall() == [(1,)]


def test_an_order_that_waits_is_shown_and_can_be_stopped(
    new_runner: Callable[..., Runner], database: Any, table: str
) -> None:
    ours, theirs = new_runner(), new_runner()
    for stop in (
        lambda asked: ours.launchers[0].terminate(asked.attempt),
        lambda asked: theirs.stop(asked.attempt, "by hand") == "absent",
        lambda asked: cancel_by_hand(database, asked.attempt.task_id) == [True],
    ):
        asked = order(f"INSERT INTO {table} VALUES ('x')", reuse=True)
        ours.launchers[0].place([("nobody's", asked)])
        [shown] = [row for row in executions(database, 0) if row["task_id"] == asked.attempt.task_id]
        assert (shown["state"], shown["statement"]) == ("waiting", f"INSERT INTO {table} VALUES ('x')")
        assert stop(asked)
        assert [row for row in executions(database, 0) if row["task_id"] == asked.attempt.task_id] == []
    assert effects(database, table) == []


def test_a_revoke_before_an_order_is_taken_deletes_it(runner: Runner, database: Any, table: str) -> None:
    done = []
    query = "SELECT FROM celery_pgbg.work WHERE task_id = %s"
    for value in ("a", "b", "c", "d", "e"):
        with stopped(reused(runner, "SELECT pg_backend_pid()")):
            asked = order(f"INSERT INTO {table} VALUES ('{value}')", returns="count", reuse=True)
            watch, thread, endings = in_background(runner, asked)
            task_id = asked.attempt.task_id

            def waits_or_has_ended(task_id: str = task_id, endings: list[Any] = endings) -> bool:
                return bool(endings or database.execute(query, [task_id]).fetchall())

            eventually("it waits, or was taken before we could see it", waits_or_has_ended)
            watch.interrupt(Interruption.REVOKE)
            thread.join(30)
        assert reused(runner, "SELECT 1") == 1
        if endings == [Cancelled()]:
            break
        # Another background worker was launched for it, and was quicker than we.
        assert isinstance(endings[0], Returned)
        done.append(value)
    assert endings == [Cancelled()]
    assert effects(database, table) == done


def test_a_long_task_holds_up_no_other(runner: Runner, database: Any) -> None:
    many = [in_background(runner, order("SELECT pg_sleep(60)", returns="value", reuse=True)) for _ in range(8)]
    for watch, _, _ in many:
        eventually("it runs", lambda watch=watch: running(database, watch.attempt.task_id))
        eventually("it is accepted", lambda watch=watch: watch.pid)
    assert reused(runner, "SELECT 1") == 1
    for watch, thread, endings in many:
        watch.interrupt(Interruption.REVOKE)
        thread.join(30)
        assert endings == [Cancelled()]


@contextmanager
def stopped(pid: int) -> Iterator[int]:
    """Let a process do nothing meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGCONT)


def test_one_that_was_ended_by_hand_while_idle_costs_no_task(runner: Runner, database: Any, table: str) -> None:
    for number in range(3):
        pid = reused(runner, "SELECT pg_backend_pid()")
        database.execute("SELECT pg_terminate_backend(%s)", [pid])
        asked = order(f"INSERT INTO {table} VALUES ('{number}') RETURNING 1", returns="value", reuse=True)
        while run(runner, asked) != Returned(1):
            # lost, as any task whose worker was ended: it is delivered again
            assert effects(database, table).count(str(number)) == 0
    assert effects(database, table) == [str(number) for number in range(3)]


def test_one_that_has_just_been_launched_is_not_taken_for_gone(runner: Runner, database: Any) -> None:
    launching, looking = runner.launchers[0], runner.launchers[1]
    asked = [("nobody's", order("SELECT 1", reuse=True).attempt)]
    looking.look(asked)
    for _ in range(20):
        assert launching.launch_reusable("nobody's") is not None
        looking.look(asked)
    query = "SELECT count(*) FROM celery_pgbg.bgworker WHERE pool = 'nobody''s' AND is_stopped"
    assert database.execute(query).fetchone() == (0,)


def test_a_rolled_back_launch_runs_nothing(runner: Runner, database: Any, table: str) -> None:
    capabilities = runner.launchers[0].capabilities
    runner.launchers[0].place([("rolled back", order(f"INSERT INTO {table} VALUES ('x')", reuse=True))])
    with database.transaction(force_rollback=True):
        (pid,) = database.execute(
            "SELECT pid FROM celery_pgbg.launch_reusable(%s, %s, 65536, 'rolled back', 'pgbg t', NULL)",
            [capabilities.schema, capabilities.name("launch")],
        ).fetchone()
    query = "SELECT FROM pg_stat_activity WHERE pid = %s AND backend_type = 'pg_background'"
    eventually("it is gone", lambda: not database.execute(query, [pid]).fetchall())
    assert effects(database, table) == []
    database.execute("DELETE FROM celery_pgbg.work")


def test_a_connection_with_a_statement_timeout_does_not_reuse(dsn: str) -> None:
    # Enough for a new background worker on a busy machine.
    limited = url_of(dsn) + "?options=-c%20statement_timeout%3D3000"
    runner = Runner(limited, read_settings({"pgbg_dsn": limited}))
    try:
        pids = {reused(runner, "SELECT pg_backend_pid()") for _ in range(4)}
        assert len(pids) == 4
        assert reused(runner, "SELECT pg_sleep(30)").report.sqlstate == "57014"
    finally:
        runner.close()


def test_an_idle_one_holds_up_no_vacuum(runner: Runner, database: Any, table: str) -> None:
    """CREATE INDEX CONCURRENTLY waits for every older snapshot."""
    stop = threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            reused(runner, "SELECT 1")

    thread = threading.Thread(target=keep_busy)
    thread.start()
    try:
        database.execute("SET statement_timeout = '30s'")
        database.execute(f"CREATE INDEX CONCURRENTLY ON {table} (v)")
    finally:
        stop.set()
        thread.join()


def test_a_repeatable_read_default_does_not_hide_tasks_from_them(dsn: str) -> None:
    isolated = url_of(dsn) + "?options=-c%20default_transaction_isolation%3Dserializable"
    runner = Runner(isolated, read_settings({"pgbg_dsn": isolated}))
    try:
        [level] = in_one_worker(runner, "SELECT current_setting('transaction_isolation')")
        assert level == "serializable"
    finally:
        runner.close()


@pytest.mark.parametrize("moment", [0.0, 0.1, 0.9, 0.98, 1.02, 1.2])
def test_a_task_that_comes_as_one_ends_is_run(runner: Runner, moment: float) -> None:
    for _ in range(2):
        reused(runner, "SELECT 1")
        time.sleep(moment)
        assert reused(runner, "SELECT 2") == 2


def test_the_statement_is_shown_by_ps(runner: Runner, database: Any) -> None:
    reused(runner, "SELECT 1")
    asked = order("SELECT 'find me', pg_sleep(60)", returns="value", reuse=True)
    watch, thread, _ = in_background(runner, asked)
    eventually("it runs", lambda: running(database, asked.attempt.task_id))
    shown = [row for row in executions(database, 0) if row["task_id"] == asked.attempt.task_id]
    assert [row["statement"] for row in shown] == ["SELECT 'find me', pg_sleep(60)"]
    assert [row["pid"] for row in shown] == running(database, asked.attempt.task_id)
    watch.interrupt(Interruption.REVOKE)
    thread.join(30)


def test_free_ones_make_room_where_the_server_is_full(small_server: str) -> None:
    """A free one would end by itself after a second: it must be gone long before."""
    runner = Runner(small_server, read_settings({"pgbg_dsn": small_server, "pgbg_launchers": 1}))
    [launcher] = runner.launchers
    free = "SELECT count(*) FROM celery_pgbg.bgworker WHERE NOT is_busy"
    try:
        with psycopg.connect(small_server, autocommit=True) as session:
            while True:
                reused(runner, "SELECT 1")
                begin = time.monotonic()
                states = [launcher.launch(order("SELECT pg_sleep(60)")).state for _ in range(10)]
                is_young = time.monotonic() - begin < 0.5
                assert "full" in states
                if is_young and session.execute(free).fetchone() == (0,):
                    break
                end_all(session)
            end_all(session)
        assert reused(runner, "SELECT 1") == 1
    finally:
        runner.close()


def end_all(session: Any) -> None:
    """End all background workers of this database, and wait until they are gone. Other tests have theirs."""
    query = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database()"
    session.execute(f"{query} AND backend_type = 'pg_background'")


def test_orders_wait_for_a_slot_and_are_counted(small_server: str) -> None:
    runner = Runner(small_server, read_settings({"pgbg_dsn": small_server, "pgbg_launchers": 1}))
    [launcher] = runner.launchers
    try:
        with psycopg.connect(small_server, autocommit=True) as session:
            end_all(session)
            while launcher.launch(order("SELECT pg_sleep(60)")).state != "full":
                pass
            watch, thread, endings = in_background(runner, order("SELECT 1", returns="value", reuse=True))
            eventually("it waits for a slot", lambda: runner.describe()["waiting_for_slot"] == 1)
            assert watch.pid is None
            end_all(session)
        thread.join(60)
        assert endings == [Returned(1)]
    finally:
        runner.close()


def test_a_launch_that_the_server_refuses_fails_and_leaves_no_order(new_database: Callable[[], str]) -> None:
    dsn = new_database()
    runner = Runner(dsn, read_settings({"pgbg_dsn": dsn}))
    try:
        with psycopg.connect(dsn, autocommit=True) as session:
            schema.install(session)
            assert reused(runner, "SELECT 1") == 1
            end_all(session)
            session.execute("ALTER TABLE celery_pgbg.bgworker ADD CHECK (turn > 0) NOT VALID")
            ending = reused(runner, "SELECT 1")
            assert isinstance(ending, Raised)
            assert ending.report.sqlstate == "23514"
            assert session.execute("SELECT FROM celery_pgbg.work").fetchall() == []
    finally:
        runner.close()
