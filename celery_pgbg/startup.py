"""What our pool says in the log when it starts: how the limits fit, and what is wrong or without meaning."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import psycopg
from celery import Celery

from celery_pgbg.errors import ConfigurationError, SessionLost
from celery_pgbg.runners import runner_of, settings_of

logger = logging.getLogger("celery_pgbg.pool")

#: Settings that count what a process of Celery's own pool did, by the names that pools get them under.
_OF_PROCESSES = {"maxtasksperchild": "max_tasks_per_child", "max_memory_per_child": "max_memory_per_child"}
_NO_PROCESSES = "each SQL task has a new process in the server, and Python tasks run in threads"


def warn_of_meaningless(options: Mapping[str, Any]) -> None:
    """Name the settings that have no meaning in our pool."""
    for name, setting in _OF_PROCESSES.items():
        if options.get(name):
            logger.warning("worker_%s has no meaning in this pool: %s", setting, _NO_PROCESSES)


def check_databases(app: Celery, concurrency: int) -> None:
    """Connect to each database and say what was found; a server that is down is waited for later.

    Raises:
        ConfigurationError: a setting is wrong.
    """
    settings = settings_of(app)
    for alias in ([None] if settings.dsn else []) + list(settings.databases):
        _check_database(app, alias, concurrency)
    if not settings.dsn and not settings.databases:
        logger.warning("pgbg_dsn is not set: SQL tasks will fail until it is")


def _check_database(app: Celery, alias: str | None, concurrency: int) -> None:
    name = alias or "default"
    try:
        capabilities = runner_of(app, alias).launchers[0].capabilities
    except SessionLost as exc:
        logger.warning("database %s: %s; SQL tasks will wait for it", name, exc)
        return
    except (ConfigurationError, psycopg.Error) as exc:
        logger.error("database %s: %s; SQL tasks will fail until that is mended", name, exc)
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
            "concurrency %s is above max_worker_processes %d: the rest will wait for free slots",
            concurrency,
            capabilities.server_worker_limit,
        )
