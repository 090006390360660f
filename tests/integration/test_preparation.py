"""Statements of a task beside the same text on a plain connection of psycopg, which is what they must do."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors

from celery_pgbg.database.preparation import prepare
from celery_pgbg.database.values import to_exception
from celery_pgbg.errors import BindingError, TaskDefinitionError
from celery_pgbg.execution.runner import Runner
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import Raised, Returned
from celery_pgbg.settings import read_settings
from celery_pgbg.watch import Watch
from tests.fix_runner import order, run


@pytest.fixture(scope="module")
def runner(dsn: str) -> Iterator[Runner]:
    """One for all tests here."""
    made = Runner(dsn, read_settings({"pgbg_dsn": dsn}))
    yield made
    made.close()


@pytest.fixture
def new_schema(database: Any) -> Iterator[str]:
    """A schema of the test's own, which the test's session looks into."""
    name = f"texts_{uuid.uuid4().hex[:12]}"
    database.execute(f"CREATE SCHEMA {name}; SET search_path = {name}")
    yield name
    database.execute(f"DROP SCHEMA {name} CASCADE")


def refused(runner: Runner, asked: Order) -> psycopg.Error:
    """The error of an order that gets no background worker."""
    watch = Watch(asked.attempt)
    ending = runner.run(asked, watch)
    assert watch.pid is None, "a background worker was spent"
    assert isinstance(ending, Raised)
    return to_exception(ending.report)


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FORM users",
        "SELECT 1 FROM",
        "SELECT 'é' FROM;",
        "SELECT 1;\n\n  UPDATE t SET a == 1",
        "SELECT 'never closed; SELECT 2",
        'SELECT "never closed',
        "SELECT /* never closed",
        "SELECT 1a",
        "SELECT (1",
        "SELECT ';' ; SELEC 2; SELECT 3",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1",
        "SELECT " + "x, " * 40 + "FROM FROM",
    ],
)
def test_bad_sql_is_refused_with_psycopgs_words_and_place(
    runner: Runner, database: Any, text: str, atomic: bool
) -> None:
    with pytest.raises(psycopg.Error) as raised:
        database.execute(text)
    error = refused(runner, order(text, atomic=atomic))
    assert (type(error), str(error)) == (type(raised.value), str(raised.value).rstrip("\n"))
    assert error.diag.statement_position == raised.value.diag.statement_position


class TestWhatTheParserDoesNotKnow:
    """Newer syntax goes to the server, which here knows only what our parser knows."""

    @pytest.mark.parametrize(
        ("text", "statement"),
        [
            # Each is an error of the server's with the SQLSTATE of a syntax error, but of another kind.
            ("SELECT 1, ''::no_type; INSERT INTO t VALUES (1, 2, 3)", " INSERT INTO t VALUES (1, 2, 3)"),
            ("INSERT INTO pg_class VALUES (1, 2, 3)", None),
        ],
    )
    def test_what_is_no_error_of_the_grammar_is_none(
        self, database: Any, monkeypatch: pytest.MonkeyPatch, text: str, statement: str | None
    ) -> None:
        monkeypatch.setattr("celery_pgbg.database.libpg_query.find_statements", _knows_nothing)
        assert prepare(database, order(text)).statement.strip() == (statement or text).strip()

    def test_a_text_is_not_run_and_locks_nothing(
        self, database: Any, dsn: str, table: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("celery_pgbg.database.libpg_query.find_statements", _knows_nothing)
        with psycopg.connect(dsn) as other, database.transaction():
            other.execute(f"LOCK {table} IN ACCESS EXCLUSIVE MODE")
            database.execute("SET LOCAL statement_timeout = '5s'")
            prepare(database, order(f"INSERT INTO {table} VALUES ('x')"))
            # The session's own transaction goes on.
            assert database.execute("SELECT 1").fetchone() == (1,)
        assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def _knows_nothing(data: bytes) -> Any:
    from celery_pgbg.database.libpg_query import CannotParse

    raise CannotParse("newer")


@pytest.mark.parametrize(
    ("text", "error", "hint"),
    [
        ("VACUUM", errors.ActiveSqlTransaction, "atomic=False"),
        ("SELECT 1; vacuum (analyze) pg_class", errors.ActiveSqlTransaction, "atomic=False"),
        ("/* now */ CREATE INDEX CONCURRENTLY ON t (v)", errors.ActiveSqlTransaction, "atomic=False"),
        ("DROP INDEX CONCURRENTLY i", errors.ActiveSqlTransaction, "atomic=False"),
        ("REINDEX TABLE CONCURRENTLY pg_class", errors.ActiveSqlTransaction, "atomic=False"),
        ("CREATE DATABASE d", errors.ActiveSqlTransaction, "atomic=False"),
        ("DROP DATABASE no_such", errors.ActiveSqlTransaction, "atomic=False"),
        ("ALTER SYSTEM SET work_mem = '5MB'", errors.ActiveSqlTransaction, "atomic=False"),
        ("SELECT 1; CLUSTER", errors.ActiveSqlTransaction, "atomic=False"),
    ],
)
def test_what_must_stand_alone_is_refused_as_in_a_transaction(
    runner: Runner, database: Any, text: str, error: type[psycopg.Error], hint: str
) -> None:
    raised = refused(runner, order(text))
    assert isinstance(raised, error)
    assert hint in (raised.diag.message_hint or "")
    with pytest.raises(psycopg.Error) as expected, database.transaction():
        database.execute(text)
    assert isinstance(expected.value, (error, errors.UndefinedTable, errors.UndefinedObject))


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("BEGIN", "BEGIN"), ("COMMIT", "COMMIT"), ("start transaction", "START TRANSACTION"),
        ("ROLLBACK", "ROLLBACK"), ("SAVEPOINT a", "SAVEPOINT"), ("RELEASE a", "RELEASE SAVEPOINT"),
        ("ROLLBACK TO a", "ROLLBACK TO SAVEPOINT"),
        ("PREPARE TRANSACTION 'a'", "PREPARE TRANSACTION"), ("COMMIT PREPARED 'a'", "COMMIT PREPARED"),
        ("END", "COMMIT"),
    ],
)  # fmt: skip
def test_transaction_commands_are_refused_with_the_cure(runner: Runner, text: str, name: str, atomic: bool) -> None:
    error = refused(runner, order(text, atomic=atomic))
    assert isinstance(error, errors.FeatureNotSupported)
    assert error.diag.message_primary == f"{name} cannot run in a task"
    assert "one transaction" in (error.diag.message_hint or "")


@pytest.mark.parametrize("text", ["COPY pg_class TO STDOUT", "SELECT 1; COPY t FROM STDIN"])
def test_copy_from_and_to_a_client_is_refused_with_the_cure(runner: Runner, text: str) -> None:
    error = refused(runner, order(text))
    assert isinstance(error, errors.FeatureNotSupported)
    assert "jsonb_to_recordset" in (error.diag.message_hint or "")


@pytest.mark.parametrize(
    ("text", "params", "cure"),
    [
        ("SELECT 1 WHERE 1 IN %(ids)s", {"ids": [1, 2]}, r"IN %\(ids\)s takes no list: write = ANY\(%\(ids\)s\)"),
        ("SELECT :month", {"month": 7}, r"a placeholder is written %\(month\)s, not :month"),
        ("SELECT 'x' LIKE 'a%'", {}, "a percent sign is written %%"),
        ("SELECT '%(a)s'", {"a": "x"}, r"a placeholder stands without quotation marks: %\(a\)s, not '%\(a\)s'"),
        ("\\set x 1\nSELECT 1", {}, r"\\set is a command of psql, not SQL"),
        ("SELECT 1;\n  \\d+ t", {}, r"\\d\+ is a command of psql, not SQL"),
        ("COPY t FROM stdin;\n1\tx\n\\.\nSELECT 1", {}, "the rows after COPY FROM STDIN are not SQL: give them"),
    ],
)
def test_placeholders_as_people_write_them_first_are_refused_with_the_cure(
    runner: Runner, text: str, params: dict[str, Any], cure: str
) -> None:
    with pytest.raises(BindingError, match=cure):
        run(runner, order(text, params=params))


def test_a_statement_that_is_no_sql_keeps_its_error(runner: Runner) -> None:
    text = "SELEC 1 -- IN %(n)s, and m::text"
    assert isinstance(refused(runner, order(text, params={"n": 1, "text": "x"})), errors.SyntaxError)


def test_several_statements_do_not_stand_alone(runner: Runner) -> None:
    assert isinstance(refused(runner, order("SELECT 1; SELECT 2", atomic=False)), errors.ActiveSqlTransaction)


@pytest.mark.parametrize("text", ["", " ", ";", "-- a comment", "/* a */ ; -- b"])
@pytest.mark.parametrize("atomic", [True, False])
def test_no_statement_is_an_error(runner: Runner, text: str, atomic: bool) -> None:
    with pytest.raises(TaskDefinitionError, match="empty"):
        run(runner, order(text, atomic=atomic))


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1 AS a INTO made",
        "  select 1 AS a into TEMP made",
        "WITH x AS (SELECT 1 AS a UNION SELECT 2) SELECT a INTO made FROM x",
        "SELECT 5; SELECT 1 AS a INTO made; SELECT * FROM made",
        "SELECT 1 AS a INTO made; SELECT 2 AS a INTO made2; INSERT INTO made SELECT * FROM made2",
        "INSERT INTO effects VALUES (1); SELECT 1 AS a INTO made",
        "SELECT 1 AS into",
        "(SELECT v.a, '; INTO x' AS b FROM (VALUES (1), (2)) AS v (a)) ORDER BY 1",
        '((SELECT 1 AS a INTO TABLE pg_temp."ma""de" UNION SELECT (2)) ORDER BY 1 LIMIT 1)',
        "WITH x AS (INSERT INTO effects VALUES (4), (5) RETURNING a) SELECT a FROM x",
        "SELECT 'é' AS a, 1 INTO LOCAL TEMPORARY made FROM effects -- INTO\n; SELECT 'é' AS a /* INTO */",
    ],
)
@pytest.mark.parametrize("returns", [None, "count", "rows"])
def test_select_into_does_what_it_does_elsewhere(
    runner: Runner, database: Any, new_schema: str, text: str, returns: Any
) -> None:
    settings = {"search_path": new_schema}
    database.execute("CREATE TABLE effects (a int)")
    with database.transaction(force_rollback=True):
        cursor = database.execute(text)
        while cursor.nextset():
            pass
        rows = cursor.fetchall() if cursor.description else None
        names = [column.name for column in cursor.description or ()]
        count = cursor.rowcount
    ending = run(runner, order(text, returns=returns, settings=settings))
    if returns == "rows" and rows is None:
        assert isinstance(ending, Raised)
        assert "returns no rows" in ending.report.message
    elif rows is None or returns == "count":
        assert ending == Returned(count)
    else:
        assert ending == Returned([dict(zip(names, row, strict=True)) for row in rows])


class TestWhatIsSet:
    """What takes effect on a client's statement only is put into the launch, or refused with the cure."""

    @pytest.mark.parametrize(
        "text",
        [
            "SET LOCAL statement_timeout = '100ms'; SELECT pg_sleep(30)",
            "SET work_mem = '5MB'; set statement_timeout TO 100; SELECT pg_sleep(30)",
        ],
    )
    def test_a_timeout(self, runner: Runner, text: str) -> None:
        ending = run(runner, order(text))
        assert isinstance(ending, Raised)
        assert isinstance(to_exception(ending.report), errors.QueryCanceled)

    @pytest.mark.parametrize(
        "text",
        [
            "SELECT 1; SET statement_timeout = '1s'; SELECT 2",
            "SET statement_timeout = '1s'; SELECT 1; SELECT 2",
        ],
    )
    def test_a_timeout_between_statements_is_refused(self, runner: Runner, text: str) -> None:
        with pytest.raises(TaskDefinitionError, match=r'settings=\{"statement_timeout": "1s"\}'):
            run(runner, order(text))

    @pytest.mark.parametrize(
        "text",
        [
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SHOW transaction_isolation",
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SET work_mem = '5MB'; SHOW transaction_isolation",
            "set local transaction_isolation = 'serializable'; SELECT current_setting('transaction_isolation')",
        ],
    )
    def test_an_isolation_level(self, runner: Runner, text: str) -> None:
        assert run(runner, order(text, returns="value")) == Returned("serializable")

    def test_an_isolation_level_that_comes_too_late(self, runner: Runner, database: Any) -> None:
        text = "SELECT 1; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT 2"
        with pytest.raises(errors.ActiveSqlTransaction):
            database.execute(text)
        error = refused(runner, order(text))
        assert isinstance(error, errors.ActiveSqlTransaction)
        assert '"default_transaction_isolation": "serializable"' in (error.diag.message_hint or "")

    def test_read_only_is_the_statement_and_not_its_outcome(self, runner: Runner) -> None:
        assert run(runner, order("SET TRANSACTION READ ONLY; SELECT 1 AS a", returns="value")) == Returned(1)
        ending = run(runner, order("SET TRANSACTION READ ONLY; CREATE TABLE t (v int)"))
        assert isinstance(ending, Raised)
        assert ending.report.sqlstate == "25006"
        # So the hint about the outcome would be wrong.
        assert not ending.report.without_outcome

    def test_what_is_set_last_for_nobody_is_left_alone(self, runner: Runner) -> None:
        assert run(runner, order("SELECT 1; SET statement_timeout = '1s'")) == Returned(0)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("CALL p(1); SELECT a FROM t", [(1,)]),
        ("CALL p(3); INSERT INTO t VALUES (7), (8) RETURNING a", [(7,), (8,)]),
        ("EXPLAIN (COSTS OFF) SELECT 1; SELECT 2 AS a", [(2,)]),
        ("PREPARE q(int) AS SELECT $1; EXECUTE q(1); DEALLOCATE q; SELECT 2 AS a", [(2,)]),
        ("CREATE FUNCTION area(int, int) RETURNS int RETURN $1*$2; SELECT area(3, 4) AS a", [(12,)]),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 AS case; SELECT 2 AS end; END; SELECT f() AS a",
            [(2,)],
        ),
    ],
)
def test_the_last_statements_rows_are_the_result(
    runner: Runner, database: Any, new_schema: str, text: str, rows: Any
) -> None:
    settings = {"search_path": new_schema}
    database.execute("CREATE TABLE t (a int);CREATE PROCEDURE p(a int) LANGUAGE SQL AS 'INSERT INTO t VALUES (a)'")
    assert run(runner, order(text, settings=settings)) == Returned([{"a": value} for (value,) in rows])


def test_a_statement_alone_may_have_comments(runner: Runner) -> None:
    assert run(runner, order("/* alone */ VACUUM pg_class; -- done", atomic=False)) == Returned("VACUUM")
