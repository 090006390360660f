"""What one role of a database can do to the tasks and results of another: nothing."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from celery_pgbg.database import schema
from celery_pgbg.database.result_rows import Payload, Reference, ResultRow
from celery_pgbg.database.results import ResultStore
from celery_pgbg.database.values import to_exception
from celery_pgbg.execution.control import operations, walk_control
from celery_pgbg.execution.control.stopping import stop_attempt
from celery_pgbg.execution.launching.launches import Placement
from celery_pgbg.execution.runner import Runner
from celery_pgbg.outcomes import Raised, Returned
from celery_pgbg.settings import read_settings
from tests.fix_runner import in_background, order, run
from tests.fix_server import url_of
from tests.security.conftest import superuser_rights
from tests.waiting import eventually

Session = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def shared(new_database: Callable[[], str]) -> Iterator[tuple[str, dict[str, str]]]:
    """A database and the roles that use it: two that share nothing, and two of which one acts for the other."""
    dsn = new_database()
    roles = {name: f"pgbg_test_{name}_{uuid.uuid4().hex[:8]}" for name in ("alice", "mallory", "worker", "web")}
    with psycopg.connect(dsn, autocommit=True) as session:
        for role in roles.values():
            session.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
        schema.install(session, [roles["alice"], roles["mallory"], roles["worker"]])
        schema.install(session, [roles["web"]], share_with=roles["worker"])
        session.execute(sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(sql.Identifier(roles["alice"])))
    yield dsn, roles
    with psycopg.connect(dsn, autocommit=True) as session:
        for role in roles.values():
            session.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(role)))


@pytest.fixture
def runner_of(shared: tuple[str, dict[str, str]]) -> Iterator[Callable[..., Runner]]:
    """A runner of one of the roles; of the superuser where none is named."""
    made: list[Runner] = []

    def make(name: str | None = None, **settings: Any) -> Runner:
        dsn = url_of(shared[0], user=shared[1][name]) if name else shared[0]
        made.append(Runner(dsn, read_settings({"pgbg_dsn": dsn, "pgbg_sweep_interval": 0.2, **settings})))
        return made[-1]

    yield make
    for runner in made:
        runner.close()


@pytest.fixture
def session_of(shared: tuple[str, dict[str, str]]) -> Iterator[Callable[..., Session]]:
    """A plain session of one of the roles; of the superuser where none is named."""
    made: list[Session] = []

    def make(name: str | None = None) -> Session:
        dsn = url_of(shared[0], user=shared[1][name]) if name else shared[0]
        made.append(psycopg.connect(dsn, autocommit=True))
        return made[-1]

    yield make
    for session in made:
        session.close()


def test_a_role_that_may_not_be_taken_is_an_error_without_our_own_context(
    shared: tuple[str, dict[str, str]], runner_of: Callable[..., Runner]
) -> None:
    ending = run(runner_of("alice"), order("SELECT 1", role=shared[1]["mallory"]))
    assert isinstance(ending, Raised)
    error = to_exception(ending.report)
    assert isinstance(error, errors.InsufficientPrivilege)
    assert error.diag.context is None


@pytest.mark.parametrize("victim", ["alice", None], ids=["of a role", "of a superuser"])
def test_nobody_writes_what_the_background_worker_of_another_executes(
    shared: tuple[str, dict[str, str]],
    runner_of: Callable[..., Runner],
    session_of: Callable[..., Session],
    victim: str | None,
) -> None:
    mallory, looker = session_of("mallory"), session_of()
    assert isinstance(run(runner_of(victim), order("SELECT 1", returns="value", reuse=True)), Returned)
    attack = sql.SQL("GRANT {} TO {}" if victim else "ALTER ROLE {1} SUPERUSER").format(
        sql.Identifier(shared[1]["alice"]), sql.Identifier(shared[1]["mallory"])
    )
    workers = "SELECT id FROM celery_pgbg.bgworker"
    [(pool, role)] = set(looker.execute("SELECT pool, role FROM celery_pgbg.bgworker").fetchall())
    forged = order(attack.as_string(), reuse=True)
    [placement] = runner_of("mallory").launchers[0].place([(pool, forged)])
    assert isinstance(placement, Placement)
    assert placement.workers == 0, "no background worker of that pool is mallory's"
    for change in ("role = %s", "role = %s, owner = %s"):
        parameters = [role] * change.count("%s")
        with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
            mallory.execute(f"UPDATE celery_pgbg.work SET {change}".encode(), parameters)
    for table in ("work", "execution"):
        assert mallory.execute(sql.SQL("DELETE FROM celery_pgbg.{}").format(sql.Identifier(table))).rowcount == 1
    for table in ("bgworker", "work", "execution", "outcome", "result"):
        assert mallory.execute(sql.SQL("DELETE FROM celery_pgbg.{}").format(sql.Identifier(table))).rowcount == 0
    eventually("the background worker has ended", lambda: not looker.execute(workers).fetchall())
    assert not superuser_rights(looker, shared[1]["mallory"])
    row = looker.execute("SELECT pg_has_role(%s, %s, 'MEMBER')", [shared[1]["mallory"], shared[1]["alice"]]).fetchone()
    assert row == (False,)


def test_nobody_occupies_the_number_of_a_background_worker(
    runner_of: Callable[..., Runner], session_of: Callable[..., Session]
) -> None:
    first = run(runner_of("alice"), order("SELECT 1", reuse=True))
    assert isinstance(first, Returned)
    session_of("mallory").execute("""
        INSERT INTO celery_pgbg.bgworker (id, pool) OVERRIDING SYSTEM VALUE
        SELECT n, 'x' FROM generate_series(1, 1000) AS n
    """)
    assert isinstance(run(runner_of("alice"), order("SELECT 1", reuse=True)), Returned)
    session_of("mallory").execute("DELETE FROM celery_pgbg.bgworker")


_FORGED = """
    INSERT INTO celery_pgbg.outcome (task_id, attempt, succeeded, pid, started_at, finished_at, returns, row_count)
    VALUES (%s, 0, true, 0, now(), now(), 'count', 666)
