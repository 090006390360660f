"""Celery's options, one by one, on Celery's threads pool and on ours."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from celery import Celery
from celery.exceptions import TimeoutError as ResultTimeout

from celery_pgbg.runners import close_runners
from tests.apps import parity
from tests.effects import CELERY_VERSION, lose, running, runs
from tests.fix_parity import Side
from tests.waiting import eventually

WAIT = 60


def release(database: Any, key: int) -> None:
    database.execute("SELECT pg_advisory_unlock(%s)", [key])


# --- results ------------------------------------------------------------------------------------------------


def test_an_ignored_result_is_not_kept_but_passed_on(side: Side) -> None:
    linked = str(uuid.uuid4())
    signature = side.task("double").s().set(task_id=linked)
    result = side.task("ignored").apply_async((4,), link=signature)
    assert result.get(timeout=WAIT) is None
    assert side.shop.app.AsyncResult(linked).get(timeout=WAIT) == 8
    assert side.shop.app.AsyncResult(result.id).state == "PENDING"


def test_a_result_is_ignored_for_one_call_only(side: Side) -> None:
    result = side.task("double").apply_async((4,), ignore_result=True)
    side.words_at_end(result.id)
    assert side.shop.app.AsyncResult(result.id).state == "PENDING"
    assert side.task("ignored").apply_async((4,), ignore_result=False).get(timeout=WAIT) == 4


def test_an_error_is_kept_only_where_asked_for(side: Side) -> None:
    ignored, stored = side.task("ignored_failure").delay(), side.task("stored_failure").delay()
    for result in (ignored, stored):
        assert "task_failure" in side.words_at_end(result.id)
    assert side.shop.app.AsyncResult(ignored.id).state == "PENDING"
    with pytest.raises(psycopg.errors.DivisionByZero):
        side.shop.app.AsyncResult(stored.id).get(timeout=WAIT)


def test_a_tracked_start_tells_the_process(side: Side, hold: Callable[[], int], database: Any) -> None:
    key = hold()
    result = side.task("wait_tracked").delay(key)
    entry = side.shop.wait_active(result)
    eventually("the process is told", lambda: (result.info or {}).get("pid") == entry["worker_pid"])
    assert result.state == "STARTED"
    assert result.info["hostname"] == side.nodename
    assert running(database, result.id) == ([entry["worker_pid"]] if side.is_sql else [])
    release(database, key)
    assert result.get(timeout=WAIT) == ""


def test_a_state_of_the_tasks_own(side: Side, hold: Callable[[], int], database: Any) -> None:
    key = hold()
    result = side.task("wait_in_state").delay(key)
    eventually("its state", lambda: result.state == "PROGRESS")
    assert result.info == {"percent": 40}
    release(database, key)
    assert result.get(timeout=WAIT) == ""


def test_extended_results_tell_the_same(side: Side) -> None:
    result = side.task("add").apply_async((1,), {"b": 2})
    assert result.get(timeout=WAIT) == 3
    told = (result.name, list(result.args), dict(result.kwargs), result.worker, result.retries, result.queue)
    assert told == (side.name("add"), [1], {"b": 2}, side.nodename, 0, side.shop.queue)
    assert result.date_done is not None


# --- when --------------------------------------------------------------------------------------------------------


def test_a_countdown_is_waited_for_and_shown(side: Side) -> None:
    begin = time.time()
    result = side.task("double").apply_async((1,), countdown=1)
    later = side.task("double").apply_async((1,), countdown=3600)

    def scheduled() -> dict[str, Any] | None:
        entries = side.inspect().scheduled()[side.nodename]
        return next((entry for entry in entries if entry["request"]["id"] == later.id), None)

    entry = eventually("scheduled", scheduled)
    assert entry["request"]["name"] == side.name("double")
    assert side.inspect().query_task(later.id)[side.nodename][later.id][0] == "scheduled"
    assert result.get(timeout=WAIT) == 2
    [prerun] = [e for e in side.journal.read(result.id) if e["what"] == "task_prerun"]
    assert prerun["time"] > begin + 0.9
    later.revoke()


def test_a_rate_limit_spaces_tasks_and_can_be_changed(side: Side) -> None:
    assert "ok" in side.control("rate_limit", task_name=side.name("limited"), rate_limit="4/s")
    results = [side.task("limited").delay(i) for i in range(4)]
    times = sorted(result.get(timeout=WAIT) for result in results)
    assert times[-1] - times[0] > 0.5
    assert "ok" in side.control("rate_limit", task_name=side.name("limited"), rate_limit="0")
    assert "error" in side.control("rate_limit", task_name="nowhere", rate_limit="1/s")


def test_priorities_order_what_waits(side: Side) -> None:
    queue = f"{side.shop.queue}-waiting"
    low = [side.task("double").apply_async((n,), priority=9, queue=queue) for n in range(2)]
    high = [side.task("double").apply_async((n,), priority=0, queue=queue) for n in range(2)]
    assert "ok" in side.control("add_consumer", queue=queue)
    for result in (*low, *high):
        result.get(timeout=WAIT)
    side.control("cancel_consumer", queue=queue)
    received = {result.id: side.journal.read(result.id)[0]["time"] for result in (*low, *high)}
    first = sorted(received, key=lambda task_id: received[task_id])[: len(high)]
    assert set(first) == {result.id for result in high}


# --- acknowledging ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "is_acknowledged"), [("wait_for_lock", False), ("wait_acked_early", True)])
def test_a_message_is_acknowledged_when_the_task_says(
    side: Side, hold: Callable[[], int], database: Any, name: str, is_acknowledged: bool
) -> None:
    key = hold()
    result = side.task(name).delay(key)
    assert side.shop.wait_active(result)["acknowledged"] is is_acknowledged
    release(database, key)
    result.get(timeout=WAIT)
    eventually("not known any more", lambda: not side.inspect().query_task(result.id)[side.nodename])


def test_a_failure_that_is_not_acknowledged_is_dropped_with_its_error(side: Side) -> None:
    result = side.task("fail_unacknowledged").delay()
    with pytest.raises(psycopg.errors.DivisionByZero):
        result.get(timeout=WAIT)
    eventually("rejected", lambda: "task-rejected" in side.events.types(result.id))
    [rejected] = [event for event in side.events.of(result.id) if event["type"] == "task-rejected"]
    assert rejected["requeue"] is False


#: Celery before 5.7 has one option for both, ``acks_on_failure_or_timeout``.
needs_two_options = pytest.mark.skipif(
    CELERY_VERSION < (5, 7), reason="acks_on_failure and acks_on_timeout are new in Celery 5.7"
)


@pytest.mark.parametrize(
    "name",
    ["sleep_the_first_time", pytest.param("acks_failures_only", marks=needs_two_options)],
)
def test_a_time_limit_that_is_not_acknowledged_has_the_task_run_again(
    sql_side: Side, sequence: str, database: Any, name: str
) -> None:
    arguments = (sequence,) if name == "sleep_the_first_time" else ("sleep", sequence)
    result = sql_side.task(name).apply_async(arguments, time_limit=1)
    eventually("it has run again", lambda: runs(database, sequence) >= 2)
    eventually("success", lambda: sql_side.shop.app.AsyncResult(result.id).state == "SUCCESS")
    # The first redelivery may take the cancelled worker for one that is just starting, and wait for it in vain.
    rejected = [event for event in sql_side.events.of(result.id) if event["type"] == "task-rejected"]
    assert {event["requeue"] for event in rejected} == {True}


@needs_two_options
@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("acks_time_limits_only", ["task-received", "task-started", "task-rejected", "task-failed"]),
        ("acks_failures_only", ["task-received", "task-started", "task-failed"]),
    ],
)
def test_whether_a_failure_is_acknowledged_may_differ_from_time_limits(
    side: Side, sequence: str, database: Any, name: str, types: list[str]
) -> None:
    result = side.task(name).delay("fail", sequence)
    with pytest.raises(psycopg.errors.DivisionByZero):
        result.get(timeout=WAIT)
    eventually("its end is told", lambda: "task-failed" in side.events.types(result.id))
    assert side.events.types(result.id) == types
    assert {event["requeue"] for event in side.events.of(result.id) if "requeue" in event} <= {False}
    assert runs(database, sequence) == 1


@needs_two_options
def test_a_time_limit_is_acknowledged_though_a_failure_would_not_be(
    sql_side: Side, sequence: str, database: Any
) -> None:
    result = sql_side.task("acks_time_limits_only").apply_async(("sleep", sequence), time_limit=1)
    with pytest.raises(Exception, match="TimeLimitExceeded"):
        result.get(timeout=WAIT)
    sql_side.words_at_end(result.id)
    # By then the message is settled; and events come in the order they were sent.
    later = sql_side.task("double").delay(1)
    eventually("later events come", lambda: "task-succeeded" in sql_side.events.types(later.id))
    assert sql_side.events.types(result.id) == ["task-received", "task-started", "task-failed"]
    assert runs(database, sequence) == 1


def test_a_lost_background_worker_fails_a_task_that_does_not_want_its_message_back(
    sql_side: Side, hold: Callable[[], int], database: Any
) -> None:
    result = sql_side.task("wait_not_requeued").delay(hold())
    sql_side.shop.wait_active(result)
    lose(database, result.id)
    with pytest.raises(Exception, match="ended its background worker"):
        result.get(timeout=WAIT)
    eventually("told", lambda: "task_failure" in sql_side.journal.words(result.id))


# --- time limits ------------------------------------------------------------------------------------------------------


def test_time_limits_fire_hooks_and_signals(sql_side: Side) -> None:
    soft = sql_side.task("sleep").apply_async((60,), soft_time_limit=0.5, time_limit=30)
    with pytest.raises(Exception, match="SoftTimeLimitExceeded"):
        soft.get(timeout=WAIT)
    assert sql_side.words_at_end(soft.id)[3:] == ["on_failure", "task_failure", "after_return", "task_postrun"]
    hard = sql_side.task("sleep").apply_async((60,), time_limit=0.5)
    with pytest.raises(Exception, match="TimeLimitExceeded"):
        hard.get(timeout=WAIT)
    # Who enforces the limit and who ran the task tell of it, in any order.
    words = {"on_failure", "task_failure", "task_postrun"}
    eventually("all have told", lambda: words <= set(sql_side.words_at_end(hard.id)[3:]))


def test_time_limits_can_be_changed_for_a_running_celery_worker(sql_side: Side) -> None:
    name = sql_side.name("sleep_limited")
    assert "ok" in sql_side.control("time_limit", task_name=name, soft=0.5, hard=30)
    with pytest.raises(Exception, match="SoftTimeLimitExceeded"):
        sql_side.task("sleep_limited").delay(60).get(timeout=WAIT)


def test_a_time_limit_counts_from_the_start_not_in_line(sql_side: Side, hold: Callable[[], int], database: Any) -> None:
    key = hold()
    blocking = [sql_side.task("wait_acked_early").delay(key) for _ in range(4)]
    for result in blocking:
        sql_side.shop.wait_active(result)
    waiting = sql_side.task("double").apply_async((1,), soft_time_limit=0.5, time_limit=0.5)
    eventually("in line", lambda: sql_side.inspect().query_task(waiting.id)[sql_side.nodename])
    with pytest.raises(ResultTimeout):
        waiting.get(timeout=0.7)
    release(database, key)
    assert waiting.get(timeout=WAIT) == 2
    for result in blocking:
        result.get(timeout=WAIT)


# --- the request, the message ------------------------------------------------------------------------------------


def test_a_bound_body_sees_its_request(side: Side) -> None:
    result = side.task("request_seen").apply_async((1,), {"y": 2}, priority=3, expires=3600)
    seen = result.get(timeout=WAIT)
    assert seen == {
        "id": result.id, "args": [1], "kwargs": {"y": 2}, "retries": 0, "hostname": side.nodename, "is_eager": False,
        "called_directly": False, "root_id": result.id, "parent_id": None, "group": None,
        "reply_to": side.shop.app.thread_oid, "correlation_id": result.id, "origin": seen["origin"], "stamps": {},
        "timelimit": [None, None], "ignore_result": False, "task": side.name("request_seen"),
        "delivery_info": {"exchange": "", "routing_key": side.shop.queue, "priority": 3, "redelivered": False},
        "expires": seen["expires"],
    }  # fmt: skip
    assert seen["expires"]


@pytest.mark.parametrize("options", [{"compression": "zlib"}, {"serializer": "yaml"}, {"shadow": "another name"}])
def test_options_of_the_message(side: Side, options: dict[str, Any]) -> None:
    result = side.task("add").apply_async((1, 2), **options)
    assert result.get(timeout=WAIT) == 3
    eventually("received", lambda: "task-received" in side.events.types(result.id))
    assert side.events.of(result.id)[0]["name"] == options.get("shadow", side.name("add"))


def test_a_call_of_the_base_classs_own_wraps_the_task(side: Side) -> None:
    assert side.task("wrapped").delay(3).get(timeout=WAIT) == {"wrapped": 3}


def test_an_id_of_ones_own(side: Side) -> None:
    task_id = f"Mein Auftrag № {uuid.uuid4()}"
    assert side.task("double").apply_async((2,), task_id=task_id).get(timeout=WAIT) == 4
    assert "task_success" in side.words_at_end(task_id)


# --- without a Celery worker -------------------------------------------------------------------------------------


@pytest.fixture(params=parity.KINDS)
def eager(request: pytest.FixtureRequest, dsn: str) -> Any:
    """Tasks of each kind in an app where all are eager."""
    app: Celery = parity.make_app(
        "memory://", "cache+memory://", "unused", pgbg_dsn=dsn, task_always_eager=True, task_store_eager_result=True
    )
    yield lambda name: app.tasks[f"{request.param}.{name}"]
    close_runners()
    app.close()


def test_an_eager_task_runs_at_once(eager: Callable[[str], Any]) -> None:
    result = eager("double").delay(4)
    assert (result.state, result.get()) == ("SUCCESS", 8)
    stored = eager("double").app.AsyncResult(result.id)
    assert (stored.state, stored.result) == ("SUCCESS", 8)


def test_an_eager_task_fails_retries_and_is_linked(eager: Callable[[str], Any]) -> None:
    failed = eager("fail").delay()
    assert (failed.state, type(failed.result)) == ("FAILURE", psycopg.errors.DivisionByZero)
    assert eager("double").app.AsyncResult(failed.id).state == "FAILURE"
    assert eager("retry_twice").delay().get() == 2
    linked = str(uuid.uuid4())
    eager("double").apply_async((1,), link=eager("double").s().set(task_id=linked))
    assert eager("double").app.AsyncResult(linked).result == 4
    assert (eager("double").s(1) | eager("double").s() | eager("add").s(3)).delay().get() == 7


def test_a_task_called_directly_runs_here(eager: Callable[[str], Any]) -> None:
    assert eager("double")(5) == 10
    assert eager("wrapped")(5) == {"wrapped": 5}
    with pytest.raises(psycopg.errors.DivisionByZero):
        eager("fail")()
    with pytest.raises(TypeError, match="argument"):
        eager("double")()
