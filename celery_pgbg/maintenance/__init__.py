"""SQL tasks for the upkeep of a database, ready for ``celery beat``.

Import this module where Celery workers and beat see it, for example with ``app.conf.imports``. The tasks run in the
database of ``pgbg_dsn``, or of an alias that the call names: ``vacuum_due.delay(database="archive")``,
``create_partitions.apply_async(args, pgbg={"database": "archive"})``. They run with the role of that DSN, which must
own the tables and indexes.

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

#: For tasks that need strong locks for a moment: other sessions would wait behind them, so they give up soon and
#: retry.
_IN_SHORT: dict[str, Any] = {
    **_ANYWHERE,
    "settings": {"lock_timeout": "5s"},
    "autoretry_for": (psycopg.errors.LockNotAvailable,),
    "retry_backoff": 60,
    "max_retries": 10,
}


@sql_task(name=f"{_PREFIX}vacuum", atomic=False, **_ANYWHERE)
def vacuum(schema: str, table: str) -> sql.Composed:
    """Vacuum and analyse one table, unless another session does so."""
    return sql.SQL("VACUUM (ANALYZE, SKIP_LOCKED) {}").format(sql.Identifier(schema, table))


@shared_task(name=f"{_PREFIX}vacuum_due", bind=True)
def vacuum_due(
    self: Any, ratio: float = 0.1, least_rows: int = 1000, limit: int = 20, database: str | None = None
) -> list[str]:
    """Send ``vacuum`` for the tables with the most dead or changed rows.

    Args:
        self: the task.
        ratio: part of a table's rows that must be dead, or changed since the last ANALYZE.
        least_rows: the least number of such rows.
        limit: the largest number of tables.
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
    """Rebuild one index, without locking writers out."""
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
    """Send ``reindex`` for the most bloated B-tree indexes, and ``drop_index`` for leftovers of earlier runs.

    The expected size of an index is estimated from the statistics of its columns; without statistics it is left out.

    Args:
        self: the task.
        factor: how many times the expected size the index must have.
        least_bytes: the least size of the index, in bytes.
        limit: the largest number of indexes.
        database: an alias of ``pgbg_databases``; None for ``pgbg_dsn``.

    Returns:
        The indexes to rebuild.
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
    """Refresh the materialised views of some or all schemas, in the order of their dependencies.

    Each view is refreshed in its own transaction. Only views without a unique index on columns lock their readers out.
    """
    if isinstance(schemas, str):
        raise TypeError(f"schemas must be a list of names, such as [{schemas!r}], got a str")
    names = None if schemas is None else list(schemas)
    return "CALL celery_pgbg.refresh_materialized_views(%(schemas)s::text[])", {"schemas": names}


@sql_task(name=f"{_PREFIX}create_partitions", **_IN_SHORT)
def create_partitions(table: str, step: str = "month", ahead: int = 3) -> str:
    """Create the partitions of a table for the present step of time and the following ones.

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
    """The options of a call that name its database."""
    return {"pgbg": {"database": database}} if database else {}


def _ask(app: Any, database: str | None, name: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Run one of our queries on a session of its own."""
    settings = settings_of(app)
    with connect(
        settings.dsn_of(database), application_name="celery_pgbg maintenance", connect_timeout=settings.connect_timeout
    ) as session:
        return session.execute(queries.query(name, "celery_pgbg.maintenance"), parameters).fetchall()
