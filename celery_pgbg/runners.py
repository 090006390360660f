"""The runners of this process, by database."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from billiard.process import current_process
from celery import Celery

from celery_pgbg.configuration import settings_of
from celery_pgbg.database.greenlets import ADVICE, blocks_greenlets
from celery_pgbg.errors import ConfigurationError
from celery_pgbg.execution.runner import Runner
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import Ending
from celery_pgbg.settings import Settings
from celery_pgbg.watch import Watch

_lock = threading.Lock()
_runners: dict[tuple[int, str, str | None], Runner] = {}

#: How many statements each runner is busy with.
_in_use: Counter[Runner] = Counter()


class StatementRunner(Protocol):
    """Takes an order to its end: a ``Runner``, or its stand-in in tests."""

    def run(self, order: Order, watch: Watch) -> Ending:
        """Run an order in the calling thread, which waits."""


#: In tests: functions that return the stand-in for the runner of a database alias; see ``celery_pgbg.testing.inline``.
stand_ins: list[Callable[[str | None], StatementRunner]] = []

#: The Celery worker's name, set by our pool; other processes are named by PID and host.
_nodename: list[str] = []


def runner_of(app: Celery, alias: str | None = None) -> Runner:
    """Find or make this process's runner for a database alias.

    A forked process makes its own runner, because sessions are never shared across a fork.

    Raises:
        ConfigurationError: no such alias, no ``pgbg_dsn``, or eventlet without a psycopg that yields to it.
    """
    settings = settings_of(app)
    with _lock:
        return _find_or_make(settings, settings.dsn_of(alias))


@contextmanager
def borrowed_runner(app: Celery, alias: str | None = None) -> Iterator[StatementRunner]:
    """Lend this process's runner for a database alias, unless a test stands in for it.

    While it is lent, ``close_runners`` does not end it.

    Raises:
        ConfigurationError: as ``runner_of``.
    """
    if stand_ins:
        yield stand_ins[-1](alias)
        return
    settings = settings_of(app)
    dsn = settings.dsn_of(alias)
    with _lock:
        runner = _find_or_make(settings, dsn)
        _in_use[runner] += 1
    try:
        yield runner
    finally:
        with _lock:
            _in_use[runner] -= 1
            was_given_up = not _in_use[runner] and runner not in _runners.values()
            if not _in_use[runner]:
                del _in_use[runner]
        if was_given_up:
            runner.close()


def _find_or_make(settings: Settings, dsn: str) -> Runner:
    nodename = _nodename[-1] if _nodename else None
    key = (os.getpid(), dsn, nodename)
    if key not in _runners:
        _check_cooperation()
        if current_process().name != "MainProcess":
            # A child of prefork runs one task at a time.
            settings = replace(settings, launchers=1)
        _runners[key] = Runner(dsn, settings, nodename)
    return _runners[key]


def _check_cooperation() -> None:
    """Refuse a configuration that would block every greenlet for ever."""
    if blocks_greenlets():
        raise ConfigurationError(ADVICE)


def name_this_worker(nodename: str) -> None:
    """Set the Celery worker's name of this process, for ``pg_stat_activity`` and the records."""
    _nodename.append(nodename)


def unname_this_worker(nodename: str) -> None:
    """Remove that name from this process."""
    if nodename in _nodename:
        _nodename.remove(nodename)


def runners() -> list[Runner]:
    """List the runners this process has made."""
    with _lock:
        return [runner for (pid, _, _), runner in _runners.items() if pid == os.getpid()]


def close_runners(at_once: bool = False) -> None:
    """End the sessions and threads of this process's runners.

    Statements run on. The next call for a runner makes another.

    Args:
        at_once: also end lent runners; their borrowers lose their sessions. Otherwise a lent runner ends when its last
            borrower has returned it.
    """
    with _lock:
        ours = {key: runner for key, runner in _runners.items() if key[0] == os.getpid()}
        for key in ours:
            del _runners[key]
        ending = [runner for runner in ours.values() if at_once or not _in_use[runner]]
    for runner in ending:
        runner.close()


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


# A thread that does not exist in the child may hold the lock.
os.register_at_fork(after_in_child=_renew_lock)
