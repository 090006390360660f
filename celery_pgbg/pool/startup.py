"""Log lines of our starting pool: how the limits fit together, wrong settings, settings without a meaning."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
from celery import Celery

from celery_pgbg.configuration import settings_of
from celery_pgbg.errors import ConfigurationError, SessionLost
from celery_pgbg.runners import runner_of
from celery_pgbg.settings import Settings
from celery_pgbg.tasks.task import SQLTask

logger = logging.getLogger("celery_pgbg.pool")

#: Settings about processes of Celery's own pools, by the option names that pools receive.
_OF_PROCESSES = {"maxtasksperchild": "max_tasks_per_child", "max_memory_per_child": "max_memory_per_child"}
_NO_PROCESSES = "each SQL task has a new process in the server, and Python tasks run in threads"

#: kombu's default for Redis, in seconds.
_VISIBILITY_TIMEOUT = 3600

#: Seconds between two checks for lost messages.
_RESTORE_SECONDS = 10


def warn_of_meaningless(options: Mapping[str, Any]) -> None:
    """Name the settings that have no meaning in our pool."""
    for name, setting in _OF_PROCESSES.items():
        if options.get(name):
            logger.warning("worker_%s has no meaning in this pool: %s", setting, _NO_PROCESSES)


def leave_modules_uncollected() -> None:
    """Exempt what is loaded from full garbage collections. Each stops all threads for up to 0.1 s.

    What is no longer referred to is still freed at once. See docs/decisions/102-*.md.
    """
    gc.collect()
    gc.freeze()


def look_often_for_lost_messages(app: Celery) -> None:
    """Check Redis every few seconds for messages of dead Celery workers, unless the options are set.

    By default kombu checks every hundred seconds, so after a SIGKILL tasks wait that long. Before 5.7 kombu has no
    option for that.
    """
    with app.connection_for_read() as connection:
        if connection.get_transport_cls().driver_type != "redis":
            return
    options = dict(app.conf.broker_transport_options or {})
    timeout = options.get("visibility_timeout") or _VISIBILITY_TIMEOUT
    options.setdefault("unacked_restore_throttle", 1)
    options.setdefault("unacked_restore_interval", min(_RESTORE_SECONDS, max(1, timeout // 4)))
    app.conf.broker_transport_options = options


def check_databases(app: Celery, concurrency: int) -> None:
    """Connect to each database and log what was found; tasks wait later for a server that is down.

    Raises:
        ConfigurationError: a setting is wrong.
    """
    settings = settings_of(app)
    for message in _unknown_aliases(app, settings):
        logger.error("%s; this Celery worker cannot run the task", message)
    for alias in ([None] if settings.dsn else []) + list(settings.databases):
        _check_database(app, alias, concurrency)
    if not settings.dsn and not settings.databases:
        logger.warning("pgbg_dsn is not set: SQL tasks will fail until it is")


def _unknown_aliases(app: Celery, settings: Settings) -> Iterator[str]:
    """Describe the tasks whose ``database`` is in no setting."""
    for name, task in sorted(app.tasks.items()):
        alias = getattr(task, "database", None) if isinstance(task, SQLTask) else None
        if alias is None:
            continue
        try:
            settings.dsn_of(alias)
        except ConfigurationError as exc:
            yield f"task {name}: {exc}"


def _check_database(app: Celery, alias: str | None, concurrency: int) -> None:
    name = alias or "default"
    try:
        capabilities = runner_of(app, alias).launchers[0].capabilities
    except SessionLost as exc:
        logger.warning("database %s: %s; SQL tasks will wait for it", name, exc)
        return
    except (ConfigurationError, psycopg.Error) as exc:
        logger.error("database %s: %s; SQL tasks will fail until this is corrected", name, exc)
        return
    logger.info(
        "database %s: pg_background %s; concurrency %s, max_worker_processes %d, shared by all Celery workers",
        name,
        capabilities.version,
        concurrency,
        capabilities.server_worker_limit,
    )
    if concurrency > capabilities.server_worker_limit:
        logger.warning(
            "concurrency %s is above max_worker_processes %d: some SQL tasks will wait for a free slot",
            concurrency,
            capabilities.server_worker_limit,
        )
