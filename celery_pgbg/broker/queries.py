"""The SQL statements in ``broker/sql``."""

from __future__ import annotations

from psycopg import sql

from celery_pgbg.database import queries


def query(name: str) -> sql.SQL:
    """Read one statement as psycopg takes it."""
    return queries.query(name, "celery_pgbg.broker")


def text(name: str) -> str:
    """Read one statement as text, for connections of other libraries."""
    return queries.statement(name, "celery_pgbg.broker")
