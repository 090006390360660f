"""Times and tables for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_pgbg.operating.printing import Column, print_table, safe, short_ids
from celery_pgbg.operating.times import for_people, read_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5h", 5400), ("15m", 900), ("1d", 86_400), ("1d12h", 129_600), ("2 d", 172_800)],
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert read_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "d", "1x", "-1", "1d2", "yesterday", "1d-2h"])
def test_what_is_no_time_is_an_error_that_names_some(text: str) -> None:
    with pytest.raises(ValueError, match="1d12h"):
        read_seconds(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "?"), (0, "0ms"), (0.2504, "250ms"), (0.9996, "1.0s"), (12.34, "12.3s"), (59.94, "59.9s"),
        (59.96, "1m00s"), (320, "5m20s"), (3599.6, "1h00m"), (7500, "2h05m"), (273_600, "3d04h"),
        (8_640_000, "100d00h"),
    ],
)  # fmt: skip
def test_times_are_written_in_two_units(seconds: float | None, text: str) -> None:
    assert for_people(seconds) == text


@given(st.text())
def test_nothing_reaches_a_terminal_raw(text: str) -> None:
    shown = safe(text)
    assert shown.isprintable()
    shown.encode()
    assert safe(shown) == shown


def test_a_table_is_padded_by_what_it_shows_not_by_what_it_cuts(capsys: pytest.CaptureFixture[str]) -> None:
    print_table((Column("ID", 10), Column("NAME")), [("x" * 9000, "a"), ("日本", "\x1b[31mred")])
    assert capsys.readouterr().out.splitlines() == [
        "ID          NAME",
        "xxxxxxxxx…  a",
        "日本        \\x1b[31mred",
    ]


def test_short_ids_are_the_beginning_of_one_id_only() -> None:
    assert short_ids(["11111111-a", "22222222-b"]) == {"11111111-a": "11111111", "22222222-b": "22222222"}
    assert len(set(short_ids(["nightly-2026-01-01", "nightly-2026-01-02"]).values())) == 2
