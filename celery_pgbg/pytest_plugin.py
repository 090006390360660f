"""Fixtures for the tests of projects that use us; pytest finds them through our entry point."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def pgbg_server() -> str:
    """DSN of a PostgreSQL server with pg_background: ``PGBG_DSN``, else a development server.

    Where neither can be had the test is skipped, or fails if ``CI`` is set.
    """
    from celery_pgbg.devserver import DevServer, DevServerError

    if os.environ.get("PGBG_DSN"):
        return os.environ["PGBG_DSN"]
    try:
        return str(DevServer().start())
    except DevServerError as exc:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(exc))
