"""The same tasks over each broker: CPU time for each task, by process, and rates, interleaved."""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import psutil
import psycopg
from celery import group

from benchmarks.cpu import Meter
from benchmarks.measures import Line, percentiles
from benchmarks.servers import Worker, rabbitmq
from celery_pgbg.database import schema

#: Messages to each broker, one at a time; fewer to one that polls each second.
_SINGLE, _SINGLE_POLLED = 200, 20

#: How long an idle Celery worker is watched, in seconds.
_IDLE_SECONDS = 30.0

#: The last statement of each session, and when it began.
_LAST_STATEMENTS = """
    SELECT pid, query_start FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""

#: A task that does nothing, and a statement in a background worker that is kept.
_TASKS = {"a task that does nothing": "bench.nothing", "a SQL task, reuse": "bench.insert_reused"}


def brokers(dsn: str, redis_url: str, rounds: int, number: int) -> Iterator[Line]:
    """A group of tasks, from its sending until all results are in Redis."""
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("CREATE TABLE IF NOT EXISTS bench_effect (id bigint GENERATED ALWAYS AS IDENTITY, v text)")
    with ExitStack() as stack:
        urls = {
            "pgbg": f"pgbg+{dsn}",
            "Redis": f"{redis_url}/13",
            "RabbitMQ": stack.enter_context(rabbitmq()),
            "kombu's sqlalchemy": "sqla+" + dsn.replace("postgresql:", "postgresql+psycopg:"),
        }
        workers = {
            name: stack.enter_context(Worker(dsn, redis_url, "custom", 16, broker=url)) for name, url in urls.items()
        }
        found: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for turn in range(rounds + 1):
            for what, task in _TASKS.items():
                for name, worker in workers.items():
                    measured = _once(dsn, redis_url, worker, task, number)
                    if turn:
                        found.setdefault((what, name), []).append(measured)
        for name, worker in workers.items():
            wanted = "p50 5 ms" if name == "pgbg" else ""
            number_of_single = _SINGLE_POLLED if name == "kombu's sqlalchemy" else _SINGLE
            yield f"delay() to the task's begin, over {name}", percentiles(_to_begin(worker, number_of_single)), wanted
    yield "an idle Celery worker on pgbg", f"{_idle_statements(dsn):.2f} statements/s", "below 1"
    for what in _TASKS:
        base = statistics.median(cpu for cpu, _ in found[what, "Redis"])
        for name in urls:
            cpu, rate = (statistics.median(values) for values in zip(*found[what, name], strict=True))
            wanted = "at most Redis" if name == "pgbg" else ""
            yield f"{what}, over {name}", f"{cpu:.2f} ms CPU = {cpu / base:.2f} x Redis, {rate:.0f} /s", wanted


def _to_begin(worker: Worker, number: int) -> list[float]:
    """Seconds from the sending of a task to its begin, of tasks that are sent one at a time."""
    seconds = []
    for _ in range(number + 5):
        sent = time.time()
        seconds.append(worker.app.tasks["bench.arrived"].delay().get(timeout=60) - sent)
    return seconds[5:]


def _idle_statements(dsn: str) -> float:
    """Statements a second of a Celery worker without tasks, in a database of its own, with heartbeats."""
    name = f"idle_{uuid.uuid4().hex[:8]}"
    own = dsn.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute(f"CREATE DATABASE {name}".encode())
        try:
            with psycopg.connect(own, autocommit=True) as looker:
                schema.install(looker)
                with Worker(own, "", "custom", 2, backend=f"pgbg+{own}", broker=f"pgbg+{own}"):
                    time.sleep(5)
                    first = seen = set(looker.execute(_LAST_STATEMENTS).fetchall())
                    started = time.monotonic()
                    while time.monotonic() < started + _IDLE_SECONDS:
                        seen = seen | set(looker.execute(_LAST_STATEMENTS).fetchall())
                        time.sleep(0.002)
                    return len(seen - first) / (time.monotonic() - started)
        finally:
            session.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def _once(dsn: str, redis_url: str, worker: Worker, task: str, number: int) -> tuple[float, float]:
    """Milliseconds of CPU for each task, of all processes, and tasks a second."""
    meter = Meter(dsn, redis_url, worker)
    rabbits = [process for process in psutil.process_iter(["name"]) if process.info["name"] == "beam.smp"]
    before, started = _seconds(rabbits), time.perf_counter()

    def work() -> None:
        group(worker.app.tasks[task].s() for _ in range(number)).apply_async().get(timeout=300)

    cost = meter.cost(number, work)
    seconds = time.perf_counter() - started
    return sum(cost.values()) + (_seconds(rabbits) - before) / number * 1000, number / seconds


def _seconds(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total
