"""The SQL texts of this package: one statement or function in each ``.sql`` file."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from typing_extensions import LiteralString

_ROOT = files("celery_pgbg.database")


@cache
def text(name: str, folder: str = "sql") -> LiteralString:
    """Read one file of the package.

    Args:
        name: the file's name without ``.sql``.
        folder: ``sql``, ``functions`` or ``migrations``.
    """
    return (_ROOT / folder / f"{name}.sql").read_text(encoding="utf-8")  # pyright: ignore[reportReturnType] - from our own package


def names(folder: str) -> list[str]:
    """List the files of a folder without ``.sql``, sorted."""
    found = (entry.name for entry in (_ROOT / folder).iterdir())
    return sorted(name.removesuffix(".sql") for name in found if name.endswith(".sql"))


@cache
def query(name: str) -> sql.SQL:
    """Read one statement as psycopg takes it, ready to ``format`` identifiers into."""
    return sql.SQL(text(name))
