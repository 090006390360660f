"""Which statements may stand in the FROM of another."""

from __future__ import annotations

import re

from celery_pgbg.database import libpg_query
from celery_pgbg.database.libpg_query import CannotParse, LibraryMissing

#: How one begins, after comments and parentheses. VALUES gains nothing; hints to the planner must come first.
_BEGINNING = re.compile(r"(?:\s|\(|--[^\n]*\n|/\*[^*/+]*\*/)*(?:SELECT|WITH|TABLE)\b", re.IGNORECASE)

#: Without it there is nothing to be read that could take long.
_READING = re.compile(r"\b(?:FROM|TABLE)\b", re.IGNORECASE)

#: What may not be there, or rules out a parallel plan anyway. A name or a string may have it: that costs only the plan.
_WRITING = re.compile(r"\b(?:INSERT|UPDATE|DELETE|MERGE|INTO|SHARE)\b", re.IGNORECASE)


def is_plain_query(statement: str) -> bool:
    """Whether a statement only reads, as far as can be seen, and is a subquery as it stands.

    Args:
        statement: one alone, without a semicolon, that the parser has understood.
    """
    if not _BEGINNING.match(statement) or not _READING.search(statement) or _WRITING.search(statement):
        return False
    try:
        # Its parentheses are even, so what parses is what is meant.
        within = b"".join((b"SELECT FROM (", statement.encode(), b"\n) AS q"))
        return len(libpg_query.find_statements(within)) == 1
    except (CannotParse, LibraryMissing):
        return False
