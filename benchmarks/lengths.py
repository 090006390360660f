"""Rate and CPU against the length of a statement, for each way to run it."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.cpu import Meter
from benchmarks.measures import through_celery
from benchmarks.servers import Worker

#: Seconds that the statement sleeps.
LENGTHS = (0.0, 0.01, 0.1, 1.0)

CONCURRENCY = 16

#: Seconds that one measurement is meant to take.
_SECONDS = 3.0


@dataclass(frozen=True)
class Way:
    """One way to run a statement."""

    name: str
    pool: str
    task: str
    backend: str = ""


@dataclass(frozen=True)
class Point:
    """What one way reached with one length: tasks per second, milliseconds of CPU per task, all processes together."""

    way: str
    seconds: float
    rate: float
    cpu_ms: float


def ways(dsn: str) -> list[Way]:
    """The ways that are compared; Celery's own pools have psycopg in the task."""
    database = f"db+{dsn.replace('postgresql://', 'postgresql+psycopg://')}"
    ours = f"pgbg+{dsn}"
    return [
        Way("threads, Redis results", "threads", "bench.threaded"),
        Way("threads, Celery's database results", "threads", "bench.threaded", database),
        Way("prefork, Redis results", "prefork", "bench.threaded"),
        Way("reuse, our results", "custom", "bench.reused", ours),
        Way("reuse, Redis results", "custom", "bench.reused"),
        Way("own background worker, our results", "custom", "bench.background", ours),
        Way("own background worker, Redis results", "custom", "bench.background"),
    ]


def measure(dsn: str, redis_url: str, rounds: int, most: int) -> list[Point]:
    """Measure all ways, interleaved, with so many tasks at most each time; the median of the rounds."""
    with contextlib.ExitStack() as stack:
        chosen = ways(dsn)
        workers = {
            way: stack.enter_context(Worker(dsn, redis_url, way.pool, CONCURRENCY, backend=way.backend))
            for way in chosen
        }
        points = []
        for seconds in LENGTHS:
            number = int(min(most, max(CONCURRENCY * 2, _SECONDS * CONCURRENCY / max(seconds, 0.05))))
            found: dict[Way, list[tuple[float, float]]] = {way: [] for way in chosen}
            for turn in range(rounds + 1):
                for way, worker in workers.items():
                    once = _once(dsn, redis_url, worker, partial(through_celery, worker, way.task, number, seconds))
                    if turn:
                        found[way].append((number / once[0], once[1] / number * 1000))
            points += [
                Point(
                    way.name,
                    seconds,
                    statistics.median(rate for rate, _ in values),
                    statistics.median(cost for _, cost in values),
                )
                for way, values in found.items()
            ]
    return points


def _once(dsn: str, redis_url: str, worker: Worker, work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and seconds of CPU."""
    meter = Meter(dsn, redis_url, worker)
    before, begin = sum(meter.read().values()), time.monotonic()
    work()
    return time.monotonic() - begin, sum(meter.read().values()) - before
