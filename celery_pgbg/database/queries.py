"""The SQL texts of the packages: one statement or function in each ``.sql`` file, next to the code that uses it."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from psycopg import sql

from celery_pgbg.database.qualifying import qualified

if TYPE_CHECKING:
    from typing_extensions import LiteralString

_DATABASE = "celery_pgbg.database"

#: The description at the top of each file.
_DESCRIPTION = re.compile(r"\A(?:\s+|--[^\n]*\n)+")


@cache
def text(name: str, folder: str = "sql", package: str = _DATABASE) -> LiteralString:
    """Read one file of a package.

    Args:
        name: the file's name without ``.sql``.
        folder: ``sql``, ``functions`` or ``migrations``.
        package: whose folder that is.
    """
    path = files(package) / folder / f"{name}.sql"
    return path.read_text(encoding="utf-8")  # pyright: ignore[reportReturnType] - from our own package


def names(folder: str, package: str = _DATABASE) -> list[str]:
    """List the files of a folder without ``.sql``, sorted."""
    found = (entry.name for entry in (files(package) / folder).iterdir())
    return sorted(name.removesuffix(".sql") for name in found if name.endswith(".sql"))


@cache
def statement(name: str, package: str = _DATABASE) -> LiteralString:
    """Read one statement without its description. OpenTelemetry names the span of a statement by the first word."""
    written = text(name, package=package)
    return _DESCRIPTION.sub("", written)  # pyright: ignore[reportReturnType] - a part of the file


@cache
def query(name: str, package: str = _DATABASE) -> sql.SQL:
    """Read one statement as psycopg takes it, ready to ``format`` identifiers into; its names mean PostgreSQL's own."""
    return sql.SQL(_qualified(statement(name, package)))


def _qualified(written: LiteralString) -> LiteralString:
    return qualified(written)  # pyright: ignore[reportReturnType] - from our own package
