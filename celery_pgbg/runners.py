"""The runners of this process, by database, and the settings of an app."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import replace
from typing import Any

from billiard.process import current_process
from celery import Celery
from psycopg import waiting

from celery_pgbg.database.runner import Runner
from celery_pgbg.errors import ConfigurationError
from celery_pgbg.settings import PREFIX, Settings, read_settings

_lock = threading.Lock()
_runners: dict[tuple[int, str, str | None], Runner] = {}

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


def runner_of(app: Celery, alias: str | None = None) -> Runner:
    """Find or make this process's runner for a database alias.

    A process that was forked makes its own: sessions are never shared across a fork.

    Raises:
        ConfigurationError: no such alias, no ``pgbg_dsn``, or eventlet without a psycopg that yields to it.
    """
    _check_cooperation()
    settings = settings_of(app)
    dsn = settings.dsn_of(alias)
    nodename = _nodename[-1] if _nodename else None
    with _lock:
        key = (os.getpid(), dsn, nodename)
        if key not in _runners:
            if current_process().name != "MainProcess":
                # A child of prefork runs one task at a time.
                settings = replace(settings, launchers=1)
            _runners[key] = Runner(dsn, settings, nodename)
        return _runners[key]


def _check_cooperation() -> None:
    """Refuse what would stop every greenlet for good. psycopg yields to gevent by itself, to eventlet if told."""
    patcher = sys.modules.get("eventlet.patcher")
    if patcher and patcher.is_monkey_patched("select") and waiting.wait is not waiting.wait_selector:
        raise ConfigurationError(
            "psycopg does not yield to eventlet by itself: start the Celery worker with "
            "PSYCOPG_WAIT_FUNC=wait_selector in its environment"
        )


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


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


# A thread that does not live on in the child may hold it.
os.register_at_fork(after_in_child=_renew_lock)
