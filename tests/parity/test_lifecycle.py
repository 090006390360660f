"""What happens to a task, in which order, on Celery's threads pool and on ours."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from celery import signals
from celery.exceptions import Reject, TaskRevokedError

from tests.fix_parity import OURS, Side
from tests.waiting import eventually

WAIT = 60

BEGIN = ["task_received", "task_prerun", "before_start"]
SUCCEEDED = [*BEGIN, "on_success", "task_success", "after_return", "task_postrun"]
FAILED = [*BEGIN, "on_failure", "task_failure", "after_return", "task_postrun"]
RETRIED = [*BEGIN, "on_retry", "task_retry", "task_postrun"]


# --- signals and hooks --------------------------------------------------------------------------------


def test_a_success(side: Side) -> None:
    result = side.task("double").delay(21)
    assert result.get(timeout=WAIT) == 42
    assert side.words_at_end(result.id) == SUCCEEDED


def test_a_failure(side: Side) -> None:
    result = side.task("fail").delay()
    with pytest.raises(psycopg.errors.DivisionByZero, match="division by zero"):
        result.get(timeout=WAIT)
    assert side.words_at_end(result.id) == FAILED
    assert {entry.get("error") for entry in side.journal.read(result.id)} == {None, "DivisionByZero"}
    assert "Traceback" in result.traceback


def test_a_retry_is_an_attempt_of_its_own(side: Side) -> None:
    result = side.task("retry_twice").delay()
    assert result.get(timeout=WAIT) == 2
    assert [side.words_at_end(result.id, attempt) for attempt in (0, 1, 2)] == [RETRIED, RETRIED, SUCCEEDED]


def test_a_retry_with_other_arguments(side: Side) -> None:
    assert side.task("retry_with_others").delay(a=1, b=7).get(timeout=WAIT) == 207
    assert side.task("retry_with_others").delay(1, b=7).get(timeout=WAIT) == 207


def test_retries_come_to_an_end_with_the_error(side: Side) -> None:
    result = side.task("retry_in_vain").delay()
    with pytest.raises(LookupError, match="given up"):
        result.get(timeout=WAIT)
    assert side.words_at_end(result.id, 0) == RETRIED
    assert side.words_at_end(result.id, 1) == FAILED


def test_autoretry_backs_off_and_gives_up_with_the_error(side: Side) -> None:
    result = side.task("retry_by_itself").delay()
    with pytest.raises(psycopg.errors.DivisionByZero):
        result.get(timeout=WAIT)
    assert [side.words_at_end(result.id, attempt) for attempt in (0, 1)] == [RETRIED, FAILED]
    [retry] = [entry for entry in side.journal.read(result.id) if entry["what"] == "task_retry"]
    assert retry["when"] == 1
    [again] = [e for e in side.journal.read(result.id) if (e["what"], e["attempt"]) == ("task_prerun", 1)]
    assert again["time"] >= retry["time"] + 0.5


def test_an_error_that_is_exempt_is_not_retried(side: Side) -> None:
    result = side.task("retry_not_for_this").delay()
    with pytest.raises(psycopg.errors.UndefinedTable):
        result.get(timeout=WAIT)
    assert side.words_at_end(result.id) == FAILED


def test_times_are_those_of_the_statement(side: Side) -> None:
    result = side.task("sleep").delay(0.4)
    ended = float(result.get(timeout=WAIT))
    side.words_at_end(result.id)
    entries = {entry["what"]: entry for entry in side.journal.read(result.id)}
    assert entries["task_prerun"]["time"] < ended - 0.4
    assert ended < entries["task_success"]["time"] < entries["task_postrun"]["time"]
    whole = entries["task_postrun"]["time"] - entries["task_prerun"]["time"]
    assert 0.4 < entries["task_success"]["runtime"] < whole + 0.1
    started, succeeded = _events(side, result.id, "task-started", "task-succeeded")
    assert started["timestamp"] < ended < succeeded["timestamp"] + 0.05
    assert 0.4 < succeeded["runtime"] < whole + 0.1


def test_publishing_a_task_has_its_signals(side: Side) -> None:
    seen: list[tuple[str, str]] = []

    def on_publish(sender: str, headers: dict[str, Any], **_: Any) -> None:
        seen.append(("before", headers["id"]))

    def on_published(sender: str, headers: dict[str, Any], **_: Any) -> None:
        seen.append(("after", headers["id"]))

    name = side.name("double")
    signals.before_task_publish.connect(on_publish, sender=name)
    signals.after_task_publish.connect(on_published, sender=name)
    result = side.task("double").delay(1)
    assert result.get(timeout=WAIT) == 2
    assert seen == [("before", result.id), ("after", result.id)]


def test_an_error_outside_the_body_is_an_internal_error(side: Side) -> None:
    result = side.task("fail_with_a_bug_in_its_hooks").delay()
    with pytest.raises(Exception, match=r"a bug in on_failure|division by zero"):
        result.get(timeout=WAIT)
    eventually("said", lambda: "task_internal_error" in side.journal.words(result.id))
    [entry] = [entry for entry in side.journal.read(result.id) if entry["what"] == "task_internal_error"]
    assert entry["error"] == "LookupError"


def test_a_bug_in_on_success_does_not_undo_a_success(side: Side) -> None:
    result = side.task("succeed_with_a_bug_in_its_hooks").delay()
    assert result.get(timeout=WAIT) == 1
    assert side.words_at_end(result.id)[-2:] == ["after_return", "task_postrun"]
    assert result.state == "SUCCESS"


# --- ends of another kind ---------------------------------------------------------------------------------


def test_a_body_may_have_its_task_ignored(side: Side) -> None:
    result = side.task("ignores_itself").delay()
    assert side.words_at_end(result.id) == [*BEGIN, "task_postrun"]
    assert result.state == "PENDING"
    eventually("acknowledged", lambda: not _is_known(side, result.id))


def test_a_body_may_reject_its_message(side: Side) -> None:
    result = side.task("rejects_itself").delay()
    with pytest.raises(Reject):
        result.get(timeout=WAIT)
    eventually("said", lambda: "task-rejected" in side.events.types(result.id))
    [event] = _events(side, result.id, "task-rejected")
    assert event["requeue"] is False


@pytest.mark.parametrize("side", OURS, indirect=True)
def test_a_body_that_exits_fails_and_harms_nothing_else(side: Side) -> None:
    """With Celery's threads it stays active for ever."""
    result = side.task("exits").delay()
    with pytest.raises(Exception, match="SystemExit"):
        result.get(timeout=WAIT)
    eventually("over", lambda: not _is_known(side, result.id))
    assert side.task("double").delay(1).get(timeout=WAIT) == 2


