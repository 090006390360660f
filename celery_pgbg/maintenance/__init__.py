"""SQL tasks for the upkeep of a database, ready for ``celery beat``.

Import this module where Celery workers and beat see it, for example with ``app.conf.imports``. They run in the
database of ``pgbg_dsn``, or in that of an alias where a call says so: ``vacuum_due.delay(database="archive")``,
``create_partitions.apply_async(args, pgbg={"database": "archive"})``; as the role of its DSN, which must own what they
maintain.

Partitions and bloat have tools of their own: with pg_partman installed use ``run_partman`` instead of
``create_partitions`` and ``drop_partitions``; pg_repack is a program, not SQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from celery import shared_task
from psycopg import sql

from celery_pgbg.configuration import settings_of
from celery_pgbg.database import queries
from celery_pgbg.database.sessions import connect
from celery_pgbg.tasks.decorator import sql_task
from celery_pgbg.tasks.task import SQLTask

__all__ = [
    "create_partitions",
    "drop_index",
    "drop_partitions",
    "refresh_materialized_views",
    "reindex",
    "reindex_bloated",
    "run_partman",
    "vacuum",
    "vacuum_due",
]

_PREFIX = "celery_pgbg.maintenance."

#: Each call may choose its database.
_ANYWHERE: dict[str, Any] = {"per_call": {**SQLTask.per_call, "database": True}}

#: For what needs strong locks for a moment: others would wait behind it, so it gives up soon and comes again.
_IN_SHORT: dict[str, Any] = {
    **_ANYWHERE,
    "settings": {"lock_timeout": "5s"},
    "autoretry_for": (psycopg.errors.LockNotAvailable,),
    "retry_backoff": 60,
    "max_retries": 10,
}


@sql_task(name=f"{_PREFIX}vacuum", atomic=False, **_ANYWHERE)
def vacuum(schema: str, table: str) -> sql.Composed:
    """Vacuum and analyse one table, unless another session is at it."""
    return sql.SQL("VACUUM (ANALYZE, SKIP_LOCKED) {}").format(sql.Identifier(schema, table))


@shared_task(name=f"{_PREFIX}vacuum_due", bind=True)
def vacuum_due(
    self: Any, ratio: float = 0.1, least_rows: int = 1000, limit: int = 20, database: str | None = None
) -> list[str]:
    """Send ``vacuum`` for the tables with the most dead or changed rows.

    Args:
        self: the task.
        ratio: part of a table's rows that must be dead, or changed since they were analysed.
        least_rows: and so many of them at least.
        limit: tables at once.
        database: an alias of ``pgbg_databases``; None for ``pgbg_dsn``.

    Returns:
        The tables.
    """
    found = _ask(self.app, database, "vacuum_due", {"ratio": ratio, "least_rows": least_rows, "limit": limit})
    for schema, table in found:
        vacuum.apply_async((schema, table), **_there(database))
    return [f"{schema}.{table}" for schema, table in found]


@sql_task(name=f"{_PREFIX}reindex", atomic=False, retry_invalid=True, **_ANYWHERE)
def reindex(schema: str, index: str) -> sql.Composed:
    """Build one index anew, without locking writers out."""
    return sql.SQL("REINDEX INDEX CONCURRENTLY {}").format(sql.Identifier(schema, index))


@sql_task(name=f"{_PREFIX}drop_index", atomic=False, **_ANYWHERE)
def drop_index(schema: str, index: str) -> sql.Composed:
    """Drop one index, without locking writers out."""
    return sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(schema, index))


@shared_task(name=f"{_PREFIX}reindex_bloated", bind=True)
def reindex_bloated(
    self: Any,
    factor: float = 2.0,
    least_bytes: int = 100 * 1024 * 1024,
    limit: int = 5,
    database: str | None = None,
) -> list[str]:
    """Send ``reindex`` for the B-tree indexes that waste the most, and ``drop_index`` for what earlier ones left.

    How large an index should be is estimated from the statistics of its columns; those without are left out.

    Args:
        self: the task.
        factor: how many times as large as that it must be.
        least_bytes: and so large at least.
        limit: indexes at once.
        database: an alias of ``pgbg_databases``; None for ``pgbg_dsn``.

    Returns:
        The indexes to build anew.
    """
    for schema, index in _ask(self.app, database, "left_by_reindex", {}):
        drop_index.apply_async((schema, index), **_there(database))
    wanted = {"factor": factor, "least_bytes": least_bytes, "limit": limit}
    found = _ask(self.app, database, "bloated_indexes", wanted)
    for schema, index in found:
        reindex.apply_async((schema, index), **_there(database))
    return [f"{schema}.{index}" for schema, index in found]


@sql_task(name=f"{_PREFIX}refresh_materialized_views", atomic=False, **_ANYWHERE)
def refresh_materialized_views(schemas: Sequence[str] | None = None) -> tuple[str, dict[str, Any]]:
    """Refresh the materialised views of some schemas, or all, each after those that it reads.

    Each is a transaction of its own. Readers are locked out only of those without a unique index on columns.
    """
    names = None if schemas is None else list(schemas)
    return "CALL celery_pgbg.refresh_materialized_views(%(schemas)s::text[])", {"schemas": names}


@sql_task(name=f"{_PREFIX}create_partitions", **_IN_SHORT)
def create_partitions(table: str, step: str = "month", ahead: int = 3) -> str:
    """Create the partitions of a table for the step of time that runs and those that follow.

    Args:
        table: partitioned by range of one column of a date or time.
        step: ``day``, ``week``, ``month`` or ``year``.
        ahead: how many of the following.
    """
    return "SELECT celery_pgbg.create_partitions(%(table)s::regclass, %(step)s, %(ahead)s) AS created"


@sql_task(name=f"{_PREFIX}drop_partitions", **_IN_SHORT)
def drop_partitions(table: str, keep: str) -> str:
    """Drop the partitions of a table that end longer ago than ``keep``, such as ``"12 months"``."""
    return "SELECT celery_pgbg.drop_partitions(%(table)s::regclass, %(keep)s::interval) AS dropped"


@sql_task(name=f"{_PREFIX}run_partman", atomic=False, **_ANYWHERE)
def run_partman(schema: str = "partman") -> sql.Composed:
    """Run the maintenance of pg_partman, in the schema of that extension."""
    return sql.SQL("CALL {}.run_maintenance_proc()").format(sql.Identifier(schema))


def _there(database: str | None) -> dict[str, Any]:
    """What a call says of its database."""
    return {"pgbg": {"database": database}} if database else {}


def _ask(app: Any, database: str | None, name: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Run one of our queries on a session of its own."""
    settings = settings_of(app)
    with connect(
        settings.dsn_of(database), application_name="celery_pgbg maintenance", connect_timeout=settings.connect_timeout
    ) as session:
        return session.execute(queries.query(name, "celery_pgbg.maintenance"), parameters).fetchall()
