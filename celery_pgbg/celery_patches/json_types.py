"""Registers psycopg's Python types with kombu's JSON, so that rows fit into any JSON message.

kombu knows dates, decimals, UUIDs and bytes itself. Without the other types, a task that returns an interval or a
range through another result backend would commit, and then fail when Celery stores its value. The same holds for
arguments.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from kombu.utils import json
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

#: Interfaces come first, because they are subclasses of addresses.
_ADDRESSES = (
    ipaddress.IPv4Interface,
    ipaddress.IPv6Interface,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
)


def register() -> None:
    """Register the types, except those that the application has registered itself."""
    _register(timedelta(), lambda value: [value.days, value.seconds, value.microseconds], lambda of: timedelta(*of))
    _register(Range(), lambda value: [value.lower, value.upper, value.bounds], _to_range)
    _register(Multirange(), list, Multirange)
    for kind in _ADDRESSES:
        _register(kind(0), str, kind)


def _register(example: Any, encode: Callable[[Any], Any], decode: Callable[[Any], Any]) -> None:
    kind = type(example)
    with contextlib.suppress(TypeError):
        json.dumps(example)
        return
    json.register_type(kind, f"pgbg.{kind.__name__}", encode, decode)


def _to_range(parts: list[Any]) -> Range[Any]:
    lower, upper, bounds = parts
    return Range(lower, upper, bounds) if bounds else Range(empty=True)