def test_a_request_class_of_the_tasks_own_is_called(side: Side) -> None:
    ends = {"succeed": [], "fail": ["request failed"], "retry": ["request failed", "request retried"]}
    for how, words in ends.items():
        result = side.task("noted").delay(how)
        result.get(timeout=WAIT, propagate=False)
        side.words_at_end(result.id)
        expected = ["request accepted", *words]
        eventually(how, lambda result=result, expected=expected: _of_request(side, result.id) == expected)


def test_a_request_class_of_the_tasks_own_has_our_revoke_and_time_limits(sql_side: Side) -> None:
    task = sql_side.task("noted")
    revoked = task.delay("wait")
    sql_side.shop.wait_active(revoked)
    revoked.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        revoked.get(timeout=WAIT)
    soft = task.apply_async(("wait",), soft_time_limit=0.5)
    hard = task.apply_async(("wait",), time_limit=0.5)
    for result in (soft, hard):
        with pytest.raises(Exception, match="TimeLimitExceeded"):
            result.get(timeout=WAIT)
    eventually("told", lambda: "request timed out, soft" in _of_request(sql_side, soft.id))
    eventually("told", lambda: "request timed out, hard" in _of_request(sql_side, hard.id))


# --- expiry, revocation ------------------------------------------------------------------------------------------


def test_an_expired_task_is_revoked(side: Side) -> None:
    result = side.task("double").apply_async((1,), expires=-1)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=WAIT)
    eventually("told", lambda: side.journal.words(result.id))
    [entry] = side.journal.read(result.id)
    assert (entry["what"], entry["expired"], entry["terminated"]) == ("task_revoked", True, False)
    [event] = _events(side, result.id, "task-revoked")
    assert event["expired"] is True


