"""Any Python string as text of PostgreSQL, and back."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from celery_pgbg.texts import original, storable

#: Lone surrogates, NUL, and what looks like their escapes.
pieces = st.sampled_from(["\\", "u0000", "ud800", "udce9", "\\u0000", "\x00", "\ud800", "\udce9", "u", "d8", "é"])


@given(st.text() | st.lists(pieces | st.characters()).map("".join))
@example("\\\x00u0000")
def test_any_string_comes_back(text: str) -> None:
    written = storable(text)
    assert "\x00" not in written
    written.encode()
    assert original(written) == text


@given(st.text(), st.text())
def test_different_strings_stay_different(one: str, other: str) -> None:
    assert (storable(one) == storable(other)) == (one == other)


@pytest.mark.parametrize("text", ["", "plain", "C:\\users\\new", "\N{SNOWMAN} \\N{SNOWMAN}", '{"a": "\\u00e9"}'])
def test_what_postgresql_can_hold_is_left_as_it_is(text: str) -> None:
    assert storable(text) == text
