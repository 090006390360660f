"""What a lookup, a listing and a cleanup take with up to a million outcomes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg

from benchmarks.measures import Line
from celery_pgbg.database.results import ResultStore
from celery_pgbg.execution.control import operations
from celery_pgbg.execution.records.expiry import Expiry

SIZES = (1_000, 10_000, 100_000, 1_000_000)

#: How often each is done.
_TIMES = 20

#: One record for each tenth of a second: the million is of the last 28 hours.
_FILL = (
    """
    INSERT INTO celery_pgbg.execution
        (task_id, attempt, task_name, atomic, pid, cookie, application_name, nodename, launched_at)
    SELECT 'task ' || n, 0, 'bench.task', true, 1000 + n %% 30000, n, 'pgbg task ' || n, 'celery@bench',
        now() - n * interval '100 milliseconds'
    FROM generate_series(%(first)s::integer, %(last)s::integer) AS n
""",
    """
    INSERT INTO celery_pgbg.outcome (task_id, attempt, succeeded, pid, started_at, finished_at, returns, row_count)
    SELECT 'task ' || n, 0, true, 1000, now() - n * interval '100 milliseconds',
        now() - n * interval '100 milliseconds', 'count', 1
    FROM generate_series(%(first)s::integer, %(last)s::integer) AS n
""",
)


@dataclass(frozen=True)
class Point:
    """Milliseconds of one call with so many outcomes: the least of several, as others use the machine."""

    what: str
    outcomes: int
    milliseconds: float


def measure(dsn: str) -> list[Point]:
    """Fill the tables step by step, and measure after each step."""
    points = []
    store = ResultStore(dsn, 10, notify=False)
    filled = 0
    try:
        with psycopg.connect(dsn, autocommit=True) as session:
            session.execute("TRUNCATE celery_pgbg.execution, celery_pgbg.outcome")
            for size in SIZES:
                for query in _FILL:
                    session.execute(query.encode(), {"first": filled + 1, "last": size})
                session.execute("VACUUM ANALYZE celery_pgbg.execution, celery_pgbg.outcome")
                filled = size
                calls: dict[str, Callable[[], object]] = {
                    "lookup of a result": lambda size=size: store.read([f"task {size // 2}"]),
                    "ps --all": lambda: operations.executions(session, 3600, 50),
                    "look for what has expired": lambda: Expiry(2 * 86_400).delete_batch(session),
                }
                points += [Point(what, size, _milliseconds(call)) for what, call in calls.items()]
    finally:
        store.close()
    return points


def _milliseconds(call: Callable[[], object]) -> float:
    call()
    taken = []
    for _ in range(_TIMES):
        begin = time.perf_counter()
        call()
        taken.append((time.perf_counter() - begin) * 1000)
    return min(taken)


def lines(points: list[Point]) -> Iterator[Line]:
    """For the table."""
    for point in points:
        yield f"{point.what}, {point.outcomes:,} outcomes", f"{point.milliseconds:.1f} ms", ""