def test_a_task_revoked_before_it_runs_does_not(side: Side) -> None:
    result = side.task("double").apply_async((1,), countdown=1)
    eventually("scheduled", lambda: _is_known(side, result.id))
    result.revoke()
    with pytest.raises(TaskRevokedError):
        result.get(timeout=WAIT)
    eventually("told", lambda: "task_revoked" in side.journal.words(result.id))
    assert "task_prerun" not in side.journal.words(result.id)


def test_a_task_revoked_while_it_runs_tells_so_once(sql_side: Side) -> None:
    result = sql_side.task("sleep").delay(60)
    sql_side.shop.wait_active(result)
    result.revoke(terminate=True, signal="KILL")
    assert sql_side.words_at_end(result.id)[:3] == BEGIN
    eventually("told", lambda: "task_revoked" in sql_side.journal.words(result.id))
    [entry] = [entry for entry in sql_side.journal.read(result.id) if entry["what"] == "task_revoked"]
    assert (entry["terminated"], entry["expired"]) == (True, False)
    [event] = _events(sql_side, result.id, "task-revoked")
    assert (event["terminated"], event["signum"], event["expired"]) == (True, 9, False)
    assert set(sql_side.journal.words(result.id)) == {*BEGIN, "task_postrun", "task_revoked"}


def test_a_stamped_task_revoked_by_its_header_does_not_run(side: Side) -> None:
    signature = side.task("double").si(1)
    header = f"batch-{side.kind}"
    signature.stamp(**{header: "seven"})
    side.shop.app.control.revoke_by_stamped_headers({header: ["seven"]}, destination=[side.nodename], reply=True)
    result = signature.apply_async()
    with pytest.raises(TaskRevokedError):
        result.get(timeout=WAIT)
    assert "task_prerun" not in side.journal.words(result.id)


def test_a_task_in_line_for_a_thread_may_be_revoked_and_may_expire(
    sql_side: Side, hold: Callable[[], int], database: Any
) -> None:
    """Celery's threads pool looks only before it takes a task in, and runs what is in its line."""
    key = hold()
    blocking = [sql_side.task("wait_acked_early").delay(key) for _ in range(4)]
    for result in blocking:
        sql_side.shop.wait_active(result)
    revoked = sql_side.task("double").delay(1)
    expired = sql_side.task("double").apply_async((1,), expires=1)
    eventually("in line", lambda: {e["id"] for e in _reserved(sql_side)} >= {revoked.id, expired.id})
    sql_side.shop.app.control.revoke(revoked.id, destination=[sql_side.nodename], reply=True)
    eventually("it is past its time", lambda: _has_passed(sql_side, expired.id))
    database.execute("SELECT pg_advisory_unlock(%s)", [key])
    for result in (revoked, expired):
        with pytest.raises(TaskRevokedError):
            result.get(timeout=WAIT)
        assert "task_prerun" not in sql_side.journal.words(result.id)
    for result in blocking:
        result.get(timeout=WAIT)


def _has_passed(side: Side, task_id: str) -> bool:
    [received] = [entry for entry in side.journal.read(task_id) if entry["what"] == "task_received"]
    return time.time() > received["time"] + 1.1


def _reserved(side: Side) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (side.inspect().reserved() or {}).get(side.nodename, [])
    return found


def _of_request(side: Side, task_id: str) -> list[str]:
    return [word for word in side.journal.words(task_id) if word.startswith("request")]


def _is_known(side: Side, task_id: str) -> bool:
    return bool((side.inspect().query_task(task_id) or {}).get(side.nodename))


def _events(side: Side, task_id: str, *types: str) -> list[dict[str, Any]]:
    """The events of these types, once the last is there."""
    eventually(f"event {types[-1]}", lambda: types[-1] in side.events.types(task_id))
    return [event for event in side.events.of(task_id) if event["type"] in types]


# --- events -------------------------------------------------------------------------------------------------------


START = ["task-received", "task-started"]


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("double", [*START, "task-succeeded"]),
        ("fail", [*START, "task-failed"]),
        (
            "retry_in_vain",
            [*START, "task-retried", *START, "task-failed"],
        ),
        ("fail_unacknowledged", [*START, "task-rejected", "task-failed"]),
    ],
)
def test_events_tell_the_same(side: Side, name: str, types: list[str]) -> None:
    arguments = (1,) if name == "double" else ()
    result = side.task(name).apply_async(arguments)
    result.get(timeout=WAIT, propagate=False)
    eventually("all events", lambda: sorted(side.events.types(result.id)) == sorted(types))
