"""Control and inspection of a Celery worker, on Celery's threads pool and on ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.effects import lose
from tests.fix_parity import Side
from tests.waiting import eventually

WAIT = 60


@pytest.mark.parametrize(
    "command",
    ["active", "reserved", "scheduled", "registered", "active_queues", "stats", "conf", "report", "ping", "clock",
     "revoked", "query_task"],
)  # fmt: skip
def test_inspection_answers(side: Side, command: str) -> None:
    arguments = ("nothing",) if command == "query_task" else ()
    reply = getattr(side.inspect(), command)(*arguments)
    assert list(reply) == [side.nodename]
    assert not (isinstance(reply[side.nodename], dict) and "error" in reply[side.nodename])


def test_active_tasks_show_who_runs_them(side: Side, hold: Callable[[], int], database: Any) -> None:
    key = hold()
    result = side.task("wait_for_lock").delay(key)
    entry = side.shop.wait_active(result)
    assert (entry["name"], entry["args"], entry["hostname"]) == (side.name("wait_for_lock"), [key], side.nodename)
    assert side.inspect().query_task(result.id)[side.nodename][result.id][0] == "active"
    if side.is_sql:
        query = "SELECT pid, cookie FROM celery_pgbg.execution WHERE task_id = %s"
        assert database.execute(query, [result.id]).fetchone() == (entry["worker_pid"], entry["cookie"])
    database.execute("SELECT pg_advisory_unlock(%s)", [key])
    result.get(timeout=WAIT)


def test_tasks_in_line_are_reserved(side: Side, hold: Callable[[], int], database: Any) -> None:
    key = hold()
    active = [side.task("wait_acked_early").delay(key) for _ in range(4)]
    for result in active:
        side.shop.wait_active(result)
    waiting = side.task("double").delay(1)
    eventually("reserved", lambda: waiting.id in {entry["id"] for entry in side.inspect().reserved()[side.nodename]})
    assert side.inspect().query_task(waiting.id)[side.nodename][waiting.id][0] == "reserved"
    assert side.shop.active(waiting.id) is None
    database.execute("SELECT pg_advisory_unlock(%s)", [key])
    assert waiting.get(timeout=WAIT) == 2
    for result in active:
        result.get(timeout=WAIT)


def test_queues_can_be_added_and_left(side: Side) -> None:
    queue = f"{side.shop.queue}-{side.kind}"
    assert "ok" in side.control("add_consumer", queue=queue)
    assert side.task("double").apply_async((1,), queue=queue).get(timeout=WAIT) == 2
    assert "ok" in side.control("cancel_consumer", queue=queue)
    eventually("left", lambda: queue not in {found["name"] for found in side.inspect().active_queues()[side.nodename]})


def statistics(side: Side) -> dict[str, Any]:
    pool = side.inspect().stats()[side.nodename]["pool"]
    [database] = pool["databases"]
    return {**database, "busy": pool["running"]}


def test_statistics_count_what_becomes_of_statements(sql_side: Side, hold: Callable[[], int], database: Any) -> None:
    before = statistics(sql_side)
    key = hold()
    sql_side.task("double").delay(1).get(timeout=WAIT)
    sql_side.task("fail").delay().get(timeout=WAIT, propagate=False)
    waiting, alone = sql_side.task("wait_for_lock").delay(key), sql_side.task("sleep_alone").delay(60)
    lost = sql_side.task("wait_not_requeued").delay(key)
    for result in (waiting, alone, lost):
        sql_side.shop.wait_active(result)
    meanwhile = statistics(sql_side)
    alone.revoke(terminate=True)
    lose(database, lost.id)
    for result in (alone, lost):
        result.get(timeout=WAIT, propagate=False)
    database.execute("SELECT pg_advisory_unlock(%s)", [key])
    waiting.get(timeout=WAIT)

    def counted() -> dict[str, int]:
        after = statistics(sql_side)
        names = ("launched", "attached", "succeeded", "failed", "cancelled", "lost")
        return {name: after[name] - before[name] for name in names}

    expected = {"launched": 5, "attached": 0, "succeeded": 2, "failed": 1, "cancelled": 1, "lost": 1}
    eventually("all are counted", lambda: counted() == expected)
    assert meanwhile["running"] == before["running"] + 3
    slots = int(database.execute("SHOW max_worker_processes").fetchone()[0])
    assert (meanwhile["server_worker_limit"], meanwhile["waiting_for_slot"]) == (slots, 0)
    sessions = {*meanwhile["launcher_pids"], meanwhile["listener_pid"]}
    query = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s) AND application_name LIKE %s"
    assert database.execute(query, [list(sessions), f"pgbg %{sql_side.nodename}%"]).fetchone() == (3,)
    assert statistics(sql_side)["running"] == before["running"]
