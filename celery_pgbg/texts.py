"""Any Python string as text that PostgreSQL can store, and back."""

from __future__ import annotations

import json
import re
from typing import Any

#: Characters that PostgreSQL cannot store: NUL, and lone surrogates as made by ``os.fsdecode``.
_UNSTORABLE = "\x00\ud800-\udfff"

#: The escape of such a character. In other text that looks like an escape, the backslashes are doubled.
_ESCAPED = r"u(?:0000|d[89a-f][0-9a-f]{2})"

_TO_ESCAPE = re.compile(rf"(\\*)([{_UNSTORABLE}])|(\\+)(?={_ESCAPED})")
_TO_RESTORE = re.compile(rf"(\\+)({_ESCAPED})")


def storable(text: str) -> str:
    r"""Write a string as PostgreSQL can store it: NUL and lone surrogates are escaped, such as ``\u0000``."""
    if "\x00" not in text and "\\u" not in text and text.isascii():
        return text
    return _TO_ESCAPE.sub(_escaped, text)


def original(text: str) -> str:
    """Read a string that ``storable`` wrote."""
    return _TO_RESTORE.sub(_restored, text) if "\\u" in text else text


def as_json(value: Any) -> str:
    """Write JSON for the server, without escapes of characters, which a database with SQL_ASCII cannot read."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        # A lone surrogate, which the server refuses.
        return json.dumps(value)
    return text


def _escaped(found: re.Match[str]) -> str:
    before, character, literal = found.groups()
    if character is None:
        return 2 * str(literal)
    return f"{2 * before}\\u{ord(character):04x}"


def _restored(found: re.Match[str]) -> str:
    before, escape = found.groups()
    kept = before[: len(before) // 2]
    return kept + (chr(int(escape[1:], 16)) if len(before) % 2 else escape)
