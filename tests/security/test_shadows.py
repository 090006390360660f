"""Shadows of all that our SQL calls, in each schema that can come first, are never called."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import conninfo, sql

from celery_pgbg.database import schema
from celery_pgbg.database.result_rows import Payload, Reference, ResultRow
from celery_pgbg.database.results import ResultStore
from celery_pgbg.execution.control import operations
from celery_pgbg.execution.control.stopping import stop_attempt
from celery_pgbg.execution.records.expiry import delete_expired
from celery_pgbg.execution.round_trip import round_trip
from celery_pgbg.execution.runner import Runner
from celery_pgbg.handles import Attempt
from celery_pgbg.outcomes import Cancelled, Raised, Returned
from celery_pgbg.settings import read_settings
from celery_pgbg.watch import Interruption
from tests.doc_blocks import PROJECT
from tests.fix_runner import in_background, order, run
from tests.waiting import eventually

_PLANT = Path(__file__).with_name("plant_shadows.sql")


@pytest.fixture(scope="module")
def shadowed(new_database: Callable[[], str]) -> str:
    """A database in which shadows come first for each session, with our schema."""
    dsn = new_database()
    texts = [path.read_text() for path in (PROJECT / "celery_pgbg").rglob("*.sql")]
    words = sorted({word for text in texts for word in re.findall(r"\w+", text)})
    with psycopg.connect(dsn, autocommit=True) as session:
        schema.install(session)
        signs = session.execute("SELECT array_agg(DISTINCT oprname::text) FROM pg_operator").fetchone()
        used = [sign for sign in signs[0] if any(sign in text for text in texts)]  # type: ignore[index]
        for setting, names in (("plant.words", words), ("plant.signs", used)):
            session.execute("SELECT set_config(%s, %s::text[]::text, false)", [setting, names])
        session.execute(_PLANT.read_text().encode())
        name = sql.Identifier(str(conninfo.conninfo_to_dict(dsn)["dbname"]))
        session.execute(sql.SQL("ALTER DATABASE {} SET search_path = shadow, pg_catalog, public").format(name))
    return dsn


@pytest.fixture
def called(shadowed: str) -> Iterator[Callable[[], list[str]]]:
    """Which shadows were called."""
    with psycopg.connect(shadowed, options="-c search_path=pg_catalog", autocommit=True) as session:

        def names() -> list[str]:
            query = "SELECT sequencename FROM pg_sequences WHERE schemaname = 'shadow' AND last_value IS NOT NULL"
            return sorted(row[0].removeprefix("called ") for row in session.execute(query))

        yield names
        for name in names():
            session.execute(sql.SQL("ALTER SEQUENCE shadow.{} RESTART").format(sql.Identifier(f"called {name}")))


@pytest.fixture
def new_runner(shadowed: str) -> Iterator[Callable[..., Runner]]:
    """Make runners in that database."""
    made: list[Runner] = []

    def make(**settings: Any) -> Runner:
        made.append(Runner(shadowed, read_settings({"pgbg_dsn": shadowed, "pgbg_sweep_interval": 0.2, **settings})))
        return made[-1]

    yield make
    for runner in made:
        runner.close()


@pytest.mark.parametrize("query", ["SELECT 1 || 'a'::text", "SELECT now()", "SELECT 'a'::text", "SELECT 1 WHERE 1 = 1"])
def test_a_shadow_notes_its_call(shadowed: str, called: Callable[[], list[str]], query: str) -> None:
    with psycopg.connect(shadowed, autocommit=True) as session, contextlib.suppress(psycopg.Error):
        session.execute(query.encode())
    assert called()


@pytest.mark.parametrize("reuse", [False, True])
def test_launches_call_none(new_runner: Callable[..., Runner], called: Callable[[], list[str]], reuse: bool) -> None:
    runner = new_runner()
    for returns in ("value", "row", "rows", None):
        ending = run(runner, order("VALUES (1)", returns=returns, reuse=reuse))
        assert isinstance(ending, Returned), ending
    asked = order("SELECT pg_catalog.now() AS t, shadow.plant_in_temp() AS n", reuse=reuse)
    assert run(runner, asked).value[0]["n"] == 1
    assert run(runner, asked).value[0]["n"] == 1
    assert isinstance(run(runner, order("SELECT pg_catalog.int4(pg_catalog.textin('x'))", reuse=reuse)), Raised)
    settings = {"settings": {"work_mem": "1MB"}} if not reuse else {}
    assert run(runner, order("TABLE shadow.work", returns="count", reuse=reuse, **settings)) is not None
    assert called() == []


def test_statements_that_stand_alone_call_none(
    new_runner: Callable[..., Runner], called: Callable[[], list[str]]
) -> None:
    runner = new_runner()
    assert run(runner, order("VACUUM celery_pgbg.member", atomic=False)) == Returned("VACUUM")
    failed = run(runner, order("VACUUM no_such_table", atomic=False))
    assert isinstance(failed, Raised)
    assert failed.report.sqlstate == "42P01"
    assert called() == []


def test_stops_and_sweeps_call_none(
    shadowed: str, new_runner: Callable[..., Runner], called: Callable[[], list[str]]
) -> None:
    runner = new_runner(pgbg_notify=False)
    sleep = "SELECT pg_catalog.pg_sleep(60)"
    watch, thread, endings = in_background(runner, order(sleep))
    eventually("it runs", lambda: watch.pid)
    watch.interrupt(Interruption.REVOKE)
    thread.join(60)
    assert endings == [Cancelled()]

    asked = order(sleep)
    watch, thread, endings = in_background(runner, asked)
    eventually("it runs", lambda: watch.pid)
    with psycopg.connect(shadowed, autocommit=True) as session:
        assert asked.attempt.task_id in {row["task_id"] for row in operations.executions(session, 0)}
        assert eventually("it is stopped", lambda: operations.cancel_by_hand(session, asked.attempt.task_id))
        thread.join(60)
        assert len(endings) == 1
        operations.task_statistics(session, 3600)
        operations.slots(session)
        assert delete_expired(session, 0).deleted > 0
    assert called() == []


def test_installing_and_looking_call_none(shadowed: str, called: Callable[[], list[str]]) -> None:
    with psycopg.connect(shadowed, autocommit=True) as session:
        schema.check_installed(session)
        schema.install(session)
    assert round_trip(shadowed, read_settings({"pgbg_dsn": shadowed})) > 0
    assert called() == []


def result_row(task_id: str, status: str) -> ResultRow:
    return ResultRow(task_id, status, None, None, None, None, None, "test", None, 0, None)


def test_the_result_backend_calls_none(
    shadowed: str, new_runner: Callable[..., Runner], called: Callable[[], list[str]]
) -> None:
    store = ResultStore(shadowed, connect_timeout=10, notify=True)
    payload = Payload("application/json", "utf-8", b"1")
    try:
        asked = order("VALUES (1)")
        run(new_runner(), asked)
        task_id, group_id = asked.attempt.task_id, str(uuid.uuid4())
        store.hide_outcomes(task_id)
        assert store.store_reference(result_row(task_id, "SUCCESS"), payload, Reference("test", 0))
        assert not store.is_running(task_id)
        for status in ("STARTED", "FAILURE"):
            store.store(result_row(f"{task_id} 2", status), payload)
        assert [row.status for row in store.read([task_id, f"{task_id} 2"])] == ["SUCCESS", "FAILURE"]
        with store.notifications.waiter([task_id]):
            eventually("notifications arrive", lambda: store.notifications.working)
        store.store_group(group_id, payload)
        assert store.read_group(group_id) == payload
        store.delete_group(group_id)
        store.reset_chord(group_id)
        store.set_chord_size(group_id, 1)
        store.add_chord_member(group_id, "another")
        part = {
            "group_id": group_id, "group_index": 0, "status": "SUCCESS", "content_type": "", "content_encoding": "",
            "value": None, "outcome_attempt": 0, "task_name": "test", "claim": "mine", "lease_ms": 1000,
        }  # fmt: skip
        assert store.record_chord_part({**part, "task_id": task_id}) == "waiting"
        last = {**part, "task_id": "another", "value": b"1", "outcome_attempt": None}
        assert store.record_chord_part(last) == "claimed"
        assert store.extend_chord_claim(group_id, "mine", 5)
        assert len(store.read_chord_parts(group_id, True)) == 2
        store.finish_chord(group_id, "mine")
        store.forget(task_id)
        store.delete_expired(1, 1, 1)
    finally:
        store.close()
    assert called() == []


def test_a_revoke_from_elsewhere_calls_none(
    shadowed: str, new_runner: Callable[..., Runner], called: Callable[[], list[str]]
) -> None:
    asked = order("SELECT pg_catalog.pg_sleep(60)")
    watch, thread, endings = in_background(new_runner(), asked)
    eventually("it runs", lambda: watch.pid)
    with psycopg.connect(shadowed, autocommit=True) as session:
        stop_attempt(session, Attempt(asked.attempt.task_id), "revoked")
    thread.join(60)
    assert len(endings) == 1
    assert called() == []
