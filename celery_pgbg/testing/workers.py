"""Celery workers for tests: in a thread of this process, or processes that can be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery_pgbg.testing.apps import POOL
from celery_pgbg.testing.waiting import DEADLINE, wait_until

if TYPE_CHECKING:
    from celery import Celery

_CONCURRENCY = 8
_PAUSE = 0.05

#: Without mingle, a Celery worker is ready a second earlier.
_OPTIONS = ("--without-mingle", "--without-gossip")


@contextmanager
def worker_thread(app: Celery, includes: Sequence[str] = (), **parameters: Any) -> Iterator[Any]:
    """Run a Celery worker with our pool in a thread of this process, until the end of the block.

    Args:
        app: whose tasks it runs; its broker may be ``memory://``.
        includes: modules with tasks, imported before.
        parameters: of ``celery.contrib.testing.worker.start_worker``.
    """
    from celery.contrib.testing.worker import start_worker

    for module in includes:
        app.loader.import_task_module(module)
    defaults = {"pool": POOL, "concurrency": _CONCURRENCY, "perform_ping_check": False}
    ended = threading.Event()
    waker: threading.Thread | None = None
    try:
        with start_worker(app, **{**defaults, **parameters}) as worker:
            waker = threading.Thread(target=_keep_awake, args=(app, worker.hostname, ended), daemon=True)
            try:
                yield worker
            finally:
                waker.start()
    finally:
        ended.set()
        if waker is not None:
            waker.join()


def _keep_awake(app: Celery, nodename: str, ended: threading.Event) -> None:
    """A Celery worker in a thread notices its end only after its next message, or after some seconds."""
    while not ended.wait(_PAUSE):
        app.control.broadcast("heartbeat", destination=[nodename])


class WorkerProcess:
    """One ``celery worker`` process with our pool and the configuration of an app in this process.

    Args:
        app: its configuration is handed over, as far as JSON can hold it; its broker must be one that
            processes share.
        log: the file it logs to.
        name: what ``celery -A`` takes. None: an app with the modules of ``include``.
        include: modules with tasks.
        arguments: further ones for ``celery worker``, such as ``-c 4``.

    Raises:
        ValueError: the app's broker is in memory, or there is no app and no module.
    """

    def __init__(
        self,
        app: Celery,
        log: Path,
        name: str | None = None,
        include: Sequence[str] = (),
        arguments: Sequence[str] = (),
    ) -> None:
        if str(app.conf.broker_url).startswith("memory"):
            raise ValueError(
                "the broker memory:// lives in this process only: set broker_url, for example to pgbg_broker"
            )
        if not name and not include:
            raise ValueError("a Celery worker process needs to know its app, or the modules that define its tasks")
        self.nodename = f"test-{uuid.uuid4().hex[:8]}@localhost"
        self._log = log
        given = {"app": name, "main": app.main, "include": list(include), "settings": _portable(app)}
        command = [sys.executable, "-m", "celery", "-A", "celery_pgbg.testing.worker_app", "worker"]
        with log.open("w") as file:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                [*command, *_OPTIONS, "-n", self.nodename, "-l", "INFO", "-c", str(_CONCURRENCY), *arguments],
                env={**os.environ, "PGBG_TESTING": json.dumps(given), "PYTHONPATH": os.pathsep.join(sys.path)},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text(errors="replace")

    def wait_ready(self, timeout: float = DEADLINE) -> None:
        """Wait until the Celery worker consumes.

        Raises:
            AssertionError: it has ended, or not in time; the message has its log.
        """
        try:
            wait_until(f"{self.nodename} is ready", self._is_ready, timeout)
        except AssertionError as exc:
            raise AssertionError(f"{exc}; its log:\n{self.log()}") from None

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, f"{self.nodename} has ended with exit code {self.process.returncode}"
        return f"{self.nodename} ready" in self.log()

    def kill(self) -> None:
        """Kill it as a crash would, without a chance to give anything back. Its statements run on."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, timeout: float = DEADLINE) -> int:
        """Shut it down warm; returns its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout)


def _portable(app: Celery) -> dict[str, Any]:
    """What is configured and can be written as JSON; the rest is for the app's own module to configure."""
    settings = {}
    for key, value in app.conf.table(with_defaults=False, censored=False).items():
        try:
            settings[key] = json.loads(json.dumps(value))
        except TypeError:
            continue
    return settings
