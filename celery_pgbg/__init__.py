"""SQL tasks for Celery that run in PostgreSQL background workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery_pgbg.task import SQLTask, sql_task

__version__ = "0.1.0"
__all__ = ["SQLTask", "sql_task"]


def __getattr__(name: str) -> Any:
    """Import late, so that the command line and the development server start quickly."""
    if name in __all__:
        from celery_pgbg import task

        return getattr(task, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
