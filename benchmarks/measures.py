"""The measurements. Each returns lines for the table: what, value, what is wanted."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import psycopg
from celery import group

from benchmarks.servers import Worker
from celery_pgbg.execution.runner import Runner
from celery_pgbg.handles import Attempt
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import Returned
from celery_pgbg.settings import read_settings
from celery_pgbg.watch import Watch

Line = tuple[str, str, str]


def rate(number: int, work: Callable[[], object]) -> float:
    """How many per second."""
    begin = time.monotonic()
    work()
    return number / (time.monotonic() - begin)


def in_threads(number: int, work: Callable[[], None]) -> None:
    """Do the same in several threads at once."""
    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def spread(values: list[float], unit: str = "", digits: int = 0) -> str:
    """Median, and least to most."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f}{unit} ({low:.{digits}f} - {high:.{digits}f})"


def percentiles(values: list[float]) -> str:
    """p50 and p99 in milliseconds."""
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"p50 {statistics.median(ordered) * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms"


# --- launching --------------------------------------------------------------------------------------------


def bare_loop(dsn: str, sessions: int, number: int) -> float:
    """pg_background's own launch and result of ``SELECT 1``, over so many sessions."""

    def loop() -> None:
        with psycopg.connect(dsn, autocommit=True) as session:
            for _ in range(number // sessions):
                row = session.execute("SELECT pid, cookie FROM pg_background_launch('SELECT 1')").fetchone()
                session.execute("SELECT * FROM pg_background_result(%s, %s) AS (r int)", row).fetchone()

    return rate(number, lambda: in_threads(sessions, loop))


def through_celery(worker: Worker, name: str, number: int, *args: Any) -> float:
    """Tasks that wait in the queue when the Celery worker begins to consume, until all results are there."""
    task = worker.app.tasks[name]
    worker.consume(False)
    results = group(task.s(*args) for _ in range(number)).apply_async()

    def work() -> None:
        worker.consume(True)
        results.get(timeout=300)

    return rate(number, work)


def through_runner(dsn: str, sessions: int, number: int, reuse: bool) -> float:
    """Our database layer alone, without Celery."""
    runner = Runner(dsn, read_settings({"pgbg_dsn": dsn, "pgbg_launchers": sessions}))
    share = number // 16

    def loop() -> None:
        for index in range(share):
            attempt = Attempt(f"bench {threading.get_ident()} {time.monotonic_ns()} {index}")
            order = Order(attempt, "bench", "bench", "SELECT 1", {}, "value", reuse=reuse)
            ending = runner.run(order, Watch(attempt))
            assert ending == Returned(1)

    try:
        return rate(share * 16, lambda: in_threads(16, loop))
    finally:
        runner.close()


def launches(dsn: str, redis_url: str, rounds: int, number: int) -> Iterator[Line]:
    """Rates against the bare loop over the same number of sessions, interleaved."""
    for sessions in (2, 4):
        with (
            Worker(dsn, redis_url, "custom", 16, sessions) as worker,
            Worker(dsn, redis_url, "custom", 16, sessions, f"pgbg+{dsn}") as with_ours,
        ):
            works: dict[str, Callable[[], float]] = {
                "bare": lambda sessions=sessions: bare_loop(dsn, sessions, number),
                "our database layer alone": lambda sessions=sessions: through_runner(dsn, sessions, number, False),
                "through Celery, Redis backend": lambda: through_celery(worker, "bench.background", number),
                "through Celery, our backend": lambda: through_celery(with_ours, "bench.background", number),
                "our database layer alone, reuse": lambda sessions=sessions: through_runner(
                    dsn, sessions, number, True
                ),
                "through Celery, Redis backend, reuse": lambda: through_celery(worker, "bench.reused", number),
                "through Celery, our backend, reuse": lambda: through_celery(with_ours, "bench.reused", number),
            }
            for work in works.values():
                work()
            rates = [{what: work() for what, work in works.items()} for _ in range(rounds)]
        bare = [one["bare"] for one in rates]
        yield f"launch + result, bare loop, {sessions} sessions", spread(bare, " /s"), ""
        for what in list(works)[1:]:
            values = [one[what] for one in rates]
            share = statistics.median(value / base for value, base in zip(values, bare, strict=True))
            wanted = "60 %" if "Celery" in what else ""
            yield f"  {what}, {sessions} launchers", f"{spread(values, ' /s')}  = {share:.0%} of bare", wanted


def against_threads(dsn: str, redis_url: str, rounds: int, number: int) -> Iterator[Line]:
    """The same statements on Celery's threads pool with psycopg."""
    with (
        Worker(dsn, redis_url, "custom", 16) as ours,
        Worker(dsn, redis_url, "threads", 16) as threads,
    ):
        for seconds in (0.0, 0.01, 0.1, 1.0):
            count = max(16, min(number, int(48 / max(seconds, 0.05))))
            through_celery(threads, "bench.threaded", 32, seconds)
            compared = [
                [
                    through_celery(threads, "bench.threaded", count, seconds),
                    through_celery(ours, "bench.background", count, seconds),
                    through_celery(ours, "bench.reused", count, seconds),
                ]
                for _ in range(rounds)
            ]
            there, *here = map(list, zip(*compared, strict=True))
            for what, values in zip(("ours", "ours with reuse"), here, strict=True):
                ratio = statistics.median(values) / statistics.median(there)
                said = f"{spread(values, ' /s')} against {spread(there, ' /s')}  = {ratio:.0%}"
                yield f"statements of {seconds * 1000:.0f} ms, {what} against threads + psycopg, -c 16", said, ""


# --- memory -------------------------------------------------------------------------------------------------


def memory(dsn: str, redis_url: str, points: list[tuple[int, float]]) -> Iterator[Line]:
    """The Celery worker's memory with statements in flight; the points are for the picture, in MB."""
    with Worker(dsn, redis_url, "custom", 300) as worker, psycopg.connect(dsn, autocommit=True) as session:
        process = psutil.Process(worker.process.pid)
        points.append((0, process.memory_info().rss / 1e6))
        yield "memory of the idle Celery worker", f"{points[0][1]:.0f} MB", ""
        running: list[Any] = []
        for number in (10, 50, 100, 200, 300):
            task = worker.app.tasks["bench.background"]
            running += [task.delay(600) for _ in range(number - len(running))]
            _until(lambda number=number: _in_flight(session) >= number)
            full = process.memory_full_info()
            points.append((number, full.rss / 1e6))
            wanted = "below 120 MB" if number == 300 else ""
            yield (
                f"  with {number} statements in flight",
                f"{full.rss / 1e6:.0f} MB (PSS {full.pss / 1e6:.0f} MB)",
                wanted,
            )
        worker.app.control.revoke([result.id for result in running], terminate=True)
        _until(lambda: _in_flight(session) == 0)


def _in_flight(session: Any) -> int:
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_background'"
        " AND datname = current_database() AND wait_event = 'PgSleep'"
    )
    return int(session.execute(query).fetchone()[0])


