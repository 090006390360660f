"""The same app on two pools: Celery's ``threads`` and ours, each with Python tasks, ours with their SQL twins too."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.apps import parity
from tests.apps.journal import Journal
from tests.fix_celery import Shop
from tests.waiting import DEADLINE, eventually


class TwinShop(Shop):
    """The app of twins."""

    module = parity


@dataclass
class Side:
    """One kind of task on one pool."""

    shop: TwinShop
    kind: str
    journal: Journal
    events: Events

    def task(self, name: str) -> Any:
        """A task of this kind, by the name after the dot."""
        return self.shop.app.tasks[f"{self.kind}.{name}"]

    def name(self, name: str) -> str:
        """The full name of a task."""
        return f"{self.kind}.{name}"

    @property
    def is_sql(self) -> bool:
        """Whether a background worker runs it."""
        return self.kind == "sql"

    def inspect(self) -> Any:
        """Ask the Celery worker."""
        return self.shop.app.control.inspect([self.nodename], timeout=5)

    @property
    def nodename(self) -> str:
        """Name of the one Celery worker."""
        return self.shop.workers[0].nodename

    def control(self, command: str, **arguments: Any) -> Any:
        """Send a control command and return the answer."""
        [reply] = self.shop.app.control.broadcast(
            command, arguments=arguments, destination=[self.nodename], reply=True, timeout=10
        )
        return reply[self.nodename]

    def words_at_end(self, task_id: str, attempt: int = 0) -> list[str]:
        """What happened to an attempt that ran, once all has."""
        eventually("it has ended", lambda: "task_postrun" in self.journal.words(task_id, attempt))
        return self.journal.words(task_id, attempt)


@dataclass
class Events:
    """All events of tasks, received in a thread of its own."""

    shop: Shop
    seen: list[dict[str, Any]] = field(default_factory=list)
    _receiver: Any = None

    def start(self) -> None:
        """Receive from now on."""
        ready = threading.Event()
        connection = self.shop.app.connection_for_read()
        self._receiver = self.shop.app.events.Receiver(connection, handlers={"*": self.seen.append})
        self._receiver.on_consume_ready = lambda *_, **__: ready.set()
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()
        assert ready.wait(DEADLINE)

    def _receive(self) -> None:
        self._receiver.capture(limit=None, timeout=None, wakeup=False)

    def stop(self) -> None:
        """Receive no more."""
        self._receiver.should_stop = True
        self._thread.join(DEADLINE)

    def of(self, task_id: str) -> list[dict[str, Any]]:
        """A task's events, in the order they were received."""
        return [event for event in list(self.seen) if event.get("uuid") == task_id]

    def types(self, task_id: str) -> list[str]:
        """The types of a task's events."""
        return [event["type"] for event in self.of(task_id)]


#: A Celery worker that asks no others when it starts, which takes a second.
ALONE = ("--without-mingle", "--without-gossip")

POOLS = {"threads": "threads", "ours": "celery_pgbg.pool:TaskPool"}


@pytest.fixture(scope="session")
def shops(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str, dsn: str
) -> Iterator[Callable[[str], tuple[TwinShop, Events]]]:
    """The app of twins on either pool, each with one Celery worker that sends events; started when first asked for."""
    made: dict[str, tuple[TwinShop, Events]] = {}

    def get(pool: str) -> tuple[TwinShop, Events]:
        if pool not in made:
            shop = TwinShop(
                tmp_path_factory.mktemp(pool), f"{redis_url}/9", f"{redis_url}/10", pgbg_dsn=dsn,
                worker_pool=POOLS[pool], result_extended=True, journal_url=f"{redis_url}/10",
                accept_content=["json", "yaml"],
                broker_transport_options={"queue_order_strategy": "priority"},
            )  # fmt: skip
            events = Events(shop)
            made[pool] = shop, events
            events.start()
            shop.start_worker(*(["-P", "threads"] if pool == "threads" else []), "-c4", "-E", *ALONE)
        return made[pool]

    yield get
    for shop, events in made.values():
        events.stop()
        shop.close()


OURS = ["ours, Python task", "ours, SQL task"]


@pytest.fixture(params=["threads, Python task", *OURS])
def side(request: pytest.FixtureRequest, shops: Callable[[str], tuple[TwinShop, Events]], redis_url: str) -> Side:
    """Each kind of task on each pool that can run it."""
    pool, kind = request.param.split(", ")
    shop, events = shops(pool)
    return Side(shop, "sql" if kind == "SQL task" else "python", Journal(f"{redis_url}/10", shop.queue), events)


@pytest.fixture
def sql_side(shops: Callable[[str], tuple[TwinShop, Events]], redis_url: str) -> Side:
    """SQL tasks on our pool."""
    shop, events = shops("ours")
    return Side(shop, "sql", Journal(f"{redis_url}/10", shop.queue), events)


@pytest.fixture
def hold(database: Any) -> Iterator[Callable[[], Any]]:
    """Take locks that tasks wait for; ``release`` lets a task go on."""
    keys: list[int] = []

    def take() -> int:
        key = random.getrandbits(60)
        database.execute("SELECT pg_advisory_lock(%s)", [key])
        keys.append(key)
        return key

    yield take
    database.execute("SELECT pg_advisory_unlock_all()")
