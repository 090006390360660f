"""The SQL statements in ``execution/sql``."""

from __future__ import annotations

from psycopg import sql

from celery_pgbg.database import queries


def query(name: str) -> sql.SQL:
    """Read one statement as psycopg takes it, ready to ``format`` identifiers into."""
    return queries.query(name, "celery_pgbg.execution")
