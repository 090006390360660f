"""Rewrites SELECT ... INTO, which PL/pgSQL does not execute, as the equivalent CREATE TABLE ... AS."""

from __future__ import annotations

import re

from celery_pgbg.database import libpg_query
from celery_pgbg.database.libpg_query import CannotParse

_INTO = re.compile(rb"(?<!insert )(?<!merge )\binto\b", re.IGNORECASE)

#: Words that may stand between INTO and the table's name.
_KINDS = (b"LOCAL", b"GLOBAL", b"TEMPORARY", b"TEMP", b"UNLOGGED", b"TABLE")


def as_create_table(statement: bytes) -> bytes | None:
    """Rewrite a SELECT ... INTO; None for any other statement.

    Args:
        statement: in UTF-8, without comments before it.
    """
    if statement[:1] not in (b"S", b"s", b"W", b"w", b"(") or b"into" not in statement.lower():
        return None
    if not _INTO.search(statement):
        return None
    try:
        tokens = [token for token in libpg_query.scan(statement) if not token.is_comment]
    except CannotParse:
        return None
    words = [statement[token.start : token.end].upper() if token.is_word else b"" for token in tokens]
    texts = [statement[token.start : token.end] for token in tokens]
    first = _find_into(texts, words)
    if first is None:
        return None
    name = first + 1
    while words[name] in _KINDS:
        name += 1
    last = name
    # A qualified name: its parts, separated by full stops.
    while last + 2 < len(texts) and texts[last + 1] == b".":
        last += 2
    kind = b" ".join(word for word in words[first + 1 : name] if word != b"TABLE")
    table = statement[tokens[name].start : tokens[last].end]
    query = statement[: tokens[first].start] + statement[tokens[last].end :]
    return b" ".join(filter(None, (b"CREATE", kind, b"TABLE", table, b"AS", query)))


def _find_into(texts: list[bytes], words: list[bytes]) -> int | None:
    """Find the INTO of the outermost SELECT, which may itself be in parentheses."""
    outermost = next((number for number, text in enumerate(texts) if text != b"("), 0)
    depth = 0
    for number, (text, word) in enumerate(zip(texts, words, strict=True)):
        depth += (text == b"(") - (text == b")")
        is_clause = word == b"INTO" and words[number - 1] not in (b"AS", b"INSERT", b"MERGE")
        if is_clause and depth == outermost and texts[number - 1] != b".":
            return number if number + 1 < len(texts) else None
    return None
