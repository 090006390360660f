"""One soak: two Celery workers, one of which is killed again and again, under load; then the counting."""

from __future__ import annotations

import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg

from celery_pgbg.database.results import close_stores
from celery_pgbg.execution.records.expiry import delete_expired
from tests.fix_celery import Shop
from tests.soak.load import Accidents, Load
from tests.soak.samples import CONCURRENCY, Line, Sampler, judge
from tests.waiting import eventually

#: Who holds which advisory lock, and what that session does.
_LOCKS = """
SELECT classid, objid, objsubid, mode, granted, application_name, backend_type, state, wait_event_type, wait_event,
    query, xact_start, state_change
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND pid NOT IN (SELECT pid FROM celery_pgbg.consumer)
"""

#: How old what is kept may become, in seconds; it is deleted as often, so that tables can be flat.
_KEEP_SECONDS = 20.0


@dataclass
class Report:
    """What came out.

    Attributes:
        lines: what must be flat.
        counts: tasks by kind and end, and accidents.
        wrong: what must not have happened; empty if all is well.
    """

    lines: list[Line] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Housekeeping(threading.Thread):
    """Deletes what has expired, as ``celery beat`` and the sweeper do more rarely."""

    def __init__(self, shop: Shop, database: Any) -> None:
        super().__init__(name="housekeeping")
        self._shop = shop
        self._database = database
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self.join()

    def run(self) -> None:
        """Now and then."""
        while not self._stopping.wait(_KEEP_SECONDS / 4):
            clean(self._shop, self._database, _KEEP_SECONDS)


def clean(shop: Shop, database: Any, seconds: float) -> None:
    """Delete results and outcomes older than this."""
    shop.app.backend.store.delete_expired(seconds, seconds, seconds)
    delete_expired(database, seconds)


def soak(dsn: str, broker: str, seconds: float, clients: int = 12, seed: int = 0) -> Report:
    """Run the load for so long."""
    with (
        tempfile.TemporaryDirectory() as folder,
        psycopg.connect(dsn, autocommit=True) as database,
        psycopg.connect(dsn, autocommit=True) as for_accidents,
        psycopg.connect(dsn, autocommit=True) as for_housekeeping,
    ):
        shop = Shop(Path(folder), broker, f"pgbg+{dsn}", pgbg_dsn=dsn, result_extended=True)
        safe_queue = f"{shop.queue}-safe"
        try:
            measured = shop.start_worker(f"-c{CONCURRENCY}", "-Q", f"{shop.queue},{safe_queue}")
            shop.start_worker("-c8")
            database.execute("CREATE TABLE soak_effects (v text)")
            load = Load(shop, "soak_effects", safe_queue, seed)
            pause = min(2.0, seconds / 12)
            accidents = Accidents(shop, for_accidents, pause, max(5.0, min(20.0, seconds / 3)), seed)
            process = psutil.Process(measured.process.pid)
            sampler = Sampler(process, shop, safe_queue, database, max(1.0, seconds / 100))
            housekeeping = Housekeeping(shop, for_housekeeping)
            running = (load, accidents, sampler, housekeeping)
            load.start(clients)
            for thread in running[1:]:
                thread.start()
            time.sleep(seconds)
            for thread in reversed(running):
                thread.stop()
            lines = judge(sampler.series, seconds)
            return _conclude(shop, database, lines, load, accidents, sampler)
        finally:
            shop.close()
            close_stores()
            database.execute("DROP TABLE IF EXISTS soak_effects")


def _conclude(
    shop: Shop, database: Any, lines: list[Line], load: Load, accidents: Accidents, sampler: Sampler
) -> Report:
    report = Report(lines, load.counts + accidents.counts, list(load.wrong))
    report.wrong += _effects(database, load)
    report.wrong += _left_behind(shop, database, sampler)
    report.wrong += [f"{worker.nodename}: {line}" for worker in shop.workers for line in _complaints(worker.text())]
    return report


def _effects(database: Any, load: Load) -> list[str]:
    """Compare the effects with the book."""
    there = dict(database.execute("SELECT v, count(*) FROM soak_effects GROUP BY v").fetchall())
    wrong = [f"effect {value} is there {number} times" for value, number in there.items() if number != 1]
    wrong += [f"effect {value} is lost: {told}" for value, told in load.expected.items() if value not in there]
    wrong += [f"effect {value} should not be: {told}" for value, told in load.unwanted.items() if value in there]
    wrong += [f"effect {value} is nobody's" for value in there.keys() - load.expected.keys() - load.unwanted.keys()]
    return wrong


def _left_behind(shop: Shop, database: Any, sampler: Sampler) -> list[str]:
    """Look for what should be gone when nothing runs: all deliveries are done, and all that was stored expires."""

    def is_idle() -> bool:
        held = sampler.holdings()
        counts = sampler.counts()
        # The one run is that of the task which counts.
        return held["handles"] == held["watches"] == held["in line"] == counts["background_workers"] == 0 and (
            counts["advisory_locks"] == 0 and held["runs"] == 1
        )

    try:
        eventually("nothing is held any more", is_idle)
    except AssertionError:
        return [f"left when idle: {sampler.holdings()} {sampler.counts()} {database.execute(_LOCKS).fetchall()}"]
    # What had no outcome is deleted once it is certain that it does not run; the last to count stores its own result.
    try:
        eventually("all is deleted", lambda: sum(_rows_left(shop, database).values()) <= 1)
    except AssertionError:
        return [f"rows left in celery_pgbg: {_rows_left(shop, database)}"]
    return []


def _rows_left(shop: Shop, database: Any) -> dict[str, int]:
    """Delete what has expired, which is all, and count the rest."""
    clean(shop, database, 0)
    left = {}
    for name in ("execution", "outcome", "result", "chord_part"):
        [left[name]] = database.execute(f"SELECT count(*) FROM celery_pgbg.{name}").fetchone()
    return left


def _complaints(log: str) -> list[str]:
    """What a Celery worker should not have to log, whatever happens."""
    words = ("CRITICAL", "could not be told", "ResourceWarning", "Unrecoverable", "Exception ignored", "Exception in")
    return [line for line in log.splitlines() if any(word in line for word in words)]
