"""What an old snapshot and a long queue do to the takes of the broker, beside a database without them."""

from __future__ import annotations

import argparse
import statistics
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psutil
import psycopg
from kombu import Connection, Consumer, Queue
from kombu.asynchronous import Hub
from psycopg import sql

from benchmarks.measures import Line
from celery_pgbg.broker.outlet import together
from celery_pgbg.broker.station import close_stations
from celery_pgbg.database import schema
from celery_pgbg.testing.databases import as_url

#: Of the consumers.
_PREFETCH = 64

#: How often each is measured, in turn.
_ROUNDS = 3

_BODY = "x" * 600


class Taker:
    """A queue, what sends to it, and a consumer in an event loop, as in a Celery worker, which acknowledges all."""

    def __init__(self, dsn: str, queue: str) -> None:
        self.dsn = dsn
        self._connection = Connection(f"pgbg+{dsn}")
        self._hub = Hub()
        self._steps = self._hub.create_loop()
        self.queue = Queue(queue)
        self.queue(self._connection.default_channel).declare()
        self.taken = 0

    def send(self, number: int) -> None:
        """Send so many messages, in few transactions."""
        with self._connection.channel() as channel, together():
            for _ in range(number):
                self._connection.Producer(channel).publish(_BODY, routing_key=self.queue.name, serializer="json")

    @contextmanager
    def consuming(self) -> Iterator[None]:
        """Take and acknowledge, whenever ``run`` is called in this block."""
        self.taken = 0
        self._connection.register_with_event_loop(self._hub)
        with self._connection.channel() as channel:
            channel.basic_qos(0, _PREFETCH, False)
            with Consumer(channel, [self.queue], on_message=self._on_message):
                yield

    def run(self, is_done: Callable[[], bool]) -> None:
        """Let the event loop run until something holds; it is asked at least each second."""
        while not is_done():
            next(self._steps)

    def take(self, number: int) -> tuple[float, float]:
        """Take and acknowledge so many; returns seconds for each, and CPU seconds of the session that took them."""
        with self.consuming():
            session = self._session()
            self.run(lambda: self.taken >= _PREFETCH)
            done, begin, before = self.taken, time.perf_counter(), _cpu(session)
            self.run(lambda: self.taken >= number)
            seconds, cpu = time.perf_counter() - begin, _cpu(session) - before
            return seconds / (self.taken - done), cpu / (self.taken - done)

    def _on_message(self, message: Any) -> None:
        message.ack()
        self.taken += 1

    def _session(self) -> psutil.Process:
        """The server's process that takes."""
        with psycopg.connect(self.dsn) as session:
            [pid] = session.execute("SELECT pid FROM celery_pgbg.consumer ORDER BY id DESC LIMIT 1").fetchone() or [0]
        return psutil.Process(pid)

    def close(self) -> None:
        """End it."""
        self._connection.close()


def queues(dsn: str, seconds: float, rate: int, waiting: int, burst: int) -> Iterator[Line]:
    """Takes under load with a transaction open all the time, and from a queue in which very many messages wait.

    Args:
        dsn: a server; each part has databases of its own there.
        seconds: of load.
        rate: messages a second meanwhile.
        waiting: how many wait in the long queue.
        burst: of so many messages the takes are measured.
    """
    with ExitStack() as stack:
        loaded, beside = (stack.enter_context(_database(dsn)) for _ in range(2))
        stack.callback(close_stations)
        yield from _under_an_old_snapshot(loaded, beside, seconds, rate, burst)
        close_stations()
        yield from _from_a_long_queue(beside, waiting, burst)


def _under_an_old_snapshot(loaded: str, beside: str, seconds: float, rate: int, burst: int) -> Iterator[Line]:
    takers = {"loaded": Taker(loaded, "q"), "beside": Taker(beside, "q")}
    yield _compared("takes before the load", takers["loaded"], takers["beside"], burst)
    empty = _size(loaded)
    with psycopg.connect(loaded) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT 1 FROM pg_class LIMIT 1")
        sent = _load(takers["loaded"], seconds, rate)
        yield f"{rate} messages a second for {seconds:.0f} s", f"{sent / seconds:.0f} /s taken", f"{rate} /s"
        yield _compared(
            "takes after it, the transaction open", takers["loaded"], takers["beside"], burst, "at least 0.8 x"
        )
        full = _size(loaded)
    with psycopg.connect(loaded, autocommit=True) as session:
        session.execute("VACUUM celery_pgbg.message")
    said = f"{empty / 1e6:.1f} MB before, {full / 1e6:.1f} MB under it, {_size(loaded) / 1e6:.1f} MB after a vacuum"
    yield "the table with its indexes", said, "small again"
    yield _compared("takes after the vacuum", takers["loaded"], takers["beside"], burst)
    for taker in takers.values():
        taker.close()


