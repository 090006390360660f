"""Finds the statements that may stand in the FROM of another statement."""

from __future__ import annotations

import re

from celery_pgbg.database import libpg_query
from celery_pgbg.database.libpg_query import CannotParse, LibraryMissing

#: The beginning of such a statement, after comments and parentheses. VALUES gains nothing; planner hints must come
#: first.
_BEGINNING = re.compile(r"(?:\s|\(|--[^\n]*\n|/\*[^*/+]*\*/)*(?:SELECT|WITH|TABLE)\b", re.IGNORECASE)

#: Without FROM there is nothing to read that could take long.
_READING = re.compile(r"\b(?:FROM|TABLE)\b", re.IGNORECASE)

#: Words that are not allowed, or exclude a parallel plan anyway. If a name or a string has such a word, only the
#: parallel plan is lost.
_WRITING = re.compile(r"\b(?:INSERT|UPDATE|DELETE|MERGE|INTO|SHARE)\b", re.IGNORECASE)


def is_plain_query(statement: str) -> bool:
    """Whether a statement only reads, as far as its text shows, and can be a subquery unchanged.

    Args:
        statement: one alone, without a semicolon, that the parser has understood.
    """
    if not _BEGINNING.match(statement) or not _READING.search(statement) or _WRITING.search(statement):
        return False
    try:
        # Its parentheses match, so the text parses in the intended way.
        within = b"".join((b"SELECT FROM (", statement.encode(), b"\n) AS q"))
        return len(libpg_query.find_statements(within)) == 1
    except (CannotParse, LibraryMissing):
        return False
