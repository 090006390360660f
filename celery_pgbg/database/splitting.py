"""Finds where the statements of a text begin and end."""

from __future__ import annotations

from celery_pgbg.database import libpg_query
from celery_pgbg.database.libpg_query import CannotParse, LibraryMissing, Span, Token
from celery_pgbg.errors import ConfigurationError


def split(text: str) -> tuple[str | None, str]:
    """Split off the last of several statements.

    Returns:
        All statements before the last, or None, and the last one. A text with an unterminated part, such as a string,
        counts as one statement.

    Raises:
        ConfigurationError: there may be several statements, and the parser is not installed.
    """
    if ";" not in text.rstrip().rstrip(";"):
        return None, text
    data = text.encode()
    try:
        return split_at(data, find_statements(data)[0])
    except LibraryMissing as exc:
        raise ConfigurationError(f"cannot find out whether the text has several statements: {exc}") from exc


def split_at(data: bytes, statements: list[Span]) -> tuple[str | None, str]:
    """Split off the last of these statements; a text without a statement is left alone."""
    if not statements:
        return None, data.decode()
    *others, last = statements
    if not others:
        return None, data[last.start : last.end].decode()
    end = others[-1].end + 1
    # Keep the comments before it, which may be planner hints, unless an empty statement may be among them.
    begin = last.start if b";" in data[end : last.start] else end
    return data[:end].decode(), data[begin : last.end].decode()


def find_statements(data: bytes) -> tuple[list[Span], bool]:
    """Find the statements of a text by PostgreSQL's grammar or, if the parser fails, by psql's rule.

    Args:
        data: the text in UTF-8, without a NUL.

    Returns:
        The statements, and whether the parser understood all of them.

    Raises:
        LibraryMissing: there is no parser.
    """
    try:
        return libpg_query.find_statements(data), True
    except CannotParse:
        pass
    try:
        return _find_by_tokens(data, libpg_query.scan(data)), False
    except CannotParse:
        return [Span(0, len(data))], False


def _find_by_tokens(data: bytes, tokens: list[Token]) -> list[Span]:
    """Split at each semicolon outside parentheses and BEGIN ATOMIC bodies."""
    statements = []
    nesting = _Nesting()
    for token in tokens:
        if token.is_comment:
            continue
        word = data[token.start : token.end]
        if word != b";" or nesting.is_inside:
            nesting.take(word.upper(), token)
            continue
        if nesting.start is not None:
            statements.append(Span(nesting.start, token.start))
        nesting = _Nesting()
    if nesting.start is not None:
        statements.append(Span(nesting.start, len(data)))
    return statements


class _Nesting:
    """The depth of parentheses and bodies within one statement."""

    def __init__(self) -> None:
        self.start: int | None = None
        self._creates = False
        self._parentheses = self._bodies = 0
        self._previous = b""

    @property
    def is_inside(self) -> bool:
        return bool(self._parentheses or self._bodies)

    def take(self, word: bytes, token: Token) -> None:
        if self.start is None:
            self.start = token.start
            self._creates = word == b"CREATE"
        if word == b"(":
            self._parentheses += 1
        elif word == b")":
            self._parentheses = max(0, self._parentheses - 1)
        elif self._creates and token.is_word and not self._parentheses:
            self._count_bodies(word)
        self._previous = word

    def _count_bodies(self, word: bytes) -> None:
        """Count BEGIN ATOMIC and, inside, CASE, up to their END. After AS and a full stop each word is a name."""
        if word == b"ATOMIC" and self._previous == b"BEGIN":
            self._bodies += 1
        elif self._bodies and self._previous not in (b"AS", b"."):
            self._bodies += {b"CASE": 1, b"END": -1}.get(word, 0)
