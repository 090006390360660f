"""Splitting several statements, without a server."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_pgbg.database import libpg_query, splitting
from celery_pgbg.database.libpg_query import CannotParse, LibraryMissing
from celery_pgbg.database.splitting import find_statements, split
from celery_pgbg.errors import ConfigurationError
from tests.statements import GAPS, NEWER, STATEMENTS


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("SELECT 1", "SELECT 1"),
        ("SELECT 1;", "SELECT 1;"),
        ("SELECT ';'", "SELECT ';'"),
        ("SELECT 1; SELECT 2", "SELECT 2"),
        ("SELECT 1; SELECT 2 ; ", "SELECT 2"),
        ("SELECT 1; SELECT 2; -- that was it;", "SELECT 2"),
        ("SELECT 1 /* ; /* nested; */ ; */; SELECT 2", "SELECT 2"),
        ("DO $x$ BEGIN; $$;$$ END; $x$; SELECT 2", "SELECT 2"),
        (r"SELECT E'it\'s;'; SELECT 2", "SELECT 2"),
        (r"SELECT 'a\'; SELECT 2", "SELECT 2"),
        ("SELECT 'it''s;'; SELECT 2", "SELECT 2"),
        ('SELECT "a;b"; SELECT 2', "SELECT 2"),
        ("CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); SELECT 3", "SELECT 3"),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END; SELECT 3",
            "SELECT 3",
        ),
        ("SELECT 'é;'; SELECT '😀;'", "SELECT '😀;'"),
        (";;SELECT 1", "SELECT 1"),
        ("SELECT 1; /* SELECT 2 */ ; SELECT 2; /* SELECT 2 */", "SELECT 2"),
    ],
)
def test_the_last_statement_is_split_off(text: str, last: str) -> None:
    preamble, statement = split(text)
    assert statement.strip().rstrip(";").strip().removesuffix("-- that was it") == last.rstrip(";")
    before = text.removesuffix("; /* SELECT 2 */").removesuffix("/* SELECT 2 */ ; SELECT 2")
    assert (preamble or "").strip() == before[: before.rindex(last) if last in before else None].strip().lstrip(";")


def test_a_text_that_has_no_end_is_one_statement() -> None:
    assert split("SELECT 'never closed; SELECT 2") == (None, "SELECT 'never closed; SELECT 2")


@st.composite
def texts(draw: Any, statements: list[str]) -> tuple[str, list[str]]:
    """Some statements and the text that they make together."""
    chosen = draw(st.lists(st.sampled_from(statements), min_size=1, max_size=4))
    text = draw(st.sampled_from(GAPS))
    for statement in chosen:
        text += statement + draw(st.sampled_from(["\n;", "\n; ;"])) + draw(st.sampled_from(GAPS))
    return text, chosen


def _found(text: str) -> list[str]:
    data = text.encode()
    return [data[start:end].decode().rstrip("\n") for start, end in find_statements(data)[0]]


@given(texts(STATEMENTS))
def test_statements_are_found_in_any_company(made: tuple[str, list[str]]) -> None:
    assert _found(made[0]) == made[1]


@given(texts(STATEMENTS + NEWER))
def test_so_are_those_that_the_parser_does_not_know(made: tuple[str, list[str]]) -> None:
    assert _found(made[0]) == made[1]


@given(texts(STATEMENTS))
def test_the_scanners_tokens_give_what_the_parser_gives(made: tuple[str, list[str]]) -> None:
    data = made[0].encode()
    by_tokens = splitting._find_by_tokens(data, libpg_query.scan(data))
    assert [data[start:end].decode().rstrip("\n") for start, end in by_tokens] == made[1]


@pytest.mark.parametrize(
    ("text", "count", "seconds"),
    [
        ("INSERT INTO t (a, b) VALUES (1, 'some text; and more of it, as long as it is');\n" * 8000, 8000, 1.0),
        ("SELECT '" + "it''s; " * 1_700_000 + "'; SELECT 2", 2, 2.0),
    ],
)
def test_long_texts_take_no_long_time(text: str, count: int, seconds: float) -> None:
    """Alone on a machine it is a twentieth of that."""
    data = text.encode()
    began = time.process_time()
    assert len(find_statements(data)[0]) == count
    assert time.process_time() - began < seconds


@pytest.mark.parametrize("nested", ["(" * 200_000, "NOT " * 200_000, "1+" * 200_000 + "1"])
def test_what_is_nested_deeply_harms_nothing(nested: str) -> None:
    assert len(find_statements(f"SELECT {nested}".encode())[0]) == 1


def test_without_the_library_one_statement_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise LibraryMissing("not here")

    monkeypatch.setattr(libpg_query, "_library", missing)
    assert split("SELECT 1;") == (None, "SELECT 1;")
    with pytest.raises(ConfigurationError, match=r"several statements.*not here"):
        split("SELECT 1; SELECT 2")


def test_a_tree_too_deep_is_none() -> None:
    with pytest.raises(CannotParse, match="deep"):
        libpg_query.parse(b"SELECT " + b"1+" * 1900 + b"1")


def test_hints_for_the_planner_stay_with_the_last_statement() -> None:
    preamble, statement = split("SELECT 1;\n/*+ SeqScan(t) */\nSELECT * FROM t")
    assert (preamble, statement.strip()) == ("SELECT 1;", "/*+ SeqScan(t) */\nSELECT * FROM t")
