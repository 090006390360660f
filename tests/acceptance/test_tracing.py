"""OpenTelemetry's and Sentry's own integrations for Celery, in a real Celery worker of ours."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from celery import chain

from tests.fix_celery import Shop
from tests.fix_tools import program
from tests.waiting import eventually

WAIT = 60


class Traced(NamedTuple):
    """The app, and what its Celery worker has recorded."""

    shop: Shop
    folder: Path

    def _read(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / name
        # A line that is being written has no end yet.
        return [json.loads(line) for line in path.read_text().splitlines(True) if line.endswith("\n")]

    def spans(self, name: str, task_id: str | None = None) -> list[dict[str, Any]]:
        """OpenTelemetry's spans of this name, of one task if it is given."""
        found = [span for span in self._read("spans") if span["name"] == name]
        return [span for span in found if task_id in (None, span["attributes"].get("messaging.message.id"))]

    def span(self, name: str, task_id: str | None = None) -> dict[str, Any]:
        """Wait for a span."""
        return eventually(f"span {name}", lambda: self.spans(name, task_id))[0]

    def of_sentry(self, kind: str, task_id: str) -> list[dict[str, Any]]:
        """Sentry's transactions or errors of a task."""
        found = [item for item in self._read("sentry") if (item.get("type") or "error") == kind]
        return [item for item in found if item.get("tags", {}).get("celery_task_id") == task_id]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, redis_url: str, dsn: str) -> Iterator[Traced]:
    """A Celery worker under both."""
    pytest.importorskip("opentelemetry.instrumentation.celery")
    pytest.importorskip("sentry_sdk")
    folder = tmp_path_factory.mktemp("traced")
    shop = Shop(folder, f"{redis_url}/9", f"{redis_url}/10", pgbg_dsn=dsn)
    files = {"PGBG_TEST_SPANS": folder / "spans", "PGBG_TEST_SENTRY": folder / "sentry"}
    for path in files.values():
        path.touch()
    environment = {"PGBG_TEST_APP": json.dumps(shop._arguments), **{name: str(path) for name, path in files.items()}}
    command = ("-m", "celery", "-A", "tests.apps.traced", "worker", "-c8", "-l", "INFO", "-n", f"{shop.queue}@test")
    with program(folder / "worker.log", *command, **environment) as log:
        eventually("the Celery worker is ready", lambda: "@test ready" in log())
        yield Traced(shop, folder)
    shop.close()


def seconds(span: dict[str, Any], start: str, end: str) -> float:
    # Python 3.10 does not read the Z.
    begun, ended = (datetime.fromisoformat(span[key].replace("Z", "+00:00")) for key in (start, end))
    return (ended - begun).total_seconds()


def test_a_span_lasts_as_long_as_its_statement(traced: Traced) -> None:
    begun = time.monotonic()
    result = traced.shop.task("sleep").delay(0.5)
    span = traced.span("run/shop.sleep", result.id)
    transaction = eventually("Sentry's", lambda: traced.of_sentry("transaction", result.id))[0]
    elapsed = time.monotonic() - begun
    assert span["attributes"]["celery.state"] == "SUCCESS"
    assert span["status"]["status_code"] != "ERROR"
    assert 0.5 <= seconds(span, "start_time", "end_time") <= elapsed
    assert (transaction["transaction"], transaction["contexts"]["trace"]["status"]) == ("shop.sleep", "ok")
    [process] = [span for span in transaction["spans"] if span["op"] == "queue.process"]
    for timed in (transaction, process):
        assert 0.5 <= seconds(timed, "start_timestamp", "timestamp") <= elapsed


def test_an_error_is_recorded_as_psycopgs_class(traced: Traced) -> None:
    result = traced.shop.task("divide").delay(1, 0)
    span = traced.span("run/shop.divide", result.id)
    assert span["status"]["status_code"] == "ERROR"
    assert span["attributes"]["celery.state"] == "FAILURE"
    [event] = span["events"]
    assert event["attributes"]["exception.type"] == "psycopg.errors.DivisionByZero"
    assert event["attributes"]["exception.message"] == "division by zero"
    [error] = eventually("Sentry's", lambda: traced.of_sentry("error", result.id))
    [exception] = error["exception"]["values"]
    assert (exception["module"], exception["type"], exception["value"]) == (
        "psycopg.errors",
        "DivisionByZero",
        "division by zero",
    )


def test_a_revoked_task_ends_its_span_and_is_no_error(traced: Traced) -> None:
    result = traced.shop.task("sleep").delay(60)
    nodename = f"{traced.shop.queue}@test"

    def active() -> list[str]:
        replies = traced.shop.app.control.inspect([nodename]).active() or {}
        return [entry["id"] for entry in replies.get(nodename, [])]

    eventually("it is active", lambda: result.id in active())
    result.revoke(terminate=True)
    span = traced.span("run/shop.sleep", result.id)
    assert span["status"]["status_code"] != "ERROR"
    eventually("Sentry's", lambda: traced.of_sentry("transaction", result.id))
    assert traced.of_sentry("error", result.id) == []


def test_the_context_goes_through_a_chain(traced: Traced) -> None:
    shop = traced.shop
    last = chain(shop.task("add").si(1), shop.task("total").si([]), shop.task("add").si(2)).delay()
    assert last.get(timeout=WAIT) == [{"total": 4}]
    middle, first = last.parent, last.parent.parent
    runs = [
        traced.span("run/shop.add", first.id),
        traced.span("run/shop.total", middle.id),
        traced.span("run/shop.add", last.id),
    ]
    sent = [traced.span("apply_async/shop.total", middle.id), traced.span("apply_async/shop.add", last.id)]
    assert len({span["context"]["trace_id"] for span in (*runs, *sent)}) == 1
    assert [span["parent_id"] for span in (sent[0], runs[1], sent[1], runs[2])] == [
        span["context"]["span_id"] for span in (runs[0], sent[0], runs[1], sent[1])
    ]
    ends = [
        eventually("Sentry's", lambda result=result: traced.of_sentry("transaction", result.id))[0]
        for result in (first, middle, last)
    ]
    assert len({end["contexts"]["trace"]["trace_id"] for end in ends}) == 1
