"""An app in this process whose batched tasks are called directly, and tables that they walk."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from celery import Celery

from celery_pgbg import BatchedSQLTask
from celery_pgbg.runners import close_runners

Database = psycopg.Connection[Any]


@pytest.fixture
def app(dsn: str) -> Iterator[Celery]:
    """An app without a Celery worker."""
    made = Celery("batches", broker="memory://", backend="cache+memory://", set_as_current=False)
    made.conf.update(pgbg_dsn=dsn, pgbg_sweep_interval=0.1)
    yield made
    close_runners(at_once=True)
    made.close()


@pytest.fixture
def batched(app: Celery) -> Callable[..., Any]:
    """Make batched tasks of a statement."""

    def make(statement: Any, table: str, key: Any = "id", **options: Any) -> Any:
        def body() -> Any:
            return statement

        name = f"batches.{uuid.uuid4().hex}"
        return app.task(base=BatchedSQLTask, shared=False, name=name, table=table, key=key, **options)(body)

    return make


class Walked:
    """A table to walk, and another in which the walking statement notes each row that it was given."""

    def __init__(self, session: Database) -> None:
        self.session = session
        self.name = f"walked_{uuid.uuid4().hex[:12]}"
        self.log = f"{self.name}_log"
        session.execute(f"CREATE TABLE {self.log} (key text, at timestamptz DEFAULT clock_timestamp())")

    def make(self, columns: str, rows: str) -> None:
        """Make the table with its rows; ``rows`` is a query."""
        self.session.execute(f"CREATE TABLE {self.name} ({columns})")
        self.session.execute(f"INSERT INTO {self.name} {rows}")

    def noting(self, key: str = "id") -> str:
        """The statement of a batch: it notes its rows."""
        return f"INSERT INTO {self.log} (key) SELECT ({key})::text FROM {self.name} WHERE {{batch}}"

    def noted(self) -> Counter[str]:
        """How often each row was given to the statement, in what committed."""
        return Counter(key for (key,) in self.session.execute(f"SELECT key FROM {self.log}"))

    def each_once(self, key: str = "id", where: str = "true") -> Counter[str]:
        """What ``noted`` shall be: each row once."""
        query = f"SELECT ({key})::text FROM {self.name} WHERE {where}"
        return Counter(key for (key,) in self.session.execute(query))

    def drop(self) -> None:
        """Drop both."""
        self.session.execute("SET lock_timeout = '20s'")
        self.session.execute(f"DROP TABLE IF EXISTS {self.name}, {self.log} CASCADE")


@pytest.fixture
def walked(database: Database) -> Iterator[Walked]:
    """A table to walk, and its log."""
    made = Walked(database)
    yield made
    made.drop()
