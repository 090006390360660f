"""What CREATE INDEX and REINDEX CONCURRENTLY leave when they are cut off: an index that serves no query."""

from __future__ import annotations

import re
from dataclasses import dataclass

from psycopg import sql

from celery_pgbg.database import libpg_query
from celery_pgbg.database.libpg_query import CannotParse, LibraryMissing
from celery_pgbg.database.sessions import Session
from celery_pgbg.execution import queries

#: Statements that begin with other words need no check.
_WORDS = re.compile(r"\s*(CREATE|REINDEX)\b", re.IGNORECASE)


@dataclass(frozen=True)
class IndexBuild:
    """A statement that builds an index concurrently.

    Attributes:
        relation: the table, or for REINDEX INDEX the index, quoted where need be.
        left: the name of an index that it leaves; None if the server chooses the name.
    """

    relation: str
    left: re.Pattern[str] | None


def find_build(statement: str) -> IndexBuild | None:
    """Find the index that a statement builds concurrently, if any, and its table."""
    if not _WORDS.match(statement):
        return None
    try:
        trees = libpg_query.parse(statement.encode())
    except (CannotParse, LibraryMissing):
        return None
    kind, node = next(iter(trees[0].items())) if trees else ("", {})
    relation = node.get("relation")
    if relation is None:
        return None
    names = [relation[key] for key in ("schemaname", "relname") if relation.get(key)]
    quoted = sql.Identifier(*names).as_string(None)
    if kind == "IndexStmt" and node.get("concurrent"):
        name = node.get("idxname")
        return IndexBuild(quoted, re.compile(rf"{re.escape(name)}\Z") if name else None)
    options = [option["DefElem"]["defname"] for option in node.get("params", ())]
    if kind == "ReindexStmt" and "concurrently" in options:
        return IndexBuild(quoted, re.compile(r".*_cc(new|old)\d*\Z", re.DOTALL))
    return None


def invalid_indexes(session: Session, build: IndexBuild) -> dict[int, str]:
    """List the invalid indexes of the table that such a statement may have left: their quoted names by OID."""
    rows = session.execute(queries.query("invalid_indexes"), {"relation": build.relation})
    return {oid: quoted for oid, quoted, name in rows if build.left is None or build.left.match(name)}


def drop_invalid_indexes(session: Session, build: IndexBuild) -> list[str]:
    """Drop the index that earlier runs of a statement have left, if its name is known.

    The table is locked for a moment.

    Raises:
        psycopg.Error: such as LockNotAvailable.
    """
    if build.left is None:
        return []
    found = list(invalid_indexes(session, build).values())
    for quoted in found:
        # Quoted by the server.
        session.execute(f"DROP INDEX {quoted}".encode())
    return found
