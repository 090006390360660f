"""A message broker in PostgreSQL, as a transport of kombu."""

from __future__ import annotations

from celery_pgbg.broker.transport import Transport

__all__ = ["Transport"]
