"""Splitting several statements, without a server."""

from __future__ import annotations

import pytest

from celery_pgbg.database.binding import split


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
    ],
)
def test_the_last_statement_is_split_off(text: str, last: str) -> None:
    preamble, statement = split(text)
    assert statement.strip().rstrip(";").strip().removesuffix("-- that was it") == last.rstrip(";")
    assert (preamble or "").strip() == text[: text.rindex(last)].strip().lstrip(";")


def test_a_text_the_tokenizer_does_not_know_is_one_statement() -> None:
    assert split("SELECT 'never closed; SELECT 2") == (None, "SELECT 'never closed; SELECT 2")
