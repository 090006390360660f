"""The load: client threads that send tasks of many kinds, wait for each, and keep a book of their effects."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

from celery import chord, states
from celery.exceptions import TimeoutError as CeleryTimeout

from tests.fix_celery import Shop

#: How long a task may take at most, in seconds: Celery workers are killed and started again meanwhile.
_PATIENCE = 120.0

#: A day, far beyond any run: what such a limit holds must go when its task has ended.
_LONG_LIMIT = 86_400


class Load:
    """Sends tasks until told to stop.

    Args:
        shop: the app.
        table: where effects go, one row for each, with a value of its own.
        safe_queue: of the Celery worker that is not killed, for what is acknowledged early.
        seed: of the random choices.
    """

    def __init__(self, shop: Shop, table: str, safe_queue: str, seed: int) -> None:
        self._shop = shop
        self._table = table
        self._safe_queue = safe_queue
        self._random = random.Random(seed)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        #: By value: the effects that must be there, and those that must not, with what tells of their tasks.
        self.expected: dict[str, str] = {}
        self.unwanted: dict[str, str] = {}
        self._kinds: list[tuple[int, Callable[[str], str]]] = [
            (10, self._fast), (6, self._reusing), (4, self._slow), (3, self._failing), (3, self._revoked),
            (1, self._out_of_time), (1, self._alone), (4, self._python), (2, self._chord), (3, self._sent_twice),
            (1, self._large),
        ]  # fmt: skip

    def start(self, clients: int) -> None:
        """Begin, with so many threads."""
        self._threads = [threading.Thread(target=self._run, name=f"client-{number}") for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Send nothing more, and wait for what was sent."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        weights = [weight for weight, _ in self._kinds]
        while not self._stopping.is_set():
            with self._lock:
                [(_, kind)] = self._random.choices(self._kinds, weights)
            value = uuid.uuid4().hex
            try:
                ended = kind(value)
            except CeleryTimeout:
                ended = "no end"
                self.wrong.append(f"{kind.__name__} {value} has not ended")
            with self._lock:
                self.counts[f"{kind.__name__.strip('_')}: {ended}"] += 1

    # --- kinds of tasks ----------------------------------------------------------------------------

    def _task(self, name: str) -> Any:
        return self._shop.task(name)

    def _end(self, result: Any, value: str, *allowed: str) -> str:
        """Wait for an end; its effect must be there for SUCCESS, and else not."""
        got = result.get(timeout=_PATIENCE, propagate=False)
        state = states.SUCCESS if not isinstance(got, BaseException) else result.state
        if state == states.REVOKED:
            # A Celery worker that does not have it says so at once; the one that has it may say otherwise.
            time.sleep(2)
            state = self._shop.app.AsyncResult(result.id).state
        if state not in allowed:
            self.wrong.append(f"{result.id} is {state}: {got!r}")
        with self._lock:
            (self.expected if state == states.SUCCESS else self.unwanted)[value] = f"{result.id} {state} {got!r}"
            forgotten = self._random.random() < 0.3
        if forgotten:
            result.forget()
        return str(state)

    def _fast(self, value: str) -> str:
        result = self._task("insert").apply_async((self._table, value), time_limit=_LONG_LIMIT)
        return self._end(result, value, states.SUCCESS)

    def _reusing(self, value: str) -> str:
        """In a background worker that may have run another task before."""
        return self._end(self._task("audit").delay(self._table, value), value, states.SUCCESS)

    def _slow(self, value: str) -> str:
        return self._end(self._task("insert").delay(self._table, value, 0.5), value, states.SUCCESS)

    def _failing(self, value: str) -> str:
        text = f"INSERT INTO {self._table} VALUES ('{value}'); SELECT 1 / 0"
        return self._end(self._task("statement").delay(text), value, states.FAILURE)

    def _revoked(self, value: str) -> str:
        """At any moment of its short life."""
        result = self._task("insert").delay(self._table, value, 0.2)
        self._stopping.wait(self._random.random() * 0.3)
        result.revoke(terminate=True)
        return self._end(result, value, states.SUCCESS, states.REVOKED)

    def _out_of_time(self, value: str) -> str:
        result = self._task("insert").apply_async((self._table, value, 60), time_limit=0.3)
        return self._end(result, value, states.FAILURE)

    def _alone(self, value: str) -> str:
        """Its background worker may be ended by hand while it runs: nobody knows then how far it came."""
        result = self._task("statement_alone").apply_async((f"ANALYZE {self._table}",), queue=self._safe_queue)
        got = result.get(timeout=_PATIENCE, propagate=False)
        return type(got).__name__

    def _python(self, value: str) -> str:
        result = self._task("double").apply_async((21,), queue=self._safe_queue)
        if (got := result.get(timeout=_PATIENCE)) != 42:
            self.wrong.append(f"{result.id} is {got!r}")
        return str(states.SUCCESS)

    def _chord(self, value: str) -> str:
        values = [f"{value} {number}" for number in range(4)]
        header = [self._task("insert").si(self._table, one) for one in values]
        result = chord(header, self._task("double").s().set(queue=self._safe_queue)).delay()
        if (got := result.get(timeout=_PATIENCE)) != [1] * 8:
            self.wrong.append(f"chord {result.id} is {got!r}")
        with self._lock:
            self.expected.update(dict.fromkeys(values, f"chord {result.id}"))
        return str(states.SUCCESS)

    def _sent_twice(self, value: str) -> str:
        task_id = str(uuid.uuid4())
        sent = [
            self._task("insert").apply_async((self._table, value, 0.05), task_id=task_id, soft_time_limit=_LONG_LIMIT)
            for _ in range(2)
        ]
        return self._end(sent[0], value, states.SUCCESS)

    def _large(self, value: str) -> str:
        result = self._task("large").delay(300_000)
        if len(got := result.get(timeout=_PATIENCE)) != 300_000:
            self.wrong.append(f"{result.id} has {len(got)} characters")
        return str(states.SUCCESS)


class Accidents:
    """Ends sessions and background workers, and kills one of two Celery workers, again and again.

    Args:
        shop: the app, whose last Celery worker is killed.
        database: a session of its own.
        seconds: between two accidents.
        seconds_between_kills: of the Celery worker.
        seed: of the random choices.
    """

    def __init__(self, shop: Shop, database: Any, seconds: float, seconds_between_kills: float, seed: int) -> None:
        self._shop = shop
        self._database = database
        self._seconds = seconds
        self._rounds_between_kills = max(1, round(seconds_between_kills / seconds))
        self._random = random.Random(seed)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="accidents")
        self.counts: Counter[str] = Counter()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, with a live Celery worker."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        rounds = 0
        while not self._stopping.wait(self._seconds):
            rounds += 1
            if rounds % self._rounds_between_kills == 0:
                self._shop.workers[-1].kill()
                self._shop.start_worker("-c8")
                self.counts["Celery workers killed"] += 1
            else:
                name, condition = self._random.choice(
                    [
                        ("sessions ended", "application_name LIKE 'pgbg launcher%'"),
                        ("sessions ended", "application_name LIKE 'pgbg listener%'"),
                        ("sessions ended", "application_name LIKE 'pgbg results%'"),
                        ("background workers ended", "backend_type = 'pg_background'"),
                    ]
                )
                # What somebody else ends has failed, and is not run again. The record of a task in a reusable
                # background worker may not have the PID yet; while its row is locked, no other task is taken.
                query = (
                    f"WITH one AS MATERIALIZED (SELECT pid FROM pg_stat_activity WHERE {condition}"
                    " AND datname = current_database() ORDER BY random() LIMIT 1), taken AS ("
                    "UPDATE celery_pgbg.bgworker SET is_stopped = true WHERE pid = (SELECT pid FROM one)"
                    " RETURNING task_id, attempt), marked AS ("
                    "UPDATE celery_pgbg.execution SET terminated_at = now() WHERE pid = (SELECT pid FROM one)"
                    " OR (task_id, attempt) IN (SELECT task_id, attempt FROM taken) RETURNING task_id)"
                    " SELECT pg_terminate_backend(pid) FROM one WHERE (SELECT count(*) FROM marked) >= 0"
                )
                self.counts[name] += len(self._database.execute(query).fetchall())
