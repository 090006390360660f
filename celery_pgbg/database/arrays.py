"""Arrays as PostgreSQL reads them: psycopg looks at each element several times to find a type, which the SQL says."""

from __future__ import annotations

from collections.abc import Iterable


class ArrayText(str):
    """An array as text."""

    __slots__ = ()


def as_array(values: Iterable[str | int | bool | None]) -> ArrayText:
    """Write values, which may be None, as the text of a one-dimensional array; for a parameter that SQL casts.

    Args:
        values: of the one type that the cast has elements of; JSON as text.
    """
    return ArrayText(f"{{{','.join([_element(value) for value in values])}}}")


def _element(value: str | int | bool | None) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"') if "\\" in value or '"' in value else value
        return f'"{escaped}"'
    return str(value)
