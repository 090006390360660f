"""Dicts and lists of dicts as jsonb, so that one task's rows can be the next task's argument."""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
from collections.abc import Mapping
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.adapt import PyFormat, Transformer
from psycopg.types.json import Json, Jsonb, set_json_dumps

_PLACEHOLDER = re.compile(r"%(?:%|\((?P<name>[^)]*)\)[sbt]|[sbt])")

#: Functions with JSON as the first argument, or after a row; functions that take any value are not included.
_CALL = re.compile(
    r"\bjsonb?_(?:(?:to_record(?:set)?|array_elements(?:_text)?|array_length|each(?:_text)?|object_keys|typeof|pretty"
    r"|path_\w+)\s*\(|populate_record(?:set)?\s*\([^(),]*,)\s*\Z",
    re.IGNORECASE,
)
_CAST_BEFORE = re.compile(r"\bcast\s*\(\s*\Z", re.IGNORECASE)
_CAST = re.compile(r"\s*::\s*(?:pg_catalog\.)?jsonb?\b(?!\s*\[)", re.IGNORECASE)
_CAST_AS = re.compile(r"\s+as\s+jsonb?\s*\)", re.IGNORECASE)

#: How many characters before a placeholder are searched for the call around it.
_LOOK_BACK = 200


def with_json(session: psycopg.Connection[Any], query: Any, params: Any) -> Any:
    """Make dicts, dataclasses and lists of them into jsonb; in a place for JSON, every list.

    Elsewhere a list of plain values, also an empty one, stays an SQL array. A type that the application has registered
    with psycopg stays unchanged.

    Args:
        session: its adapters make text of values that JSON lacks.
        query: what psycopg takes as a query.
        params: by name or in order; None stays None.
    """
    items = list(params.items()) if isinstance(params, Mapping) else list(enumerate(params or ()))
    lists = {key for key, value in items if isinstance(value, list)}
    places = _places_of_json(session, query) if lists else set()
    changed = {
        key: Jsonb(value, dumps=partial(dumps, session))
        for key, value in items
        if (key in lists and key in places) or _has_dict(session, value)
    }
    if not changed:
        return params
    made = [(key, changed.get(key, value)) for key, value in items]
    return dict(made) if isinstance(params, Mapping) else tuple(value for _, value in made)


def mogrify(session: psycopg.Connection[Any], query: Any, params: Any) -> str:
    """Merge as psycopg does; if psycopg's or the application's JSON encoder refuses a value, use ours."""
    try:
        return psycopg.ClientCursor(session).mogrify(query, params)
    except TypeError:
        values = params.values() if isinstance(params, Mapping) else params or ()
        if not any(isinstance(value, (Json, Jsonb)) for value in values):
            raise
    cursor = psycopg.ClientCursor(session)
    set_json_dumps(partial(dumps, session), cursor)
    return cursor.mogrify(query, params)


def dumps(session: psycopg.Connection[Any], value: Any) -> str:
    """Encode as JSON; a decimal keeps its digits, and other types that JSON lacks become PostgreSQL's text form.

    Raises:
        TypeError: a key is not a string, number, truth value or None.
        psycopg.ProgrammingError: psycopg cannot adapt a value.
    """
    mark = secrets.token_hex(8)

    def as_text(item: Any) -> Any:
        if (fields := _fields(item)) is not None:
            return fields
        if hasattr(item, "isoformat"):
            return str(item.isoformat())
        if isinstance(item, UUID):
            return str(item)
        made = Transformer(session).get_dumper(item, PyFormat.TEXT).dump(item)
        text = bytes(made or b"").decode()
        return mark + text if _is_number(item) else text

    try:
        encoded = json.dumps(value, default=as_text, allow_nan=False)
    except ValueError:
        # Only NaN and infinity: JSON lacks them, and as texts they can be read as numbers.
        encoded = json.dumps(_with_texts(value), default=as_text)
    return re.sub(f'"{mark}([^"]*)"', r"\1", encoded)


def _fields(item: Any) -> dict[str, Any] | None:
    """The fields of a dataclass or a pydantic model, or None for any other value."""
    if isinstance(item, type):
        return None
    if hasattr(item, "model_dump"):
        return dict(item)
    if dataclasses.is_dataclass(item):
        return {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
    return None


def _is_number(item: Any) -> bool:
    return hasattr(item, "is_finite") and item.is_finite()


def _with_texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_texts(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_texts(item) for item in value]
    return str(value) if isinstance(value, float) and value - value != 0 else value


def _has_dict(session: psycopg.Connection[Any], value: Any) -> bool:
    """Whether a value is a dict, or a list with a dict, of a type without a psycopg dumper."""
    if isinstance(value, list):
        return any(_has_dict(session, item) for item in value)
    if not isinstance(value, dict) and _fields(value) is None:
        return False
    try:
        session.adapters.get_dumper(type(value), PyFormat.TEXT)
    except psycopg.ProgrammingError:
        return True
    return False


def _places_of_json(session: psycopg.Connection[Any], query: Any) -> set[Any]:
    """Find the parameters in places for JSON only: with a cast to JSON, or as argument of a JSON function."""
    text = query.as_string(session) if isinstance(query, sql.Composable) else query
    if not isinstance(text, str):
        return set()
    found: set[Any] = set()
    positions = (match for match in _PLACEHOLDER.finditer(text) if match.group() != "%%")
    for number, match in enumerate(positions):
        before = text[max(0, match.start() - _LOOK_BACK) : match.start()]
        is_cast = _CAST.match(text, match.end()) or (_CAST_BEFORE.search(before) and _CAST_AS.match(text, match.end()))
        if is_cast or _CALL.search(before):
            found.add(number if match["name"] is None else match["name"])
    return found
