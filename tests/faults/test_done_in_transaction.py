"""A SQL task's message in the same database ends in the transaction of its effects and its outcome.

Looked at while no Celery worker lives that could acknowledge anything.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import chain, chord, group

from tests.faults import moments
from tests.faults.conftest import ALONE
from tests.faults.moments import STAGING, HeldTask, Moment
from tests.fix_celery import Shop
from tests.waiting import eventually

WAIT = 60

#: Task ids of the messages that are there, and of the outcomes: of one moment.
_STATE = """
    SELECT
        ARRAY(SELECT m.envelope::json -> 'headers' ->> 'id' FROM celery_pgbg.message AS m),
        ARRAY(SELECT o.task_id FROM celery_pgbg.outcome AS o WHERE o.succeeded)
"""

#: The moments after which the statement runs to its end by itself.
_LAUNCHED = (Moment.RUNNING, Moment.COMMITTING, Moment.ON_DISK)


@pytest.fixture
def dsn(new_server: Callable[..., Any]) -> str:
    """A server of the test's own."""
    server = new_server()
    moments.prepare(server.dsn)
    return str(server.dsn)


@pytest.fixture
def one_database(new_shop: Callable[..., Shop], dsn: str, holds: Path) -> Shop:
    """An app whose broker and results are where its statements run, with a Celery worker."""
    shop = new_shop(f"pgbg+{dsn}", f"pgbg+{dsn}", pgbg_dsn=dsn, pgbg_launchers=8)
    start_worker(shop)
    return shop


def start_worker(shop: Shop) -> None:
    shop.start_worker("-I", "tests.apps.held", "-c32", *ALONE)


def state(dsn: str) -> tuple[set[str], set[str]]:
    """Task ids of the messages and of the outcomes that are there."""
    with psycopg.connect(dsn, autocommit=True) as session:
        row = session.execute(_STATE).fetchone()
        assert row is not None
        return set(row[0]), set(row[1])


def test_a_celery_worker_killed_at_any_moment(one_database: Shop, dsn: str, holds: Path) -> None:
    for reuse in (False, True):
        with moments.hold_commits(dsn):
            held = []
            for moment in STAGING:
                after = None
                if reuse:
                    first = one_database.task("statement_reusing").delay("SELECT 1")
                    first.get(timeout=WAIT)
                    after = first.id
                held.append(HeldTask(one_database, moment, dsn, holds, after=after))
                held[-1].wait_held()
            for task in held:
                task.commit()
            messages, outcomes = state(dsn)
            ids = {task.moment: task.task_id for task in held}
            assert outcomes & set(ids.values()) == {ids[Moment.BEFORE_ACK]}
            assert messages & set(ids.values()) == set(ids.values()) - {ids[Moment.BEFORE_ACK]}
            one_database.workers[-1].kill()
            for task in held:
                task.release()
        done = {ids[moment] for moment in (*_LAUNCHED, Moment.BEFORE_ACK)}
        eventually("those that run have ended", lambda d=done: d <= state(dsn)[1])
        messages, outcomes = state(dsn)
        # A launch that waits in the server does not know yet that nobody waits for it.
        assert messages == set(ids.values()) - outcomes <= {ids[Moment.BEFORE_LAUNCH], ids[Moment.IN_GATE]}

        start_worker(one_database)
        for task in held:
            assert task.result.get(timeout=WAIT) == [{"v": task.task_id}]
        effects = moments.count_effects(dsn)
        assert {task.cell: effects[task.task_id] for task in held} == {task.cell: 1 for task in held}
        eventually("no message is left", lambda: not state(dsn)[0])


#: A statement that waits for a lock, and whose commit waits for a standby that never comes.
_WAITS = """
    INSERT INTO effects VALUES ('{0}');
    SELECT pg_advisory_xact_lock_shared(1);
    SET LOCAL synchronous_commit = on;
    SELECT '{0}' AS v
"""


def test_what_has_something_to_follow_keeps_its_message(
    one_database: Shop, new_shop: Callable[..., Shop], redis_url: str, dsn: str
) -> None:
    elsewhere = new_shop(f"pgbg+{dsn}", f"{redis_url}/10", pgbg_dsn=dsn)
    elsewhere.start_worker(*ALONE)
    statement, add = one_database.task("statement"), one_database.task("add")

    def first(name: str) -> Any:
        return statement.si(_WAITS.format(name)).set(task_id=name)

    def then(name: str) -> Any:
        return add.si(1, 2).set(task_id=f"after {name}")

    with moments.hold_commits(dsn), psycopg.connect(dsn, autocommit=True) as session:
        # Once one of them is in its commit, sending would wait for that, and so would the commit of one that failed.
        session.execute("SELECT pg_advisory_lock(1)")
        first("linked").apply_async(link=then("linked"))
        chain(first("chained"), then("chained")).apply_async()
        chord(group(first("of a chord")), then("of a chord")).apply_async()
        grouped = group(first("grouped"), first("grouped too")).apply_async()
        one_database.task("hooked").apply_async((_WAITS.format("hooked"),), task_id="hooked")
        elsewhere.task("statement").apply_async((_WAITS.format("elsewhere"),), task_id="elsewhere")
        failed = one_database.task("statement").apply_async(("SELECT 1 / 0",), task_id="failed")
        kept = {"linked", "chained", "of a chord", "hooked", "elsewhere"}
        ended = {"alone", "without result", "grouped", "grouped too"}
        first("alone").apply_async()
        first("without result").apply_async(ignore_result=True)
        with pytest.raises(psycopg.errors.DivisionByZero):
            failed.get(timeout=WAIT)
        wait_for_background_workers(session, ["advisory"], len(kept | ended))
        session.execute("SELECT pg_advisory_unlock(1)")
        wait_for_background_workers(session, ["SyncRep", "object"], len(kept | ended))
        for shop in (one_database, elsewhere):
            shop.workers[-1].kill()
    eventually("all have ended", lambda: state(dsn)[1] == kept | ended)
    assert state(dsn)[0] & (kept | ended) == kept
    # While no Celery worker lives.
    assert grouped.get(timeout=WAIT) == [[{"v": "grouped"}], [{"v": "grouped too"}]]

    start_worker(one_database)
    elsewhere.start_worker(*ALONE)
    for name in ("linked", "chained", "of a chord"):
        assert one_database.app.AsyncResult(f"after {name}").get(timeout=WAIT) == [{"total": 3}]
    eventually("no message is left", lambda: not state(dsn)[0])
    assert set(moments.count_effects(dsn).values()) == {1}


def wait_for_background_workers(session: Any, events: list[str], number: int) -> None:
    """Wait until so many wait for one of these."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_background' AND wait_event = ANY (%s)"
    try:
        eventually(f"they wait for {events}", lambda: session.execute(query, [events]).fetchone() == (number,))
    except AssertionError as exc:
        shown = "SELECT application_name, wait_event, query FROM pg_stat_activity WHERE backend_type = 'pg_background'"
        raise AssertionError(f"{exc}: {session.execute(shown).fetchall()}") from None
