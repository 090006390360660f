"""CPU time for each task, by process: what stays the same on a busy machine, where rates do not."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import psycopg
import redis

from benchmarks.measures import Line, bare_loop, through_celery
from benchmarks.servers import Worker

#: Milliseconds of CPU for each task, by process.
Cost = dict[str, float]

PARTS = ("Celery worker", "PostgreSQL", "Redis", "client")


class Meter:
    """The CPU seconds that PostgreSQL, Redis, a Celery worker and this process have used."""

    def __init__(self, dsn: str, redis_url: str, worker: Worker | None = None) -> None:
        with psycopg.connect(dsn) as session:
            self._postmaster = psutil.Process(session.info.backend_pid).parent()
        self._redis = psutil.Process(int(redis.Redis.from_url(redis_url).info("server")["process_id"]))
        self._worker = psutil.Process(worker.process.pid) if worker else None

    def read(self) -> dict[str, float]:
        """Seconds so far, by process."""
        assert self._postmaster is not None
        return {
            "Celery worker": _tree_seconds(self._worker) if self._worker else 0.0,
            "PostgreSQL": _tree_seconds(self._postmaster),
            "Redis": _seconds(self._redis),
            "client": _seconds(psutil.Process(os.getpid())),
        }

    def cost(self, number: int, work: Callable[[], object]) -> Cost:
        """Do the work of so many tasks, and tell what each cost."""
        before = self.read()
        work()
        after = self.read()
        return {part: (after[part] - before[part]) / number * 1000 for part in PARTS}


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _tree_seconds(process: psutil.Process) -> float:
    """A process, the children it has, and those that have ended."""
    times = process.cpu_times()
    total = float(times.user + times.system + times.children_user + times.children_system)
    for child in process.children(recursive=True):
        try:
            total += _seconds(child)
        except psutil.NoSuchProcess:
            continue
    return total


def cpu(dsn: str, redis_url: str, rounds: int, number: int) -> Iterator[Line]:
    """The same INSERT on every way to run it, interleaved."""
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("CREATE TABLE IF NOT EXISTS bench_effect (id bigint GENERATED ALWAYS AS IDENTITY, v text)")
    ours = f"pgbg+{dsn}"
    with (
        Worker(dsn, redis_url, "threads", 16) as threads,
        Worker(dsn, redis_url, "custom", 16) as with_redis,
        Worker(dsn, redis_url, "custom", 16, backend=ours) as with_ours,
        Worker(dsn, redis_url, "custom", 16, backend=ours, broker=ours) as alone,
    ):
        ways: dict[str, tuple[Worker, str]] = {
            "threads, a task that does nothing, Redis results": (threads, "bench.nothing"),
            "threads + psycopg, Redis results": (threads, "bench.inserted"),
            "reuse, Redis results": (with_redis, "bench.insert_reused"),
            "reuse, our results": (with_ours, "bench.insert_reused"),
            "reuse, our results, our broker": (alone, "bench.insert_reused"),
            "own background worker, our results": (with_ours, "bench.insert"),
        }
        costs: dict[str, list[Cost]] = {what: [] for what in ways}
        bare: list[float] = []
        for turn in range(rounds + 1):
            for what, (worker, name) in ways.items():
                meter = Meter(dsn, redis_url, worker)
                cost = meter.cost(number, lambda worker=worker, name=name: through_celery(worker, name, number))
                if turn:
                    costs[what].append(cost)
            meter = Meter(dsn, redis_url)
            bare.append(meter.cost(number, lambda: bare_loop(dsn, 2, number))["PostgreSQL"])
    totals = {what: statistics.median(sum(cost.values()) for cost in found) for what, found in costs.items()}
    base = totals["threads + psycopg, Redis results"]
    for what, found in costs.items():
        parts = ", ".join(f"{part} {statistics.median(cost[part] for cost in found):.2f}" for part in PARTS)
        wanted = "1.0 x" if what.startswith("reuse, our results") else ""
        yield f"CPU per task, {what}", f"{totals[what]:.2f} ms = {totals[what] / base:.2f} x ({parts})", wanted
    launch = statistics.median(cost["PostgreSQL"] for cost in costs["own background worker, our results"])
    floor = statistics.median(bare)
    yield "CPU per bare launch and result, PostgreSQL", f"{floor:.2f} ms", ""
    yield "  own background worker against it", f"{launch:.2f} ms = {launch / floor:.2f} x", "1.4 x"


def as_json(lines: list[Line]) -> list[dict[str, Any]]:
    """Lines of the table by name."""
    return [dict(zip(("what", "measured", "wanted"), line, strict=True)) for line in lines]