def _until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("a measurement's condition never held")
        time.sleep(0.002)


# --- latencies --------------------------------------------------------------------------------------------------


def latencies(dsn: str, redis_url: str, number: int) -> Iterator[Line]:
    """Revoke to statement gone, and commit to ``get()``."""
    for what, backend in (("Redis backend", ""), ("our backend", f"pgbg+{dsn}")):
        with Worker(dsn, redis_url, "custom", 16, backend=backend) as worker:
            yield f"commit to get(), {what}", percentiles(_commit_to_get(worker, number)), "p50 5 ms"
    with Worker(dsn, redis_url, "custom", 16) as worker, psycopg.connect(dsn, autocommit=True) as session:
        yield "revoke() to statement gone", percentiles(_revoke_to_gone(worker, session, number)), "p99 10 ms"


def _commit_to_get(worker: Worker, number: int) -> list[float]:
    task = worker.app.tasks["bench.committed_at"]
    seconds = []
    for _ in range(number + 5):
        committed = task.delay().get(timeout=60)
        seconds.append(time.time() - committed)
    return seconds[5:]


def _revoke_to_gone(worker: Worker, session: Any, number: int) -> list[float]:
    task = worker.app.tasks["bench.background"]
    seconds = []
    for _ in range(number + 5):
        result = task.delay(600)
        _until(lambda: _in_flight(session) == 1)
        begin = time.monotonic()
        result.revoke(terminate=True)
        while _in_flight(session):
            # Without a pause, the look itself would keep a processor busy.
            time.sleep(0.0005)
        seconds.append(time.monotonic() - begin)
    return seconds[5:]
