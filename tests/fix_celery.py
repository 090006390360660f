"""Celery apps and real Celery workers, which are really killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import Celery
from redis import Redis

from tests.apps import shop as shop_module
from tests.waiting import eventually

PROJECT = Path(__file__).parent.parent

_FAILED = pytest.StashKey[bool]()


class CeleryWorker:
    """One ``celery worker`` process of a test app."""

    def __init__(self, module: str, name: str, log: Path, arguments: list[str], environment: dict[str, str]) -> None:
        self.nodename = f"{name}@test"
        self.log = log
        command = [sys.executable, "-m", "celery", "-A", module, "worker", "-n", self.nodename]
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [*command, "-l", "INFO", *arguments],
                env={**os.environ, **environment},
                cwd=PROJECT,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def text(self) -> str:
        """What it has logged."""
        return self.log.read_text(errors="replace")

    def wait_ready(self) -> None:
        """Wait until it consumes."""

        def ready() -> bool:
            assert self.process.poll() is None, self.text()
            return f"{self.nodename} ready" in self.text()

        eventually(f"{self.nodename} is ready", ready)

    def send(self, signum: int) -> None:
        """Send it a signal."""
        self.process.send_signal(signum)

    def cry(self) -> None:
        """Let it log the stacks of its threads, if it still can."""
        if self.process.poll() is None:
            self.send(signal.SIGUSR1)
            with contextlib.suppress(AssertionError):
                eventually("it has cried", lambda: "\n====" in self.text(), 5)

    def kill(self) -> None:
        """Kill it and its children, as a crash would."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Stop it with a warm shutdown; returns its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.wait()

    def wait(self, seconds: float = 60) -> int:
        """Wait for its end; returns its exit code."""
        return self.process.wait(seconds)


class Shop:
    """A test app, and the starting of Celery workers for it."""

    module: ModuleType = shop_module

    def __init__(self, directory: Path, broker: str, backend: str, **settings: Any) -> None:
        self.queue = f"pgbg-test-{uuid.uuid4().hex[:12]}"
        self._arguments = {"broker": broker, "backend": backend, "queue": self.queue, **settings}
        self.app: Celery = self.module.make_app(**self._arguments)
        self._directory = directory
        self.workers: list[CeleryWorker] = []

    def start_worker(self, *arguments: str, **settings: Any) -> CeleryWorker:
        """Start a Celery worker and wait until it is ready; settings differ from the client's if given."""
        worker = self.launch_worker(*arguments, **settings)
        worker.wait_ready()
        return worker

    def launch_worker(self, *arguments: str, number: int | None = None, **settings: Any) -> CeleryWorker:
        """Start a Celery worker without waiting; with the name of an earlier one if its number is given."""
        name = f"w{len(self.workers) if number is None else number}-{self.queue[-6:]}"
        environment = self.environment(**settings)
        if not any(argument.startswith("-c") for argument in arguments):
            arguments = ("-c8", *arguments)
        log = self._directory / f"{len(self.workers)}-{name}.log"
        worker = CeleryWorker(self.module.__name__, name, log, list(arguments), environment)
        self.workers.append(worker)
        return worker

    def environment(self, **settings: Any) -> dict[str, str]:
        """What a process needs in its environment to make the same app; other settings if given."""
        return {"PGBG_TEST_APP": json.dumps({**self._arguments, **settings})}

    def task(self, name: str) -> Any:
        """One of the app's tasks, by the name after ``shop.``."""
        return self.app.tasks[f"shop.{name}"]

    def active(self, task_id: str) -> dict[str, Any] | None:
        """What ``inspect active`` says of a task, None while it is not active."""
        nodes = [worker.nodename for worker in self.workers if worker.process.poll() is None]
        replies = self.app.control.inspect(destination=nodes, timeout=2).active() or {}
        return next((entry for entries in replies.values() for entry in entries if entry["id"] == task_id), None)

    def wait_active(self, result: Any) -> dict[str, Any]:
        """Wait until a task is accepted, and return its ``inspect active`` entry."""
        entry: dict[str, Any] = eventually(f"{result.id} is active", lambda: self.active(result.id))
        return entry

    def close(self) -> None:
        """Kill what still runs, and delete the queue, which a RabbitMQ would keep for ever."""
        for worker in self.workers:
            worker.kill()
        if self._arguments["broker"].startswith("amqp"):
            with contextlib.suppress(Exception), self.app.connection_for_write() as connection:
                connection.default_channel.queue_delete(self.queue)
        # Celery leaves its sockets open until they are garbage, which is a warning.
        client = getattr(self.app.backend, "client", None)
        if isinstance(client, Redis):
            self.app.backend.result_consumer.stop()
            client.connection_pool.disconnect()
        self.app.close()


@pytest.fixture
def new_shop(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Shop]]:
    """Make apps; their Celery workers are gone at the end, and their logs shown if the test failed."""
    made: list[Shop] = []

    def make(broker: str, backend: str, **settings: Any) -> Shop:
        shop = Shop(tmp_path, broker, backend, **settings)
        made.append(shop)
        return shop

    yield make
    for shop in made:
        if request.node.stash.get(_FAILED, False):
            for worker in shop.workers:
                worker.cry()
        shop.close()
        for worker in shop.workers:
            print(f"--- {worker.nodename}\n{worker.text()[-12000:]}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note that a test failed, for its fixtures."""
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, redis_url: str, dsn: str) -> Iterator[Shop]:
    """The app on Redis with one Celery worker of our pool, shared by a module's tests."""
    made = Shop(tmp_path_factory.mktemp("shop"), f"{redis_url}/9", f"{redis_url}/10", pgbg_dsn=dsn)
    made.start_worker()
    yield made
    made.close()
