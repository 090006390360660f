"""Numbers for Prometheus: running, waiting and failed tasks of a database, and background worker slots.

Needs the package prometheus-client: ``pip install "celery-pgbg[prometheus]"``.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import psycopg
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from celery_pgbg.database.sessions import Session
from celery_pgbg.errors import PgbgError
from celery_pgbg.execution.control import operations
from celery_pgbg.operating.commands import installed_session


class PgbgCollector(Collector):
    """Queries the database at each scrape, on one permanent session.

    Args:
        app: the app with the ``pgbg_dsn``.
        database: an alias of ``pgbg_databases``, or None.
        window: seconds over which runs, failures and times are counted.
    """

    def __init__(self, app: Any, database: str | None = None, window: float = 300.0) -> None:
        self._app = app
        self._database = database
        self._window = window
        self._session: Session | None = None
        self._lock = threading.Lock()

    def describe(self) -> list[Metric]:
        """Describe nothing, so that registering does not query the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Query all numbers; without an answer the only number is ``pgbg_up``, with the value 0."""
        with self._lock:
            try:
                metrics = self._ask()
            except (PgbgError, psycopg.Error):
                self._close()
                metrics = []
        yield self._gauge("pgbg_up", "Whether the database answers.", {(): 1.0 if metrics else 0.0})
        yield from metrics

    def _ask(self) -> list[Metric]:
        if self._session is None or self._session.closed:
            self._session = installed_session(self._app, self._database)
        rows = operations.executions(self._session, 0)
        slots = operations.slots(self._session)
        statistics = operations.task_statistics(self._session, self._window)
        return [*_of_running(rows, self._gauge), *_of_slots(slots, self._gauge), *self._of_ended(statistics)]

    def _of_ended(self, rows: list[dict[str, Any]]) -> Iterator[Metric]:
        window = f"the last {self._window:g} s"
        for name, column, text in (
            ("pgbg_recent_runs", "runs", f"Attempts that ended within {window}."),
            ("pgbg_recent_failures", "failures", f"Attempts that failed within {window}."),
            ("pgbg_recent_seconds_p50", "p50_seconds", f"Median time of attempts that ended within {window}."),
            (
                "pgbg_recent_seconds_p95",
                "p95_seconds",
                f"95th percentile of the time of attempts that ended within {window}.",
            ),
        ):
            yield self._gauge(name, text, {(row["task_name"],): float(row[column]) for row in rows}, "task")

    def _gauge(self, name: str, text: str, values: dict[tuple[str, ...], float], *labels: str) -> Metric:
        gauge = GaugeMetricFamily(name, text, labels=["database", *labels])
        for value_labels, value in values.items():
            gauge.add_metric([self._database or "default", *value_labels], value)
        return gauge

    def _close(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session = None


def _of_running(rows: list[dict[str, Any]], gauge: Any) -> Iterator[Metric]:
    running: dict[tuple[str, str], float] = defaultdict(float)
    oldest: dict[tuple[str], float] = {}
    blocked: dict[tuple[str], float] = {}
    for row in rows:
        task = row["task_name"]
        running[task, row["state"]] += 1
        oldest[(task,)] = max(oldest.get((task,), 0.0), row["seconds"] or 0.0)
        blocked[(task,)] = blocked.get((task,), 0.0) + (row["waits_for"] or "").startswith("Lock:")
    yield gauge("pgbg_running", "SQL tasks that run, by state.", dict(running), "task", "state")
    yield gauge("pgbg_oldest_seconds", "Time since the launch of the oldest running SQL task.", oldest, "task")
    yield gauge("pgbg_blocked", "SQL tasks that wait for a lock.", blocked, "task")


def _of_slots(slots: operations.Slots, gauge: Any) -> Iterator[Metric]:
    yield gauge("pgbg_slots_limit", "max_worker_processes of the server.", {(): float(slots.server_worker_limit)})
    used = {("pg_background",): float(slots.used), ("others",): float(slots.used_by_others)}
    yield gauge("pgbg_slots_used", "The server's background worker slots in use.", used, "by")
