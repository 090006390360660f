"""``python -m tests.soak.slots [--seconds 120]``: two Celery workers on a server that never has slots enough.

Nothing may fail, nothing may starve, and no Celery worker may take more messages than it should. Prints what was
measured; exit 1 where something is wrong.
"""

from __future__ import annotations

import argparse
import bisect
import random
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from celery_pgbg.database import schema
from celery_pgbg.database.results import close_stores
from celery_pgbg.devserver import DevServer
from celery_pgbg.devserver.brokers import RabbitServer
from tests.fix_celery import Shop

#: Of the server's five, one is taken by PostgreSQL's own launcher of logical replication.
SLOTS = 4

#: Threads of each Celery worker, and clients that each wait for a task: so many that messages always wait as well.
CONCURRENCY = 16
CLIENTS = 64

#: How long a task may take at most, in seconds.
_PATIENCE = 120.0

#: Who is sent after a task and launched before it has overtaken it. Two lines are not one, so some do; but no client
#: may have had two more turns meanwhile.
MOST_OVERTAKEN = 2 * CLIENTS

#: What waits in a line or is prefetched; those that stand alone are acknowledged at their launch and make room; and
#: two looks are not one.
MOST_HELD = CONCURRENCY + 2 * SLOTS


@dataclass(frozen=True)
class Sent:
    """One task that a client has sent; when, by the server's clock."""

    kind: str
    task_id: str
    at: float


@dataclass
class Clients:
    """Threads that each send a task, wait for its result, and send the next."""

    shop: Shop
    sent: list[Sent] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        """Run for so long."""
        end = time.monotonic() + seconds
        threads = [threading.Thread(target=self._run, args=(random.Random(seed), end)) for seed in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _run(self, chance: random.Random, end: float) -> None:
        while time.monotonic() < end:
            kind = chance.choices(("launched", "reusing", "alone"), (6, 3, 1))[0]
            at = time.time()
            result = self._send(kind, chance.uniform(0.01, 0.3))
            self.sent.append(Sent(kind, result.id, at))
            got = result.get(timeout=_PATIENCE, propagate=False)
            if isinstance(got, BaseException):
                self.wrong.append(f"{kind} {result.id} failed: {got!r}")

    def _send(self, kind: str, seconds: float) -> Any:
        insert = f"INSERT INTO effects VALUES ('x'); SELECT pg_sleep({seconds})"
        match kind:
            case "launched":
                return self.shop.task("statement").delay(insert)
            case "reusing":
                return self.shop.task("statement_reusing").delay(insert)
            case _:
                return self.shop.task("statement_alone").delay(
                    f"DO $$ BEGIN {insert.replace('SELECT', 'PERFORM')}; END $$"
                )


class Holdings(threading.Thread):
    """Looks now and then at how many messages each Celery worker holds."""

    def __init__(self, shop: Shop) -> None:
        super().__init__(name="holdings")
        self._inspect = shop.app.control.inspect(destination=[worker.nodename for worker in shop.workers], timeout=5)
        self._stopping = threading.Event()
        self.most: dict[str, int] = {}

    def run(self) -> None:
        """Look."""
        while not self._stopping.wait(2):
            active, reserved = self._inspect.active() or {}, self._inspect.reserved() or {}
            for nodename, tasks in active.items():
                ids = {task["id"] for task in [*tasks, *reserved.get(nodename, ())]}
                self.most[nodename] = max(self.most.get(nodename, 0), len(ids))

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self.join()


def overtaken(order_of_launches: list[int]) -> int:
    """The most that any was overtaken: given, for each launch in order, which in the order of sending it was."""
    seen: list[int] = []
    most = 0
    for number in order_of_launches:
        most = max(most, len(seen) - bisect.bisect(seen, number))
        bisect.insort(seen, number)
    return most


def soak(dsn: str, broker: str, seconds: float) -> list[str]:
    """Run, print what was measured; returns what is wrong."""
    with tempfile.TemporaryDirectory() as folder, psycopg.connect(dsn, autocommit=True) as database:
        database.execute("CREATE TABLE effects (v text)")
        shop = Shop(Path(folder), broker, f"pgbg+{dsn}", pgbg_dsn=dsn)
        try:
            for worker in [shop.launch_worker(f"-c{CONCURRENCY}") for _ in range(2)]:
                worker.wait_ready()
            clients, holdings = Clients(shop), Holdings(shop)
            holdings.start()
            clients.run(seconds)
            holdings.stop()
            return clients.wrong + _judge(database, clients, holdings)
        finally:
            shop.close()
            close_stores()


def _judge(database: Any, clients: Clients, holdings: Holdings) -> list[str]:
    query = "SELECT task_id, extract(epoch FROM launched_at)::float8, nodename FROM celery_pgbg.execution"
    launches = {task_id: (at, nodename) for task_id, at, nodename in database.execute(query)}
    sent = sorted(clients.sent, key=lambda one: one.at)
    numbers = {one.task_id: number for number, one in enumerate(sent)}
    in_order = [numbers[task_id] for task_id in sorted(numbers, key=lambda task_id: launches[task_id][0])]
    waits = {
        kind: [launches[one.task_id][0] - one.at for one in sent if one.kind == kind]
        for kind in ("launched", "reusing", "alone")
    }
    everybody = [wait for of_kind in waits.values() for wait in of_kind]
    median, most_overtaken = statistics.median(everybody), overtaken(in_order)
    by_worker = [
        sum(nodename == worker.nodename for _, nodename in launches.values()) for worker in clients.shop.workers
    ]
    [effects] = database.execute("SELECT count(*) FROM effects").fetchone()
    print(
        f"{len(sent)} tasks, {effects} effects; by Celery worker: {by_worker}; messages held at most: {holdings.most}"
    )
    for kind, some in waits.items():
        print(f"{kind}: {len(some)}; waited in the median {statistics.median(some):.2f} s, at most {max(some):.2f} s")
    warnings = [_warnings(worker.text()) for worker in clients.shop.workers]
    print(f"overtaken by at most {most_overtaken}; warnings that there is no slot: {warnings}")
    checks = {
        "effects are missing or double": effects != len(sent),
        f"one waited for {max(everybody):.1f} s, the median is {median:.1f} s": max(everybody) > 4 * median,
        f"one was overtaken by {most_overtaken}": most_overtaken > MOST_OVERTAKEN,
        f"one Celery worker got too few: {by_worker}": min(by_worker) < len(sent) / 4,
        f"a Celery worker held {max(holdings.most.values())} messages": max(holdings.most.values()) > MOST_HELD,
    }
    return [text for text, is_wrong in checks.items() if is_wrong]


def _warnings(log: str) -> int:
    return sum("WARNING" in line and "no free background worker slot" in line for line in log.splitlines())


def main() -> int:
    """Run on servers of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.slots", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    options = parser.parse_args()
    server, broker = DevServer("soak-slots"), RabbitServer("soak")
    try:
        dsn = server.start(max_worker_processes=SLOTS + 1, fsync=False)
        with psycopg.connect(dsn, autocommit=True) as session:
            schema.install(session)
        wrong = soak(dsn, broker.find_or_start(), options.seconds)
    finally:
        server.stop(purge=True)
        broker.purge()
    for what in wrong[:50]:
        print("WRONG:", what)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
