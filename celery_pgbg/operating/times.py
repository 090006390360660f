"""Spans of time as people read and write them."""

from __future__ import annotations

import re

_UNITS = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([wdhms])")


def read_seconds(text: str) -> float:
    """Read ``90`` (seconds), ``15m``, ``1d``, ``1d12h``.

    Raises:
        ValueError: the text has none of these forms.
    """
    compact = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", compact):
        return float(compact)
    if not re.fullmatch(rf"(?:{_PART.pattern}\s*)+", compact):
        raise ValueError(f"expected a time such as 90, 90s, 15m, 2h, 1d or 1d12h, got {text!r}")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(compact))


def for_people(seconds: float | None) -> str:
    """Write a time in its two largest units: ``250ms``, ``12.3s``, ``5m20s``, ``2h05m``, ``3d04h``."""
    if seconds is None:
        return "?"
    if seconds < 0.9995:
        return f"{max(seconds, 0) * 1000:.0f}ms"
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    for unit, size, below, below_size in (("d", 86_400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // below_size:02}{below}"
    return f"{whole}s"