"""


@pytest.mark.parametrize("victim", ["alice", None], ids=["of a role", "of a superuser"])
@pytest.mark.parametrize("reuse", [False, True], ids=["", "reuse"])
def test_an_outcome_made_before_by_another_is_not_the_tasks(
    runner_of: Callable[..., Runner], session_of: Callable[..., Session], victim: str | None, reuse: bool
) -> None:
    asked = order("SELECT 42", returns="value", reuse=reuse)
    mallory = session_of("mallory")
    mallory.execute(_FORGED, [asked.attempt.task_id])
    mallory.execute(
        "INSERT INTO celery_pgbg.execution"
        " (task_id, attempt, task_name, atomic, pid, cookie, application_name, nodename)"
        " VALUES (%s, 0, 'x', true, pg_backend_pid(), 0, 'x', 'x')",
        [asked.attempt.task_id],
    )
    assert run(runner_of(victim), asked) == Returned(42)
    assert run(runner_of(victim), asked) == Returned(42)


def test_a_statement_alone_is_not_stopped_by_what_another_has_recorded(
    runner_of: Callable[..., Runner], session_of: Callable[..., Session]
) -> None:
    asked = order("VACUUM pg_catalog.pg_class", atomic=False)
    session_of("mallory").execute(_FORGED, [asked.attempt.task_id])
    assert run(runner_of(), asked) == Returned("VACUUM")


def test_nobody_reads_changes_or_deletes_what_belongs_to_another(
    runner_of: Callable[..., Runner], session_of: Callable[..., Session], shared: tuple[str, dict[str, str]]
) -> None:
    asked = order("SELECT 'secret'", returns="value")
    run(runner_of("alice"), asked)
    mallory = session_of("mallory")
    for table in ("outcome", "execution"):
        name = sql.Identifier("celery_pgbg", table)
        own = [asked.attempt.task_id]
        assert mallory.execute(sql.SQL("SELECT * FROM {} WHERE task_id = %s").format(name), own).fetchall() == []
        assert mallory.execute(sql.SQL("UPDATE {} SET pid = 1 WHERE task_id = %s").format(name), own).rowcount == 0
        assert mallory.execute(sql.SQL("DELETE FROM {} WHERE task_id = %s").format(name), own).rowcount == 0
        with pytest.raises(errors.InsufficientPrivilege):
            mallory.execute(sql.SQL("TRUNCATE {}").format(name))
    with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
        mallory.execute(
            "INSERT INTO celery_pgbg.outcome (task_id, attempt, succeeded, pid, started_at, finished_at, owner)"
            " VALUES (%s, 1, true, 0, now(), now(), %s::regrole)",
            [asked.attempt.task_id, shared[1]["alice"]],
        )
    for statement in (
        "UPDATE celery_pgbg.migration SET version = 1000",
        "INSERT INTO celery_pgbg.member SELECT role, 10 FROM celery_pgbg.member",
        "UPDATE celery_pgbg.member SET owner = 10",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            mallory.execute(statement.encode())
    assert run(runner_of("alice"), asked) == Returned("secret")
    assert asked.attempt.task_id not in {row["task_id"] for row in operations.executions(mallory, 3600)}
    assert operations.attempts_of(mallory, asked.attempt.task_id) == []
    assert asked.attempt.task_id in {row["task_id"] for row in operations.executions(session_of(), 3600)}


@pytest.mark.parametrize("victim", ["alice", None], ids=["of a role", "of a superuser"])
def test_nobody_stops_what_another_runs(
    runner_of: Callable[..., Runner], session_of: Callable[..., Session], victim: str | None
) -> None:
    asked = order("SELECT pg_sleep(3), 7", returns="row")
    watch, thread, endings = in_background(runner_of(victim), asked)
    eventually("it runs", lambda: watch.pid)
    mallory = session_of("mallory")
    assert operations.cancel_by_hand(mallory, asked.attempt.task_id) == []
    stop_attempt(mallory, asked.attempt, "revoked")
    thread.join(60)
    assert isinstance(endings[0], Returned), endings


def test_the_superuser_sees_and_stops_what_a_role_runs(
    runner_of: Callable[..., Runner], session_of: Callable[..., Session]
) -> None:
    asked = order("SELECT pg_sleep(60)")
    watch, thread, endings = in_background(runner_of("alice"), asked)
    eventually("it runs", lambda: watch.pid)
    eventually("it is stopped", lambda: operations.cancel_by_hand(session_of(), asked.attempt.task_id))
    thread.join(60)
    assert isinstance(endings[0], Raised), endings
    assert endings[0].report.sqlstate == "57014"


def test_a_forged_record_does_not_lead_an_operator_to_the_process_of_another(
    runner_of: Callable[..., Runner], session_of: Callable[..., Session]
) -> None:
    asked = order("SELECT 7 FROM pg_sleep(4)", returns="value")
    watch, thread, endings = in_background(runner_of("alice"), asked)
    eventually("it runs", lambda: watch.pid)
    forged = str(uuid.uuid4())
    session_of("mallory").execute(
        "INSERT INTO celery_pgbg.execution"
        " (task_id, attempt, task_name, atomic, pid, cookie, application_name, nodename, seen_at)"
        " VALUES (%s, 0, 'x', false, %s, 0, 'x', 'x', now() + interval '1 hour')",
        [forged, watch.pid],
    )
    operations.cancel_by_hand(session_of(), forged)
    thread.join(60)
    assert endings == [Returned(7)]


def test_a_walk_is_paused_and_resumed_by_its_own_role_alone(session_of: Callable[..., Session]) -> None:
    walk_id = str(uuid.uuid4())
    session_of("alice").execute(
        "INSERT INTO celery_pgbg.walk (walk_id, task_name, task_id, attempt, table_name, key_columns)"
        " VALUES (%s, 'x', %s, 0, 'x', '{id}')",
        [walk_id, walk_id],
    )
    # A superuser has an id of its own for each walk; it may stop one of another, as any statement.
    for other in ("mallory", None):
        assert not walk_control.pause(session_of(other), walk_id)
        assert walk_control.unpause(session_of(other), walk_id) is None
    assert walk_control.pause(session_of("alice"), walk_id)
    assert walk_control.unpause(session_of("alice"), walk_id) is not None
    session_of("alice").execute("DELETE FROM celery_pgbg.walk")


def test_the_same_task_of_two_roles_runs_twice(runner_of: Callable[..., Runner]) -> None:
    task_id = str(uuid.uuid4())
    runners = [runner_of("alice"), runner_of("worker"), runner_of()]
    endings: list[Any] = []

    def run_it(runner: Runner) -> None:
        endings.append(run(runner, order("SELECT pg_sleep(1), current_user::text AS name", task_id, returns="row")))

    threads = [threading.Thread(target=run_it, args=[runner]) for runner in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len({ending.value["name"] for ending in endings}) == len(runners)


def store_of(shared: tuple[str, dict[str, str]], name: str) -> ResultStore:
    return ResultStore(url_of(shared[0], user=shared[1][name]), connect_timeout=10, notify=False)


def result_row(task_id: str, status: str) -> ResultRow:
    return ResultRow(task_id, status, None, None, None, None, None, "test", None, 0, None)


@pytest.fixture
def stores(shared: tuple[str, dict[str, str]]) -> Iterator[dict[str, ResultStore]]:
    """The result backend of each role."""
    made = {name: store_of(shared, name) for name in shared[1]}
    yield made
    for store in made.values():
        store.close()


_PAYLOAD = Payload("application/json", "utf-8", b"1")
_OTHER = Payload("application/json", "utf-8", b"666")


def test_results_groups_and_chords_of_two_roles_are_apart(stores: dict[str, ResultStore]) -> None:
    alice, mallory = stores["alice"], stores["mallory"]
    task_id = str(uuid.uuid4())
    mallory.store(result_row(task_id, "SUCCESS"), _OTHER)
    mallory.store_group(task_id, _OTHER)
    mallory.set_chord_size(task_id, 1)
    [found] = alice.read([task_id])
    assert found.status is None
    assert alice.read_group(task_id) is None
    alice.store(result_row(task_id, "SUCCESS"), _PAYLOAD)
    alice.store_group(task_id, _PAYLOAD)
    alice.set_chord_size(task_id, 2)
    mallory.forget(task_id)
    mallory.delete_group(task_id)
    mallory.reset_chord(task_id)
    [found] = alice.read([task_id])
    assert (found.status, found.value) == ("SUCCESS", b"1")
    assert alice.read_group(task_id) == _PAYLOAD
    part = {
        "group_id": task_id, "task_id": "1", "group_index": 0, "status": "SUCCESS", "content_type": "", "value": b"1",
        "content_encoding": "", "outcome_attempt": None, "task_name": "test", "claim": "mine", "lease_ms": 1000,
    }  # fmt: skip
    assert alice.record_chord_part(part) == "waiting"
    assert mallory.read_chord_parts(task_id, True) == []
    assert not mallory.extend_chord_claim(task_id, "mine", 60)
    mallory.finish_chord(task_id, "mine")
    assert len(alice.read_chord_parts(task_id, True)) == 1


def test_a_role_that_shares_reads_and_writes_what_belongs_to_the_other(
    stores: dict[str, ResultStore], runner_of: Callable[..., Runner]
) -> None:
    worker, web = stores["worker"], stores["web"]
    asked = order("SELECT 42", returns="value")
    assert run(runner_of("worker"), asked) == Returned(42)
    task_id = asked.attempt.task_id
    web.hide_outcomes(f"{task_id} early")
    [found] = web.read([task_id])
    assert found.outcome_value() == 42
    assert worker.store_reference(result_row(task_id, "SUCCESS"), _PAYLOAD, Reference("test", 0))
    [found] = web.read([task_id])
    assert found.status == "SUCCESS"
    web.set_chord_size(task_id, 1)
    part = {
        "group_id": task_id, "task_id": task_id, "group_index": 0, "status": "SUCCESS", "content_type": "",
        "content_encoding": "", "value": None, "outcome_attempt": 0, "task_name": "test", "claim": "c",
        "lease_ms": 1000,
    }  # fmt: skip
    assert worker.record_chord_part(part) == "claimed"
    assert len(web.read_chord_parts(task_id, True)) == 1
    web.forget(task_id)
    [found] = worker.read([task_id])
    assert found.forgotten


def test_a_role_that_shares_does_not_write_what_the_other_executes(
    runner_of: Callable[..., Runner], session_of: Callable[..., Session]
) -> None:
    assert isinstance(run(runner_of("worker"), order("SELECT 1", reuse=True)), Returned)
    [placement] = runner_of("worker").launchers[0].place([("nobody's", order("SELECT 1", reuse=True))])
    assert isinstance(placement, Placement)
    for update in ("bgworker SET is_stopped = false", "work SET statement = 'SELECT 666'"):
        with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
            session_of("web").execute(f"UPDATE celery_pgbg.{update}".encode())
    session_of("worker").execute("DELETE FROM celery_pgbg.work")


@pytest.mark.parametrize("reuse", [False, True], ids=["", "reuse"])
def test_statements_that_change_role_or_row_security_leave_their_outcomes(
    runner_of: Callable[..., Runner],
    session_of: Callable[..., Session],
    shared: tuple[str, dict[str, str]],
    reuse: bool,
) -> None:
    runner = runner_of("alice")
    query = "SET row_security = off; SELECT 1"
    assert run(runner, order(query, returns="value", reuse=reuse)) == Returned(1)
    assert run(runner, order(query, returns="value", reuse=reuse)) == Returned(1)
    session = session_of()
    session.execute(
        sql.SQL("GRANT {} TO {}").format(sql.Identifier(shared[1]["mallory"]), sql.Identifier(shared[1]["worker"]))
    )
    try:
        for fields in (
            {"query": f"SET ROLE {shared[1]['mallory']}; SELECT current_user::text"},
            {"query": "SELECT current_user::text", "role": shared[1]["mallory"]},
        ):
            asked = order(returns="value", reuse=reuse, **fields)
            assert run(runner_of("worker"), asked) == Returned(shared[1]["mallory"])
            owners = session.execute(
                "SELECT owner::text FROM celery_pgbg.outcome WHERE task_id = %s", [asked.attempt.task_id]
            ).fetchall()
            assert owners == [(shared[1]["worker"],)]
    finally:
        session.execute(
            sql.SQL("REVOKE {} FROM {}").format(
                sql.Identifier(shared[1]["mallory"]), sql.Identifier(shared[1]["worker"])
            )
        )


def test_a_role_whose_row_security_is_off_can_work(
    runner_of: Callable[..., Runner], session_of: Callable[..., Session], shared: tuple[str, dict[str, str]]
) -> None:
    role = sql.Identifier(shared[1]["alice"])
    session_of().execute(sql.SQL("ALTER ROLE {} SET row_security = off").format(role))
    try:
        runner = runner_of("alice")
        for reuse in (False, True, True):
            assert run(runner, order("SELECT 1", returns="value", reuse=reuse)) == Returned(1)
    finally:
        session_of().execute(sql.SQL("ALTER ROLE {} RESET row_security").format(role))


def test_every_table_has_row_security_and_its_owner_in_every_key(session_of: Callable[..., Session]) -> None:
    open_to_all = {"member", "migration"}
    # The broker's queues are shared by all members.
    open_to_all |= {"queue", "exchange", "binding", "message", "consumer", "subscription", "relay"}
    rows = (
        session_of()
        .execute("""
        SELECT c.relname, c.relrowsecurity,
            (SELECT count(*) FROM pg_policy AS p WHERE p.polrelid = c.oid),
            bool_and(EXISTS (
                SELECT FROM pg_attribute AS a
                WHERE a.attrelid = c.oid AND a.attname = ANY ('{owner,role}') AND a.attnum = ANY (i.indkey)
            ))
        FROM pg_class AS c LEFT JOIN pg_index AS i ON i.indrelid = c.oid AND i.indisunique
        WHERE c.relnamespace = 'celery_pgbg'::regnamespace AND c.relkind = 'r'
        GROUP BY c.oid
    """)
        .fetchall()
    )
    assert {"execution", "outcome", "bgworker", "work"} < {row[0] for row in rows}
    for name, row_security, policies, is_in_keys in rows:
        if name not in open_to_all:
            assert (row_security, policies, is_in_keys) == (True, 1, True), name
