"""Advisory lock keys are known to all: a role that may only connect holds ours, and nothing waits for it for ever."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from kombu import Connection
from psycopg import sql

from celery_pgbg.broker.station import close_stations
from celery_pgbg.database import schema
from celery_pgbg.database.results import ResultStore
from celery_pgbg.execution.control.stopping import stop_attempt
from celery_pgbg.execution.records.expiry import Expiry
from celery_pgbg.execution.runner import Runner
from celery_pgbg.outcomes import Cancelled, Raised, Returned
from celery_pgbg.settings import read_settings
from tests.fix_runner import in_background, order, run
from tests.fix_server import url_of
from tests.waiting import eventually

Session = psycopg.Connection[Any]

#: A stranger computes keys as we do: the formula and its seed are public.
_KEY = "hashtextextended(concat_ws(' ', VARIADIC %s::text[]), 7098221438016225)"


@pytest.fixture(scope="module")
def roles(new_database: Callable[[], str]) -> Iterator[tuple[str, str, str]]:
    """A database, a member, and a role that may connect and nothing else."""
    dsn = new_database()
    names = [f"pgbg_test_{name}_{uuid.uuid4().hex[:8]}" for name in ("member", "stranger")]
    with psycopg.connect(dsn, autocommit=True) as session:
        for name in names:
            session.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        schema.install(session, names[:1])
    yield dsn, names[0], names[1]
    with psycopg.connect(dsn, autocommit=True) as session:
        for name in names:
            session.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


@pytest.fixture
def member_dsn(roles: tuple[str, str, str]) -> str:
    return url_of(roles[0], user=roles[1])


@pytest.fixture
def stranger(roles: tuple[str, str, str]) -> Iterator[Session]:
    with psycopg.connect(url_of(roles[0], user=roles[2]), autocommit=True) as session:
        yield session


@pytest.fixture
def runner(member_dsn: str) -> Iterator[Runner]:
    made = Runner(member_dsn, read_settings({"pgbg_dsn": member_dsn, "pgbg_sweep_interval": 0.2}))
    yield made
    made.close()


def hold(stranger: Session, member: str, kind: str, task_id: str) -> None:
    """Hold the key of an attempt, as anybody can who knows its task id and the OID of the role."""
    row = stranger.execute("SELECT oid FROM pg_roles WHERE rolname = %s", [member]).fetchone()
    assert row is not None
    stranger.execute(f"SELECT pg_advisory_lock({_KEY})", [[kind, f"0 {row[0]} {task_id}"]])


def test_an_attempt_whose_key_a_stranger_holds_fails_and_says_who_it_is(
    roles: tuple[str, str, str], stranger: Session, runner: Runner
) -> None:
    asked = order("SELECT 42", returns="value")
    hold(stranger, roles[1], "attempt", asked.attempt.task_id)
    ending = run(runner, asked)
    assert isinstance(ending, Raised)
    assert ending.report.sqlstate == "55P03"
    assert str(stranger.info.backend_pid) in ending.report.message
    assert run(runner, order("SELECT 42", returns="value")) == Returned(42)


def test_an_attempt_waits_for_the_key_as_long_as_its_own_role_holds_it(
    roles: tuple[str, str, str], member_dsn: str, runner: Runner, stranger: Session
) -> None:
    asked = order("SELECT 42", returns="value", settings={"lock_timeout": "100ms"})
    with psycopg.connect(member_dsn, autocommit=True) as own:
        hold(own, roles[1], "attempt", asked.attempt.task_id)
        _, thread, endings = in_background(runner, asked)
        thread.join(4)
        assert thread.is_alive()
    thread.join(20)
    assert endings == [Returned(42)]


def test_deliveries_whose_key_a_stranger_holds_run_once(
    roles: tuple[str, str, str], stranger: Session, runner: Runner, member_dsn: str
) -> None:
    table = f"effects_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(roles[0], autocommit=True) as session:
        session.execute(sql.SQL("CREATE TABLE public.{} (v text)").format(sql.Identifier(table)))
        session.execute(sql.SQL("GRANT ALL ON public.{} TO {}").format(sql.Identifier(table), sql.Identifier(roles[1])))
    asked = order(f"INSERT INTO public.{table} SELECT 'x' FROM pg_sleep(1)")
    hold(stranger, roles[1], "delivery", asked.attempt.task_id)
    other = Runner(member_dsn, read_settings({"pgbg_dsn": member_dsn}))
    try:
        deliveries = [in_background(runner, asked) for runner in (runner, other) for _ in range(2)]
        for _, thread, _ in deliveries:
            thread.join(40)
    finally:
        other.close()
    assert [endings for _, _, endings in deliveries] == [[Returned(1)]] * 4
    with psycopg.connect(roles[0], autocommit=True) as session:
        assert session.execute(f"SELECT count(*) FROM public.{table}").fetchone() == (1,)
        session.execute(f"DROP TABLE public.{table}")


def test_a_statement_alone_whose_delivery_a_stranger_holds_runs(
    roles: tuple[str, str, str], stranger: Session, runner: Runner
) -> None:
    asked = order("VACUUM pg_catalog.pg_class", atomic=False)
    for kind in ("delivery", "standalone"):
        hold(stranger, roles[1], kind, asked.attempt.task_id)
    assert run(runner, asked) == Returned("VACUUM")


def test_deliveries_of_a_statement_alone_whose_key_a_stranger_holds_run_once(
    roles: tuple[str, str, str], stranger: Session, runner: Runner, member_dsn: str
) -> None:
    with psycopg.connect(roles[0], autocommit=True) as session:
        session.execute("CREATE TABLE public.alone_once (v text)")
        session.execute(sql.SQL("GRANT ALL ON public.alone_once TO {}").format(sql.Identifier(roles[1])))
    text = "DO $$ BEGIN INSERT INTO public.alone_once VALUES ('x'); COMMIT; PERFORM pg_sleep(3); END $$"
    asked = order(text, atomic=False)
    hold(stranger, roles[1], "delivery", asked.attempt.task_id)
    other = Runner(member_dsn, read_settings({"pgbg_dsn": member_dsn}))
    try:
        deliveries = [in_background(runner, asked) for runner in (runner, other) for _ in range(2)]
        for _, thread, _ in deliveries:
            thread.join(40)
    finally:
        other.close()
    assert [endings for _, _, endings in deliveries] == [[Returned("DO")]] * 4
    with psycopg.connect(roles[0], autocommit=True) as session:
        assert session.execute("DELETE FROM public.alone_once").rowcount == 1
        session.execute("DROP TABLE public.alone_once")


def test_an_attempt_is_stopped_although_a_stranger_holds_its_delivery(
    roles: tuple[str, str, str], stranger: Session, runner: Runner, member_dsn: str
) -> None:
    asked = order("SELECT pg_sleep(600)")
    watch, thread, endings = in_background(runner, asked)
    eventually("it runs", lambda: watch.pid is not None)
    hold(stranger, roles[1], "delivery", asked.attempt.task_id)
    with psycopg.connect(member_dsn, autocommit=True) as session:
        assert stop_attempt(session, asked.attempt, "by hand") == "stopped"
    thread.join(20)
    assert len(endings) == 1
    assert isinstance(endings[0], (Cancelled, Raised))


def test_records_expire_although_a_stranger_holds_that_key(stranger: Session, runner: Runner, member_dsn: str) -> None:
    asked = order("SELECT 1")
    assert isinstance(run(runner, asked), Returned)
    for name in ("delete expired", "delete expired results"):
        stranger.execute(f"SELECT pg_advisory_lock({_KEY})", [[name, ""]])
    expiry = Expiry(0.0, 1000)
    while runner.launchers[0].delete_expired(expiry):
        pass
    with psycopg.connect(member_dsn, autocommit=True) as session:
        kept = session.execute("SELECT FROM celery_pgbg.outcome WHERE task_id = %s", [asked.attempt.task_id])
        assert kept.fetchall() == []
        session.execute(
            "INSERT INTO celery_pgbg.result (task_id, status, content_type, content_encoding, stored_at)"
            " VALUES ('old', 'SUCCESS', 'application/json', 'utf-8', now() - interval '9 days')"
        )
    store = ResultStore(member_dsn, 5, notify=True)
    try:
        store.delete_expired(60.0, 60.0, 60.0)
    finally:
        store.close()
    with psycopg.connect(member_dsn, autocommit=True) as session:
        assert session.execute("SELECT FROM celery_pgbg.result WHERE task_id = 'old'").fetchall() == []


# --- the broker ------------------------------------------------------------------------------------


def test_a_stranger_who_holds_the_next_numbers_of_consumers_keeps_nobody_from_consuming(
    stranger: Session, member_dsn: str, roles: tuple[str, str, str]
) -> None:
    with psycopg.connect(roles[0], autocommit=True) as session:
        row = session.execute("SELECT last_value FROM celery_pgbg.consumer_id_seq").fetchone()
    assert row is not None
    for number in range(row[0], row[0] + 200):
        stranger.execute(f"SELECT pg_advisory_lock({_KEY})", [["consumer", str(number)]])
    try:
        with Connection(f"pgbg+{member_dsn}") as connection:
            queue = connection.SimpleQueue("locks")
            queue.put("x")
            assert queue.get(timeout=20).payload == "x"
    finally:
        close_stations()


def test_what_a_dead_consumer_had_goes_back_although_a_stranger_waited_for_its_lock(
    stranger: Session, member_dsn: str, roles: tuple[str, str, str]
) -> None:
    with psycopg.connect(roles[0], autocommit=True) as server, psycopg.connect(member_dsn, autocommit=True) as dead:
        register = "SELECT celery_pgbg.register_consumer(%s, NULL, NULL)"
        [number] = dead.execute(register, ["dead"]).fetchone() or ()
        server.execute(
            "INSERT INTO celery_pgbg.message (queue_id, priority, taken_by, envelope, body) VALUES (-1, 0, %s, '', '')",
            [number],
        )
        # The key of a lock that is held can be read by everybody.
        key = "SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND pid = %s"
        [found] = stranger.execute(key, [dead.info.backend_pid]).fetchone() or ()
        server.execute("SELECT pg_terminate_backend(%s)", [dead.info.backend_pid])
        stranger.execute("SELECT pg_advisory_lock(%s)", [found])
        with psycopg.connect(member_dsn, autocommit=True) as alive:
            [other] = alive.execute(register, ["alive"]).fetchone() or ()
            alive.execute("SELECT celery_pgbg.tend_broker(%s, NULL, NULL, false)", [other])
        taken = server.execute("SELECT FROM celery_pgbg.message WHERE taken_by = %s", [number]).fetchall()
        assert taken == []
        server.execute("DELETE FROM celery_pgbg.message")
