"""Celery's pool: threads that wait for background workers."""

from __future__ import annotations

from celery_pgbg.pool.taskpool import TaskPool

__all__ = ["TaskPool"]

# Celery shows the pool under the name used in the configuration.
TaskPool.__module__ = __name__
