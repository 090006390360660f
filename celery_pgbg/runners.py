"""The runners of this process, by database, and the settings of an app."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Protocol

from celery import Celery

from celery_pgbg.database.runner import Runner
from celery_pgbg.orders import Order, Watch
from celery_pgbg.outcomes import Ending
from celery_pgbg.settings import PREFIX, Settings, read_settings

_lock = threading.Lock()
_runners: dict[tuple[int, str, str | None], Runner] = {}


class StatementRunner(Protocol):
    """What takes an order to its end: a ``Runner``, or in tests its stand-in."""

    def run(self, order: Order, watch: Watch) -> Ending:
        """Run an order in the calling thread, which waits."""


#: In tests, what finds the stand-in for the runner of a database alias; see ``celery_pgbg.testing.inline``.
stand_ins: list[Callable[[str | None], StatementRunner]] = []

#: The Celery worker's name, set by our pool; other processes go by their PID and host.
_nodename: list[str] = []


def settings_of(app: Celery) -> Settings:
    """Read the ``pgbg_*`` settings of an app, once.

    Raises:
        ConfigurationError: an unknown setting, or one of the wrong type or out of range.
    """
    found: Settings | None = getattr(app, "_pgbg_settings", None)
    if found is None:
        found = read_settings(_configured(app))
        app._pgbg_settings = found
    return found


def _configured(app: Celery) -> dict[str, Any]:
    """Collect the keys that begin with our prefix, also under a namespace such as ``CELERY_``."""
    namespace = (app.namespace or "").lower() + "_" if app.namespace else ""
    keys = {str(key).lower().removeprefix(namespace) for layer in app.conf.maps for key in layer}
    return {key: app.conf.get(key) for key in sorted(keys) if key.startswith(PREFIX)}


def forget_settings(app: Celery) -> None:
    """Let the settings be read again, after a change of the app's configuration."""
    app._pgbg_settings = None


def statement_runner_of(app: Celery, alias: str | None = None) -> StatementRunner:
    """Find what runs the statements of tasks with this database alias: the runner, unless a test stands in for it.

    Raises:
        ConfigurationError: no such alias, or no ``pgbg_dsn``.
    """
    return stand_ins[-1](alias) if stand_ins else runner_of(app, alias)


def runner_of(app: Celery, alias: str | None = None) -> Runner:
    """Find or make this process's runner for a database alias.

    A process that was forked makes its own: sessions are never shared across a fork.

    Raises:
        ConfigurationError: no such alias, or no ``pgbg_dsn``.
    """
    settings = settings_of(app)
    dsn = settings.dsn_of(alias)
    nodename = _nodename[-1] if _nodename else None
    with _lock:
        key = (os.getpid(), dsn, nodename)
        if key not in _runners:
            _runners[key] = Runner(dsn, settings, nodename)
        return _runners[key]


def name_this_worker(nodename: str) -> None:
    """Say which Celery worker this process is, for ``pg_stat_activity`` and the records."""
    _nodename.append(nodename)


def runners() -> list[Runner]:
    """List the runners this process has made."""
    with _lock:
        return [runner for (pid, _, _), runner in _runners.items() if pid == os.getpid()]


def close_runners() -> None:
    """End the sessions and threads of this process's runners. Statements run on."""
    ours = runners()
    with _lock:
        for key in [key for key, runner in _runners.items() if runner in ours]:
            del _runners[key]
    for runner in ours:
        runner.close()
