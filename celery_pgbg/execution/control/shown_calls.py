"""The task's own statement in the call that its background worker shows as its query.

No table has it: what runs in a background worker of its own passes through none of ours.
"""

from __future__ import annotations

import json
import re
from itertools import islice

#: Places of the task's own texts among the arguments of a call: the preamble and the statement, and the walk.
_OF_RUN, _OF_WALK = (6, 8), (4, 5)

#: One argument as ``format('%L')`` writes it. The last may be cut off by ``track_activity_query_size``.
_ARGUMENT = re.compile(r"(?P<escaped>E)?'(?P<text>[^']*(?:''[^']*)*)'?|[^\s,()']+")

#: Texts of a walk's statement, between which the range of each batch goes.
_PIECE = re.compile(r'"text": "((?:[^"\\]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*)')


def statement_in(query: str) -> str:
    """Take the task's own statement, or what the server shows of it, out of the call that runs it."""
    call, _, arguments = query.partition("(")
    match call:
        case "SELECT celery_pgbg.run_v1":
            return " ".join(_texts(arguments, *_OF_RUN))
        case "CALL celery_pgbg.walk_v1":
            pieces = [piece for walk in _texts(arguments, *_OF_WALK) for piece in _PIECE.findall(walk)]
            return "{batch}".join(json.loads(f'"{piece}"') for piece in pieces)
        case _:
            return query


def _texts(arguments: str, first: int, end: int) -> list[str]:
    """Read those of these arguments that are strings."""
    found = islice(_ARGUMENT.finditer(arguments), first, end)
    return [_unquoted(argument) for argument in found if argument["text"] is not None]


def _unquoted(argument: re.Match[str]) -> str:
    text = argument["text"].replace("''", "'")
    return text.replace(r"\\", "\\") if argument["escaped"] else text
