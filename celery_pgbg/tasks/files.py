"""SQL files that psql can run too: their variables become the arguments of a task."""

from __future__ import annotations

import ast
import inspect
import keyword
import re
import sys
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from psycopg import sql

from celery_pgbg.database import libpg_query
from celery_pgbg.database.libpg_query import CannotParse, Token
from celery_pgbg.errors import BindingError, TaskDefinitionError

#: A line of the comment at the head that names the arguments.
_DECLARATION = re.compile(r"^--\s*args\s*:(.*)$", re.IGNORECASE | re.MULTILINE)
_HEAD = re.compile(r"(?:\s*--[^\n]*(?:\n|\Z)|\s*\\[^\n]*(?:\n|\Z)|\s*/\*.*?\*/)*", re.DOTALL)
_NAME = re.compile(r"[^\W\d]\w*\Z")

#: The allowed commands of psql: they print, set psql's behaviour on errors, or give a variable its default.
_IGNORED = re.compile(r"\\(?:echo|qecho|warn|timing|pset|encoding|if\s+:\{\?\w+\}|else|endif|set\s+[A-Z_]+\s)")
_DEFAULT = re.compile(r"\\set\s+([a-z_]\w*)\s+('(?:[^']|'')*'|\S+)\s*$")


class _Piece(NamedTuple):
    """A part of the text: plain text, or a variable used as ``value`` or as ``name``."""

    text: str
    kind: str = ""


class SQLFile:
    """A SQL file, read when needed, and, with ``reload``, again when it has changed.

    Args:
        path: of the file, in UTF-8.
        reload: look for changes before each use.

    Raises:
        TaskDefinitionError: the file cannot be read, or has commands that only psql can run.
    """

    def __init__(self, path: Path, reload: bool = False) -> None:
        self.path = path
        self._reload = reload
        self._text, self._changed_at = self._read()

    @property
    def text(self) -> str:
        """The file's content."""
        if self._reload and self._changed_at != self.path.stat().st_mtime_ns:
            self._text, self._changed_at = self._read()
            self.__dict__.pop("_pieces", None)
        return self._text

    def _read(self) -> tuple[str, int]:
        try:
            return self.path.read_text(encoding="utf-8-sig"), self.path.stat().st_mtime_ns
        except (OSError, UnicodeError) as exc:
            raise TaskDefinitionError(f"file={str(self.path)!r} cannot be read: {exc}") from exc

    @cached_property
    def _pieces(self) -> list[_Piece]:
        return list(_take_apart(self.path, self._text))

    def signature(self) -> inspect.Signature:
        """The arguments: those declared at the head, else the variables in the order of their appearance."""
        head = _HEAD.match(self.text)
        declared = _DECLARATION.findall(head.group() if head else "")
        found = [piece.text for piece in self._pieces if piece.kind]
        defaults = dict(_defaults(self.text))
        if declared:
            parameters = [_parameter(self.path, part) for line in declared for part in _parts(line)]
        else:
            required = [name for name in dict.fromkeys(found) if name not in defaults]
            parameters = [_make_parameter(name) for name in required]
            parameters += [_make_parameter(name, value) for name, value in defaults.items() if name in found]
        try:
            return inspect.Signature(parameters)
        except ValueError as exc:
            raise TaskDefinitionError(f"{self.path.name}: {exc}") from exc

    def statement(self, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Put the arguments into their places, in psycopg's form; other variables stay unchanged, as in psql."""
        self.text  # noqa: B018 - reads it again
        return "".join(_placed(piece, arguments) for piece in self._pieces), arguments


def find_file(name: str, module: str) -> Path:
    """Find a file beside a module, or by an absolute path."""
    path = Path(name)
    if path.is_absolute():
        return path
    beside = getattr(sys.modules.get(module), "__file__", None)
    return (Path(beside).parent if beside else Path.cwd()) / path


def _placed(piece: _Piece, arguments: dict[str, Any]) -> str:
    if piece.kind == "name" and piece.text in arguments:
        value = arguments[piece.text]
        if not isinstance(value, str):
            raise BindingError(f"argument {piece.text} is a name in the file, got {type(value).__name__}")
        return sql.Identifier(value).as_string(None).replace("%", "%%")
    if piece.kind == "value" and piece.text in arguments:
        return f"%({piece.text})s"
    text = {"value": f":{piece.text}", "name": f':"{piece.text}"'}.get(piece.kind, piece.text)
    return text.replace("%", "%%")


def _take_apart(path: Path, text: str) -> Iterator[_Piece]:
    text = _without_commands(path, text)
    data = text.encode()
    try:
        tokens = [token for token in libpg_query.scan(data) if not token.is_comment]
    except CannotParse as exc:
        raise TaskDefinitionError(f"{path.name}: {exc}") from exc
    copied = 0
    for colon, after in pairwise(tokens):
        variable = _variable(data, colon, after)
        if variable is not None:
            yield _Piece(data[copied : colon.start].decode())
            yield variable
            copied = after.end
    yield _Piece(data[copied:].decode())


def _variable(data: bytes, colon: Token, after: Token) -> _Piece | None:
    if data[colon.start : colon.end] != b":" or after.start != colon.end:
        return None
    word = data[after.start : after.end].decode()
    name = word[1:-1] if word[0] in "'\"" else word
    if not _NAME.match(name):
        return None
    return _Piece(name, "name" if word[0] == '"' else "value")


def _without_commands(path: Path, text: str) -> str:
    """Blank the lines with psql's commands that have no effect here."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        command = line.strip()
        if not command.startswith("\\"):
            continue
        if not (_IGNORED.match(command + " ") or _DEFAULT.match(command)):
            raise TaskDefinitionError(f"{path.name}, line {number + 1}: only psql can run {command!r}")
        lines[number] = ""
    return "\n".join(lines)


def _defaults(text: str) -> Iterator[tuple[str, Any]]:
    r"""Find ``\set name value`` within ``\if :{?name} \else ... \endif``: a default value."""
    for line in text.split("\n"):
        if match := _DEFAULT.match(line.strip()):
            yield match[1], _literal(match[2])


def _parts(line: str) -> list[str]:
    """Split declared arguments at commas outside strings."""
    return [part.strip() for part in re.findall(r"(?:'(?:[^']|'')*'|[^,'])+", line) if part.strip()]


def _parameter(path: Path, part: str) -> inspect.Parameter:
    name, equals, default = (item.strip() for item in part.partition("="))
    if not _NAME.match(name) or (equals and not default):
        raise TaskDefinitionError(
            f"{path.name}: cannot read the argument {part!r}; write `-- args: name, name = value`"
        )
    return _make_parameter(name, _literal(default) if equals else inspect.Parameter.empty)


def _make_parameter(name: str, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    if keyword.iskeyword(name):
        raise TaskDefinitionError(f"an argument cannot be called {name!r}, which is a keyword of Python")
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)


def _literal(text: str) -> Any:
    """Read a default written in SQL: a number, a string, true, false, null; else the text itself."""
    known = {"null": None, "true": True, "false": False}
    if text.lower() in known:
        return known[text.lower()]
    if text.startswith("'"):
        return text[1:-1].replace("''", "'")
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
