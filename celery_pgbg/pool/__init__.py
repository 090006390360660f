"""Celery's pool: threads that wait for background workers."""

from __future__ import annotations

from celery_pgbg.pool.taskpool import TaskPool

__all__ = ["TaskPool"]

# Named as in the configuration, also where Celery shows its pool.
TaskPool.__module__ = __name__
