"""The runners of this process, by database, and the settings of an app."""

from __future__ import annotations

import os
import threading
from typing import Any

from celery import Celery

from celery_pgbg.censoring import hide_passwords
from celery_pgbg.database.runner import Runner
from celery_pgbg.django_databases import with_dsns
from celery_pgbg.settings import PREFIX, Settings, read_settings

hide_passwords()

_lock = threading.Lock()
_runners: dict[tuple[int, str, str | None], Runner] = {}

#: The Celery worker's name, set by our pool; other processes go by their PID and host.
_nodename: list[str] = []


def settings_of(app: Celery) -> Settings:
    """Read the ``pgbg_*`` settings of an app, once; and again where a Django alias stands for another database.

    Raises:
        ConfigurationError: an unknown setting, or one of the wrong type or out of range.
    """
    configured, values, settings = getattr(app, "_pgbg_settings", (None, None, None))
    if configured is None:
        configured = _configured(app)
    found = with_dsns(configured)
    if settings is None or found != values:
        settings = read_settings(found)
        app._pgbg_settings = (configured, found, settings)
    return settings


def _configured(app: Celery) -> dict[str, Any]:
    """Collect the keys that begin with our prefix, also under a namespace such as ``CELERY_``."""
    namespace = (app.namespace or "").lower() + "_" if app.namespace else ""
    keys = {str(key).lower().removeprefix(namespace) for layer in app.conf.maps for key in layer}
    return {key: app.conf.get(key) for key in sorted(keys) if key.startswith(PREFIX)}


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