def _from_a_long_queue(dsn: str, waiting: int, burst: int) -> Iterator[Line]:
    long, short = Taker(dsn, "long"), Taker(dsn, "short")
    with psycopg.connect(dsn, autocommit=True) as session:
        # As copies of one that was really sent.
        long.send(1)
        columns = "queue_id, priority, envelope, body"
        query = "INSERT INTO celery_pgbg.message ({0}) SELECT {0} FROM celery_pgbg.message, generate_series(2, %s)"
        session.execute(sql.SQL(query).format(sql.SQL(columns)), [waiting])
        session.execute("VACUUM ANALYZE celery_pgbg.message")
    yield _compared(f"takes with {waiting} waiting, against few", long, short, burst, "1 x", refill=False)
    long.close()
    short.close()


def _compared(what: str, measured: Taker, base: Taker, burst: int, wanted: str = "", refill: bool = True) -> Line:
    """How fast takes are, as ratios to those of another, in turn; unless it is to be refilled, the first has enough."""
    found: dict[Taker, list[tuple[float, float]]] = {measured: [], base: []}
    for _ in range(_ROUNDS):
        for taker, costs in found.items():
            if refill or taker is base:
                taker.send(burst + _PREFETCH)
            costs.append(taker.take(burst))
    ratios = [b[0] / m[0] for m, b in zip(found[measured], found[base], strict=True)]
    seconds, cpu = (statistics.median(costs) for costs in zip(*found[measured], strict=True))
    base_cpu = statistics.median(cost for _, cost in found[base])
    said = (
        f"{1 / seconds:.0f} /s = {statistics.median(ratios):.2f} x the rate beside "
        f"({min(ratios):.2f} - {max(ratios):.2f}); {cpu * 1e6:.0f} us of the server's CPU = {cpu / base_cpu:.2f} x"
    )
    return what, said, wanted


def _load(taker: Taker, seconds: float, rate: int) -> int:
    """Send at a steady rate and take all of it; returns how many were taken in that time."""
    begin = time.monotonic()
    sent = 0

    def send() -> None:
        nonlocal sent
        while (passed := time.monotonic() - begin) < seconds:
            due = int(passed * rate) - sent
            taker.send(due)
            sent += due
            time.sleep(0.02)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        with taker.consuming():
            taker.run(lambda: time.monotonic() - begin >= seconds)
            in_time = taker.taken
            sender.join()
            taker.run(lambda: taker.taken >= sent)
    finally:
        sender.join()
    return in_time


def _size(dsn: str) -> int:
    with psycopg.connect(dsn) as session:
        [size] = session.execute("SELECT pg_total_relation_size('celery_pgbg.message')").fetchone() or [0]
    return int(size)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def _database(dsn: str) -> Iterator[str]:
    """A database with our schema."""
    name = f"queues_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    made = as_url(dsn, dbname=name)
    try:
        with psycopg.connect(made, autocommit=True) as session:
            schema.install(session)
        yield made
    finally:
        close_stations()
        with psycopg.connect(dsn, autocommit=True) as session:
            session.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def main() -> None:
    """Measure with the figures that are given, and print each line as it is found."""
    from benchmarks.servers import database

    parser = argparse.ArgumentParser(prog="python -m benchmarks.queues", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--waiting", type=int, default=1_000_000)
    parser.add_argument("--burst", type=int, default=8_000)
    options = parser.parse_args()
    with database() as dsn:
        for what, measured, wanted in queues(dsn, options.seconds, options.rate, options.waiting, options.burst):
            print(f"{what}: {measured}" + (f" (wanted: {wanted})" if wanted else ""), flush=True)


if __name__ == "__main__":
    main()
