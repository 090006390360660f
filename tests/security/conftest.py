"""Roles and databases of people of bad faith."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import conninfo, sql

from tests.fix_server import url_of


@pytest.fixture
def new_role(server_dsn: str) -> Iterator[Callable[..., str]]:
    """Make roles that may log in and nothing else; with what they own, they are dropped at the end."""
    made: list[tuple[str, str]] = []

    def make(dsn: str, attributes: str = "LOGIN") -> str:
        name = f"pgbg_test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(dsn, autocommit=True) as session:
            session.execute(sql.SQL(f"CREATE ROLE {{}} {attributes}").format(sql.Identifier(name)))
        made.append((dsn, name))
        return name

    yield make
    for dsn, name in reversed(made):
        with psycopg.connect(dsn, autocommit=True) as session:
            session.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(sql.Identifier(name)))
            session.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


@pytest.fixture
def as_role() -> Callable[[str, str], str]:
    """The DSN of another role in the same database."""
    return lambda dsn, role: url_of(dsn, user=role)


@pytest.fixture
def owner_of(new_role: Callable[..., str]) -> Callable[[str], str]:
    """Give a database to a role of its own, which may then make schemas and settings there."""

    def give(dsn: str) -> str:
        role = new_role(dsn)
        with psycopg.connect(dsn, autocommit=True) as session:
            name = conninfo.conninfo_to_dict(dsn)["dbname"]
            query = sql.SQL("ALTER DATABASE {} OWNER TO {}")
            session.execute(query.format(sql.Identifier(str(name)), sql.Identifier(role)))
        return role

    return give


def superuser_rights(session: psycopg.Connection[Any], role: str) -> bool:
    """Whether a role has become a superuser."""
    row = session.execute("SELECT rolsuper FROM pg_roles WHERE rolname = %s", [role]).fetchone()
    return bool(row and row[0])
