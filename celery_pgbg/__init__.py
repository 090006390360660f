"""SQL tasks for Celery that run in PostgreSQL background workers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from celery_pgbg.celery_patches.at_import import change_celery

if TYPE_CHECKING:
    from celery_pgbg.batches.task import BatchedSQLTask, batched_sql_task
    from celery_pgbg.broker.outbox import sending_in
    from celery_pgbg.progress import show_progress
    from celery_pgbg.tasks.decorator import sql_task
    from celery_pgbg.tasks.task import SQLTask

__version__ = "0.1.0"
__all__ = ["BatchedSQLTask", "SQLTask", "batched_sql_task", "sending_in", "show_progress", "sql_task"]

_MODULES = {
    "BatchedSQLTask": "celery_pgbg.batches.task",
    "SQLTask": "celery_pgbg.tasks.task",
    "batched_sql_task": "celery_pgbg.batches.task",
    "sending_in": "celery_pgbg.broker.outbox",
    "show_progress": "celery_pgbg.progress",
    "sql_task": "celery_pgbg.tasks.decorator",
}

change_celery()


def __getattr__(name: str) -> Any:
    """Import late, so that the command line and the development server start quickly."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
