"""Strings that mean the same whatever ``standard_conforming_strings`` says."""

from __future__ import annotations

import re

from celery_pgbg.database.libpg_query import CannotParse, scan

#: In a string of the form ``U&'...'``: an escaped backslash, or a character by its number.
_BY_NUMBER = re.compile(rb"\\(?:\\|\+([0-9A-Fa-f]{6})|([0-9A-Fa-f]{4}))")


def as_escape_strings(statement: str) -> str:
    r"""Write plain strings with a backslash, ``'a\b'``, as ``E'a\\b'``; also strings such as ``U&'\0041'``.

    PostgreSQL reads the strings of a whole text before the first of its statements runs. Here the last statement is
    read by itself, after the earlier ones may have changed that setting.
    """
    if "\\" not in statement or "'" not in statement:
        return statement
    data = statement.encode()
    try:
        tokens = scan(data)
    except CannotParse:
        return statement
    parts: list[bytes] = []
    copied = 0
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        text = data[token.start : token.end]
        if b"\\" not in text:
            continue
        if text.startswith(b"'"):
            escaped = text.replace(b"\\", b"\\\\")
        elif text[:3].upper() == b"U&'" and not _is_left(text, following and data[following.start : following.end]):
            escaped = _BY_NUMBER.sub(_as_escape, text[2:])
        else:
            continue
        # E right after a word, as in type'...', would be part of it.
        parts += data[copied : token.start], b" E", escaped
        copied = token.end
    return b"".join([*parts, data[copied:]]).decode()


def _is_left(text: bytes, next_text: bytes | None) -> bool:
    """Whether such a string is left as it is: with an escape character of its own, or for the server to refuse."""
    return (next_text or b"").upper() == b"UESCAPE" or b"\\" in _BY_NUMBER.sub(b"", text)


def _as_escape(found: re.Match[bytes]) -> bytes:
    long, short = found.groups()
    if long is not None:
        return b"\\U00" + bytes(long)
    return b"\\u" + bytes(short) if short is not None else b"\\\\"
