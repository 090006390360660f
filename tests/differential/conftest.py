"""A database of its own with what the corpus needs, and a runner of statements in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest

from celery_pgbg.database import schema
from celery_pgbg.execution.runner import Runner
from celery_pgbg.settings import read_settings
from tests.differential.corpus import FIXTURES


@pytest.fixture(scope="module")
def odd_dsn(new_database: Callable[[], str]) -> str:
    """A database with our schema and the objects of the corpus."""
    made = new_database()
    with psycopg.connect(made, autocommit=True) as session:
        schema.install(session)
        session.execute(FIXTURES.encode())
    return made


@pytest.fixture(scope="module")
def odd_runner(odd_dsn: str) -> Iterator[Runner]:
    """What runs statements in background workers there."""
    runner = Runner(odd_dsn, read_settings({"pgbg_dsn": odd_dsn}))
    yield runner
    runner.close()
