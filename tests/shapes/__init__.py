"""Databases whose pg_background has the exact functions of an older line, over the library that is installed.

Names, arguments, results and what is missing are those of the line; its settings and its C code are not. An early
cancel and the end of a session's last handle, which crash the server there, raise here and are counted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

_FOLDER = Path(__file__).parent

#: Each line: how large a queue is by default, and the files of what it has.
_LINES: dict[str, tuple[int, list[str]]] = {
    "1.6": (65536, ["common"]),
    "1.8": (0, ["common", "since_1.8"]),
    # 1.10 only adds functions that we never call.
    "1.9": (0, ["common", "since_1.8", "since_1.9"]),
}

CATALOGS: dict[str, dict[str, Any]] = json.loads((_FOLDER / "catalogs.json").read_text())


def reshape(session: psycopg.Connection[Any], line: str) -> None:
    """Give the extension of a session's database the shape of an older line."""
    queue_size, files = _LINES[line]
    texts = [_text(name).replace("{queue_size}", str(queue_size)) for name in ("take_out", *files)]
    texts.append(_text("put_in").replace("{version}", sql.Literal(line).as_string(session)))
    with session.transaction():
        session.execute("\n".join(texts).encode())


def crashes(session: psycopg.Connection[Any]) -> int:
    """How often something was done in this database that crashes the server with an older line."""
    row = session.execute("SELECT last_value, is_called FROM newer.crashes").fetchone()
    assert row is not None
    return int(row[0]) if row[1] else 0


def catalog(session: psycopg.Connection[Any]) -> dict[str, Any]:
    """The functions and types of the extension in a session's database."""
    row = session.execute(_text("catalog").encode()).fetchone()
    assert row is not None
    return {"functions": row[0], "types": row[1]}


def _text(name: str) -> str:
    return (_FOLDER / f"{name}.sql").read_text()
