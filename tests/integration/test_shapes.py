"""Databases with the shape of an older pg_background are what they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from celery_pgbg.database.capabilities import detect
from tests import shapes
from tests.waiting import eventually


@pytest.fixture(params=sorted(shapes.CATALOGS))
def line(request: pytest.FixtureRequest) -> str:
    """An older line."""
    if request.config.getoption("pg_background_line") or request.getfixturevalue("is_old_server"):
        pytest.skip("the server's own pg_background is not 2")
    return str(request.param)


@pytest.fixture(scope="session")
def is_old_server(server_dsn: str) -> bool:
    """Whether the server's pg_background is older than 2."""
    with psycopg.connect(server_dsn, autocommit=True) as session:
        query = "SELECT default_version < '2' FROM pg_available_extensions WHERE name = 'pg_background'"
        return session.execute(query).fetchone() == (True,)


def test_a_shape_has_the_very_functions_and_types_of_its_line(new_database: Callable[[], str], line: str) -> None:
    with psycopg.connect(new_database(), autocommit=True) as session:
        shapes.reshape(session, line)
        found = shapes.catalog(session)
        assert sorted(found["functions"]) == sorted(shapes.CATALOGS[line]["functions"])
        assert found["types"] == shapes.CATALOGS[line]["types"]
        capabilities = detect(session)
        assert (capabilities.version, capabilities.name("launch")) == (line, "pg_background_launch_v2")
        assert (capabilities.name("error_info") is None) == (line in ("1.6", "1.8"))
        # What 1.9 and 1.10 say of an end has no time, so an end by a signal looks like a success.
        assert capabilities.name("result_info") is None


def test_a_shape_raises_where_the_line_crashes(new_database: Callable[[], str], line: str) -> None:
    with psycopg.connect(new_database(), autocommit=True) as session:
        shapes.reshape(session, line)
        for call in ("cancel", "detach"):
            eventually(f"an early {call}", lambda call=call: raises(session, call))
        assert shapes.crashes(session) == 2


def raises(session: psycopg.Connection[Any], call: str) -> bool:
    """Launch, and at once cancel or detach the first and only handle; its background worker may be faster."""
    launch = "pg_background_launch_v2('SELECT pg_sleep(0.2)')"
    try:
        session.execute(f"SELECT pg_background_{call}_v2(pid, cookie) FROM {launch}")
        return False
    except psycopg.errors.RaiseException as exc:
        return "would have crashed" in str(exc)
    finally:
        session.execute("SELECT newer.pg_background_detach_all()")
