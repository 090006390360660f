"""PostgreSQL's own scanner and parser as a C library, loaded when the first statement needs it.

The library comes with the package postgast and is called by its documented C interface. Importing postgast's own
interface costs nine megabytes, and it returns statements without their positions in the text.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import re
from ctypes import POINTER, Structure, c_char_p, c_int
from ctypes.util import find_library
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from celery_pgbg.errors import ConfigurationError

#: Tokens that the scanner refuses although it knows their end: 1a, $1a, a wrong escape in a string. Servers before 15
#: accept 1a.
_JUNK = re.compile(rb"[0-9.\\\\]|\\$[0-9]")

#: Half a character; the scanner stops before its other half.
_HALF = re.compile(rb"\\(?:u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})\Z")

#: Each byte of junk costs one scan of the text.
_MOST_SCANS = 100

_FILE_NAMES = ("libpg_query.so", "libpg_query.dylib", "pg_query.dll")


class Span(NamedTuple):
    """The position of one statement in a text, in bytes, without the comments before it."""

    start: int
    end: int


class Token(NamedTuple):
    """One token of the scanner: its place in bytes; comments are tokens too.

    ``is_word`` is true for what may be a keyword: neither a quoted name nor a string.
    """

    start: int
    end: int
    is_comment: bool
    is_word: bool


class CannotParse(Exception):
    """The parser does not understand a text: it is wrong, or newer than the parser."""


class LibraryMissing(ConfigurationError):
    """The C library cannot be loaded on this machine."""


class _Error(Structure):
    _fields_ = (("message", c_char_p), ("funcname", c_char_p), ("filename", c_char_p), ("lineno", c_int))


class _SplitStatement(Structure):
    _fields_ = (("location", c_int), ("length", c_int))


class _SplitResult(Structure):
    _fields_ = (
        ("statements", POINTER(POINTER(_SplitStatement))),
        ("count", c_int),
        ("stderr_buffer", c_char_p),
        ("error", POINTER(_Error)),
    )


class _ParseResult(Structure):
    _fields_ = (("tree", c_char_p), ("stderr_buffer", c_char_p), ("error", POINTER(_Error)))


@cache
def _library() -> ctypes.CDLL:
    package = importlib.util.find_spec("postgast")
    folders = [Path(folder) for folder in (package and package.submodule_search_locations) or ()]
    files = [str(folder / name) for folder in folders for name in _FILE_NAMES if (folder / name).is_file()]
    path = files[0] if files else find_library("pg_query")
    try:
        if path is None:
            raise OSError("it is not installed")
        library = ctypes.CDLL(path)
        for name, result in (("split_with_parser", _SplitResult), ("parse", _ParseResult)):
            getattr(library, f"pg_query_{name}").argtypes = [c_char_p]
            getattr(library, f"pg_query_{name}").restype = result
            free = getattr(library, f"pg_query_free_{name.partition('_')[0]}_result")
            free.argtypes = [result]
            free.restype = None
    except (OSError, AttributeError) as exc:
        raise LibraryMissing(
            f"libpg_query, PostgreSQL's parser, cannot be loaded ({exc}): install the package postgast "
            "(it has wheels for Linux and for macOS on ARM; elsewhere pip needs a C compiler)"
        ) from exc
    return library


def is_available() -> bool:
    """Whether the library can be loaded."""
    try:
        _library()
    except LibraryMissing:
        return False
    return True


def find_statements(text: bytes) -> list[Span]:
    """Find the statements of a text by PostgreSQL's grammar.

    Args:
        text: in UTF-8, without a NUL.

    Raises:
        CannotParse: the text is wrong, or newer than the parser.
        LibraryMissing: there is no parser.
    """
    library = _library()
    result = library.pg_query_split_with_parser(text)
    try:
        _check(result)
        found = (result.statements[number].contents for number in range(result.count))
        return [Span(statement.location, statement.location + statement.length) for statement in found]
    finally:
        library.pg_query_free_split_result(result)


def parse(text: bytes) -> list[dict[str, Any]]:
    """Parse statements into trees, as ``{"VacuumStmt": {...}}``. Much slower than ``find_statements``.

    Raises:
        CannotParse: the text is wrong, newer than the parser, or nested too deeply.
        LibraryMissing: there is no parser.
    """
    library = _library()
    result = library.pg_query_parse(text)
    try:
        _check(result)
        tree = json.loads(result.tree)
    except RecursionError as exc:
        raise CannotParse("nested too deeply") from exc
    finally:
        library.pg_query_free_parse_result(result)
    return [statement["stmt"] for statement in tree["stmts"]]


def scan(text: bytes) -> list[Token]:
    """Take a text apart into tokens; slower, and for what ``find_statements`` cannot parse.

    Raises:
        CannotParse: something in it has no end: a string, a quoted name, a comment.
        LibraryMissing: there is no scanner.
    """
    _library()
    try:
        # Imported late, because it costs nine megabytes; not by an import statement, because mypy cannot read its
        # types.
        postgast = importlib.import_module("postgast")
    except (ImportError, OSError) as exc:
        raise LibraryMissing(f"the package postgast cannot be imported: {exc}") from exc
    kinds = postgast.pg_query_pb2
    comments = {kinds.SQL_COMMENT, kinds.C_COMMENT}
    readable = bytearray(text)
    for _ in range(_MOST_SCANS):
        try:
            tokens = postgast.scan(readable.decode()).tokens
        except postgast.PgQueryError as exc:
            # The server's scanner counts characters.
            place = _place_of_junk(readable, len(readable.decode()[: exc.cursorpos - 1].encode()))
            if place is None:
                raise CannotParse(exc.message) from exc
            readable[place] = ord(" ")
            continue
        return [
            Token(token.start, token.end, token.token in comments, token.keyword_kind != kinds.NO_KEYWORD)
            for token in tokens
        ]
    raise CannotParse("too much of it cannot be read")


def _place_of_junk(text: bytearray, place: int) -> int | None:
    half = _HALF.search(text, max(0, place - len(r"\U12345678")), place)
    if half:
        return half.start()
    return place if _JUNK.match(text, place) else None


def _check(result: Any) -> None:
    if result.error:
        raise CannotParse((result.error.contents.message or b"").decode(errors="replace"))
