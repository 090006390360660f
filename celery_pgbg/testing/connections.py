"""Finds psycopg's connection below a test's connection, which may be SQLAlchemy's or Django's."""

from __future__ import annotations

import sys
from typing import Any

import psycopg

_WANTED = "a psycopg 3 connection, a SQLAlchemy Connection or Session, or a Django database connection"


def psycopg_connection(given: Any) -> psycopg.Connection[Any]:
    """Find the psycopg connection that a test's statements go through, with its transaction.

    Args:
        given: psycopg's ``Connection``, SQLAlchemy's ``Connection`` or ``Session``, or Django's, such
            as ``django.db.connection``, which is opened if need be.

    Raises:
        TypeError: it is none of these, or its driver is not psycopg 3.
    """
    found = _below(given)
    if not isinstance(found, psycopg.Connection):
        got = type(found) if found is not None else type(given)
        raise TypeError(f"expected {_WANTED}, got {got.__module__}.{got.__qualname__}")
    return found


def _below(given: Any) -> Any:
    if isinstance(given, psycopg.Connection):
        return given
    if "sqlalchemy" in sys.modules:
        from sqlalchemy import Connection
        from sqlalchemy.orm import Session, scoped_session

        if isinstance(given, (Session, scoped_session)):
            given = given.connection()
        if isinstance(given, Connection):
            return given.connection.driver_connection
    if hasattr(given, "ensure_connection"):
        # Django's
        given.ensure_connection()
        return given.connection
    return given
