"""Celery's result backend in PostgreSQL."""

from __future__ import annotations

from celery_pgbg.backend.postgres import PostgresBackend

__all__ = ["PostgresBackend"]
