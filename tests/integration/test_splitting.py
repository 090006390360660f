"""The splitter beside the server, which answers each statement of a text with one result."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_pgbg.database.splitting import find_statements
from tests.statements import GAPS, NEEDED, STATEMENTS


@pytest.fixture(scope="module")
def session(dsn: str) -> Any:
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute(NEEDED)
        yield session


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(STATEMENTS), min_size=2, max_size=5, unique=True), st.sampled_from(GAPS))
def test_the_server_sees_as_many_statements(session: Any, statements: list[str], gap: str) -> None:
    text = gap + f"\n;{gap}".join(statements)
    found = [text.encode()[start:end].decode().strip() for start, end in find_statements(text.encode())[0]]
    assert found == [statement.strip() for statement in statements]
    with session.transaction(force_rollback=True):
        cursor = session.execute(text)
        results = 1
        while cursor.nextset():
            results += 1
    assert results == len(found)
    if any(statement.startswith("PREPARE") for statement in statements):
        session.execute("DEALLOCATE p0")
