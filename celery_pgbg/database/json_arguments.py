"""Dicts and lists of dicts, for which psycopg has no type of PostgreSQL, as jsonb: one task's rows for the next."""

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

#: Functions that take JSON first, or JSON after a row; those that take any value are not among them.
_CALL = re.compile(
    r"\bjsonb?_(?:(?:to_record(?:set)?|array_elements(?:_text)?|array_length|each(?:_text)?|object_keys|typeof|pretty"
    r"|path_\w+)\s*\(|populate_record(?:set)?\s*\([^(),]*,)\s*\Z",
    re.IGNORECASE,
)
_CAST_BEFORE = re.compile(r"\bcast\s*\(\s*\Z", re.IGNORECASE)
_CAST = re.compile(r"\s*::\s*(?:pg_catalog\.)?jsonb?\b(?!\s*\[)", re.IGNORECASE)
_CAST_AS = re.compile(r"\s+as\s+jsonb?\s*\)", re.IGNORECASE)

#: Characters before a placeholder in which the call around it is looked for.
_LOOK_BACK = 200


def with_json(session: psycopg.Connection[Any], query: Any, params: Any) -> Any:
    """Make those parameters into jsonb that are dicts, dataclasses, or lists of them; in the place of JSON, any list.

    Elsewhere a list of plain values, an empty one too, stays an SQL array, and so does any value that the
    application has taught psycopg.

    Args:
        session: whose adapters make text of what JSON has no value for.
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
    """Merge as psycopg does; where its JSON encoder, or the application's, refuses a value, with ours."""
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
    """Encode as JSON; a decimal keeps its digits, and what else JSON lacks becomes the text that PostgreSQL reads.

    Raises:
        TypeError: a key is no string, number, truth value or None.
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
        # Only NaN and infinity: as texts they can be read as numbers, and JSON has none for them.
        encoded = json.dumps(_with_texts(value), default=as_text)
    return re.sub(f'"{mark}([^"]*)"', r"\1", encoded)


def _fields(item: Any) -> dict[str, Any] | None:
    """What a dataclass or a model of pydantic has, or None for anything else."""
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
    """Whether it is a dict, or a list with one, of a type that psycopg has no dumper for."""
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
    """Find the parameters that stand where only JSON can: cast to it, or given to a function that takes it."""
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
