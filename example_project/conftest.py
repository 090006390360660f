"""The tests' surroundings: a database with the tables, and Celery's own fixtures for the app."""

import psycopg
import pytest
from flights.data import TABLES

pytest_plugins = ("celery.contrib.pytest",)


@pytest.fixture(scope="session")
def pgbg_database(pgbg_database: str) -> str:
    """A database made for this run, with our tables."""
    with psycopg.connect(pgbg_database) as session:
        session.execute(TABLES)
    return pgbg_database


@pytest.fixture(scope="session")
def celery_config(pgbg_database: str, pgbg_broker: str) -> dict[str, str]:
    """Of Celery's fixture celery_app."""
    return {"broker_url": pgbg_broker, "result_backend": f"pgbg+{pgbg_database}"}


@pytest.fixture(scope="session")
def celery_includes() -> list[str]:
    """The modules of the tasks."""
    return ["flights.tasks"]
