"""What is measured while the load runs, and whether it stayed flat."""

from __future__ import annotations

import statistics
import threading
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import psutil

_COUNTS = """
SELECT
    count(*) FILTER (WHERE application_name LIKE 'pgbg launcher%%') AS launchers,
    count(*) FILTER (WHERE application_name LIKE 'pgbg listener%%') AS listeners,
    count(*) FILTER (WHERE application_name LIKE 'pgbg standalone%%') AS standalone,
    count(*) FILTER (WHERE application_name LIKE 'pgbg results%%') AS results,
    count(*) FILTER (WHERE backend_type = 'pg_background') AS background_workers,
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        -- those of the broker's consumers show that they live
        AND pid NOT IN (SELECT pid FROM celery_pgbg.consumer)) AS advisory_locks
FROM pg_stat_activity WHERE datname = current_database()
"""

_TABLES = """
SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::bigint AS bytes, coalesce(sum(n_dead_tup), 0)::bigint AS dead
FROM pg_stat_user_tables WHERE schemaname = 'celery_pgbg'
"""


class Limit(NamedTuple):
    """By how much a median may grow from the second quarter of a run to its last: the larger of both."""

    share: float
    absolute: float
    unit: str
    is_memory: bool = False


#: How many tasks the Celery worker that is measured runs at once.
CONCURRENCY = 16

#: What must stay flat while the load runs.
LIMITS = {
    "RSS of the Celery worker": Limit(0.08, 6.0, "MB", is_memory=True),
    "PSS of the Celery worker": Limit(0.08, 6.0, "MB", is_memory=True),
    "its threads, but the pool's": Limit(0.15, 3, ""),
    # A burst may need all that the pool may have, and each lives for a minute.
    "its pool's threads": Limit(0.0, CONCURRENCY, ""),
    "its file descriptors": Limit(0.15, 4, ""),
    "its Python objects": Limit(0.08, 5_000, "", is_memory=True),
    "handles in its launching sessions": Limit(0.5, 64, ""),
    "deadlines": Limit(0.5, 130, ""),
    "our sessions": Limit(0.25, 4, ""),
    "advisory locks": Limit(0.5, 20, ""),
    "size of our tables": Limit(0.3, 4.0, "MB"),
    # VACUUM leaves what the snapshots of running statements may still see: some seconds' worth.
    "dead rows after VACUUM": Limit(0.5, 3_000, ""),
}


#: Runs that are too short to tell the warming up of memory from its growth, in seconds, and how much more they allow.
_SHORT = ((60, 10), (300, 3))


@dataclass(frozen=True)
class Line:
    """One line of the table: medians of the second and the last quarter, the most, and the judgement."""

    what: str
    warm: float
    last: float
    most: float
    unit: str
    is_flat: bool


class Sampler:
    """Measures in a thread of its own.

    Args:
        process: the Celery worker's.
        shop: the app, whose task ``holdings`` tells what that process holds.
        queue: that only this Celery worker consumes.
        database: a session of its own.
        seconds: between two samples.
    """

    def __init__(self, process: psutil.Process, shop: Any, queue: str, database: Any, seconds: float) -> None:
        self._process = process
        self._shop = shop
        self._queue = queue
        self._database = database
        self._seconds = seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler")
        self.series: dict[str, list[float]] = {what: [] for what in LIMITS}

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            for what, value in self.sample().items():
                self.series[what].append(value)

    def sample(self) -> dict[str, float]:
        """Measure once."""
        held = self.holdings()
        counts = self.counts()
        self._vacuum()
        table_bytes, dead = self._database.execute(_TABLES).fetchone()
        memory = self._process.memory_full_info()
        return {
            "RSS of the Celery worker": memory.rss / 1e6,
            "PSS of the Celery worker": memory.pss / 1e6,
            "its threads, but the pool's": self._process.num_threads() - held["pool threads"],
            "its pool's threads": held["pool threads"],
            "its file descriptors": self._process.num_fds(),
            "its Python objects": held["objects"],
            "handles in its launching sessions": held["handles"],
            "deadlines": held["deadlines"],
            "our sessions": sum(counts[name] for name in ("launchers", "listeners", "standalone", "results")),
            "advisory locks": counts["advisory_locks"],
            "size of our tables": table_bytes / 1e6,
            "dead rows after VACUUM": dead,
        }

    def _vacuum(self) -> None:
        """Clean all our tables, as autovacuum does a little later."""
        names = self._database.execute("SELECT relid::regclass::text FROM pg_stat_user_tables").fetchall()
        ours = ", ".join(name for (name,) in names if name.startswith("celery_pgbg."))
        self._database.execute(f"VACUUM (SKIP_LOCKED) {ours}")

    def holdings(self) -> dict[str, int]:
        """Ask the Celery worker what it holds. Repeated where its sessions are ended just then."""
        deadline = time.monotonic() + 60
        while True:
            result = self._shop.task("holdings").apply_async(queue=self._queue)
            got = result.get(timeout=60, propagate=False)
            result.forget()
            if not isinstance(got, BaseException):
                return dict(got)
            assert time.monotonic() < deadline, got

    def counts(self) -> dict[str, int]:
        """Count sessions, background workers and locks in the server."""
        cursor = self._database.execute(_COUNTS.encode())
        names = [column.name for column in cursor.description]
        return dict(zip(names, cursor.fetchone(), strict=True))


def judge(series: dict[str, list[float]], seconds: float) -> list[Line]:
    """Compare the last quarter with the second: the first is for warming up.

    An allocator with many threads takes minutes for that, so a short run allows more.
    """
    lines = []
    for what, values in series.items():
        limit = LIMITS[what]
        quarter = max(1, len(values) // 4)
        warm, last = statistics.median(values[quarter : 2 * quarter] or values), statistics.median(values[-quarter:])
        allowed = max(warm * limit.share, limit.absolute)
        if limit.is_memory:
            allowed *= next((factor for short, factor in _SHORT if seconds < short), 1)
        lines.append(Line(what, warm, last, max(values), limit.unit, last - warm <= allowed))
    return lines
