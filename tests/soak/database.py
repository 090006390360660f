"""A database of its own for a soak."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator

import psycopg
from psycopg import sql

from celery_pgbg.database import schema
from celery_pgbg.devserver import DevServer
from tests.fix_server import url_of


@contextlib.contextmanager
def own_database() -> Iterator[str]:
    """Make one on the server that ``PGBG_DSN`` names, else on the development server, and drop it at the end."""
    server = os.environ.get("PGBG_DSN") or DevServer().start()
    name = sql.Identifier(f"pgbg_soak_{uuid.uuid4().hex[:8]}")
    with psycopg.connect(server, autocommit=True) as session:
        session.execute(sql.SQL("CREATE DATABASE {}").format(name))
        dsn = url_of(server, dbname=name.as_string().strip('"'))
        try:
            with psycopg.connect(dsn, autocommit=True) as installer:
                schema.install(installer)
            yield dsn
        finally:
            session.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
