"""The task's own statement in the call that a background worker shows."""

from __future__ import annotations

import json
import re

import pytest

from celery_pgbg.database import queries
from celery_pgbg.execution.control.shown_calls import statement_in


def literal(value: str | None) -> str:
    """A value as ``format('%L')`` writes it."""
    if value is None:
        return "NULL"
    quoted = "'" + value.replace("'", "''").replace("\\", "\\\\") + "'"
    return f" E{quoted}" if "\\" in value else quoted


def call(function: str, **arguments: str | None) -> str:
    """A call of one of our functions, each argument without a value with its own name."""
    created = queries.text(function, "functions")
    names = re.findall(r"^    (\w+) ", created[: created.index(")\n")], re.MULTILINE)
    assert set(arguments) <= set(names)
    verb = "CALL" if "CREATE OR REPLACE PROCEDURE" in created else "SELECT"
    return f"{verb} celery_pgbg.{function}({', '.join(literal(arguments.get(name, name)) for name in names)})"


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        "SELECT 'it''s', '\\d'",
        r"SELECT E'\\', '\''",
        "SELECT '), (NULL, ''x''",
        "",
        "''",
        "SELECT\n\t1 -- ,",
    ],
)
@pytest.mark.parametrize("task_id", ["1", "it's", "a, NULL, 'x', SELECT", "back\\slash'", "("])
def test_it_is_found_among_the_arguments(task_id: str, statement: str) -> None:
    assert statement_in(call("run_v1", task_id=task_id, preamble=None, statement=statement)) == statement
    assert statement_in(call("run_v1", task_id=task_id, preamble="SET x = '1';", statement=statement)) == (
        f"SET x = '1'; {statement}"
    )


@pytest.mark.parametrize("pieces", [["UPDATE t SET a = 'ä\\n\"' WHERE ", " AND \tb = ''"], ["SELECT 1"]])
def test_a_walks_pieces_are_joined(pieces: list[str]) -> None:
    walk = {"message": json.dumps({"text": "no"}), "statement": [{"text": text, "alias": None} for text in pieces]}
    assert statement_in(call("walk_v1", task_id="it's", walk=json.dumps(walk))) == "{batch}".join(pieces)


@pytest.mark.parametrize("function", ["run_v1", "walk_v1"])
def test_what_is_cut_off_is_shown_as_far_as_it_goes(function: str) -> None:
    text = "SELECT 'it''s', E'\\\\ä', \"b\", 'x"
    walk = json.dumps({"statement": [{"text": text}]})
    whole = call(function, **({"walk": walk} if function == "walk_v1" else {"preamble": None, "statement": text}))
    lengths = {len(statement_in(whole[:end])) for end in range(whole.index("(") + 1, len(whole))}
    assert statement_in(whole) == text
    assert max(lengths) == len(text)
    assert len(lengths) > len(text) // 2


def test_another_query_is_shown_as_it_is() -> None:
    assert statement_in("VACUUM (ANALYZE) orders") == "VACUUM (ANALYZE) orders"
