"""SQL tasks through a real Celery worker: what a user sees."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import pytest
from celery import chain, chord, group
from psycopg import errors, sql

from tests.effects import assert_revoked_is_gone, effects, running, runs
from tests.fix_celery import Shop
from tests.waiting import eventually

WAIT = 60


def test_rows_come_back_as_dicts(shop: Shop) -> None:
    assert shop.task("add").delay(1).get(timeout=WAIT) == [{"total": 3}]


def test_values_come_back_as_python_types_through_json(shop: Shop) -> None:
    start = datetime.date(2026, 1, 31)
    assert shop.task("days").delay(start, 2).get(timeout=WAIT) == [
        {"day": datetime.date(2026, 2, 1), "quarter": Decimal("0.25")},
        {"day": datetime.date(2026, 2, 2), "quarter": Decimal("0.5")},
    ]


def test_python_tasks_run_in_the_same_celery_worker(shop: Shop) -> None:
    assert shop.task("double").delay(21).get(timeout=WAIT) == 42


def test_the_application_name_carries_the_task_and_its_id(shop: Shop) -> None:
    result = shop.task("seen_name").delay()
    assert result.get(timeout=WAIT) == f"pgbg {result.id} shop.seen_name"


def test_worker_pid_is_the_background_workers_pid(shop: Shop, database: Any) -> None:
    result = shop.task("sleep").delay(60)
    entry = shop.wait_active(result)
    query = "SELECT backend_type FROM pg_stat_activity WHERE pid = %s AND application_name LIKE %s"
    assert database.execute(query, [entry["worker_pid"], f"%{result.id}%"]).fetchone() == ("pg_background",)
    result.revoke(terminate=True)
    eventually("REVOKED", lambda: result.state == "REVOKED")


def test_several_statements_run_in_order_in_one_transaction(shop: Shop, table: str, database: Any) -> None:
    assert shop.task("several").delay(table).get(timeout=WAIT) == 2
    rows = database.execute(sql.SQL("SELECT v, xmin::text FROM {}").format(sql.Identifier(table))).fetchall()
    assert sorted(v for v, _ in rows) == ["one;!", "two;!"]
    assert len({xmin for _, xmin in rows}) == 1


def test_a_pair_binds_its_own_parameters(shop: Shop) -> None:
    assert shop.task("pair").delay(7).get(timeout=WAIT) == [{"x": 7, "y": "50%"}]


def test_a_doubled_percent_sign_is_one(shop: Shop) -> None:
    assert shop.task("percent").delay().get(timeout=WAIT) == [{"matches": True}]


def test_arguments_are_bound_and_never_pasted(shop: Shop, table: str, database: Any) -> None:
    evil = "'); DROP TABLE x; --\\' %(value)s $$ \n"
    assert shop.task("insert_unique").delay(table, evil).get(timeout=WAIT) == 1
    assert database.execute(sql.SQL("SELECT v FROM {}").format(sql.Identifier(table))).fetchone() == (evil,)


def test_a_bound_task_sees_its_request(shop: Shop) -> None:
    result = shop.task("bound").delay("!")
    assert result.get(timeout=WAIT) == f"{result.id}!"


def test_a_failure_is_psycopgs_class_with_its_message(shop: Shop) -> None:
    result = shop.task("fail").delay()
    with pytest.raises(errors.RaiseException, match="failed on purpose\nHINT:  as asked"):
        result.get(timeout=WAIT)
    assert result.state == "FAILURE"


def test_a_failure_rolls_everything_back(shop: Shop, table: str, database: Any) -> None:
    database.execute(sql.SQL("CREATE UNIQUE INDEX ON {} (v)").format(sql.Identifier(table)))
    assert shop.task("insert_unique").delay(table, "x").get(timeout=WAIT) == 1
    with pytest.raises(errors.UniqueViolation, match=r"\(v\)=\(x\)"):
        shop.task("insert_unique").delay(table, "x").get(timeout=WAIT)
    assert database.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone() == (1,)


def test_a_deferred_constraint_fails_the_task(shop: Shop, table: str, database: Any) -> None:
    name = sql.Identifier(table)
    database.execute(sql.SQL("ALTER TABLE {} ADD UNIQUE (v) DEFERRABLE INITIALLY DEFERRED").format(name))
    shop.task("insert_unique").delay(table, "x").get(timeout=WAIT)
    with pytest.raises(errors.UniqueViolation):
        shop.task("insert_unique").delay(table, "x").get(timeout=WAIT)
    assert database.execute(sql.SQL("SELECT count(*) FROM {}").format(name)).fetchone() == (1,)


def test_each_retry_is_an_attempt_of_its_own(shop: Shop, database: Any) -> None:
    database.execute("CREATE SEQUENCE IF NOT EXISTS tries")
    database.execute("ALTER SEQUENCE tries RESTART")
    result = shop.task("divide_with_retries").delay("tries")
    assert result.get(timeout=WAIT) == [{"quotient": 1}]
    attempts = database.execute(
        "SELECT attempt, succeeded FROM celery_pgbg.outcome WHERE task_id = %s ORDER BY attempt", [result.id]
    ).fetchall()
    assert attempts == [(0, False), (1, False), (2, True)]


def test_groups_chains_and_chords_work(shop: Shop) -> None:
    add, double, total = shop.task("add"), shop.task("double"), shop.task("total")
    results = group(add.s(i) for i in range(20)).apply_async().get(timeout=WAIT)
    assert [rows[0]["total"] for rows in results] == [i + 2 for i in range(20)]
    assert chord([add.s(i) for i in range(20)], total.s()).delay().get(timeout=WAIT) == sum(range(20)) + 40
    assert chain(double.s(2), add.si(3, 4)).delay().get(timeout=WAIT) == [{"total": 7}]


def test_a_statement_timeout_of_the_task_fails_it(shop: Shop, database: Any) -> None:
    database.execute("SET statement_timeout = 1")
    with pytest.raises(errors.QueryCanceled) as own:
        database.execute("SELECT pg_sleep(60)")
    # in the language of the server
    with pytest.raises(errors.QueryCanceled, match=str(own.value.diag.message_primary)):
        shop.task("too_slow").delay().get(timeout=WAIT)


def test_role_and_settings_hold_for_the_statement_only(shop: Shop, database: Any) -> None:
    database.execute(
        "DO $$ BEGIN CREATE ROLE pgbg_test_reader; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$"
    )
    assert shop.task("as_reader").delay().get(timeout=WAIT) == "pgbg_test_reader 77MB"
    assert shop.task("add").delay(1).get(timeout=WAIT) == [{"total": 3}]


@pytest.mark.parametrize(
    ("soft", "hard", "error"), [(1, None, "SoftTimeLimitExceeded"), (None, 1, "TimeLimitExceeded")]
)
def test_a_time_limit_cancels_the_statement(
    shop: Shop, table: str, database: Any, soft: float | None, hard: float | None, error: str
) -> None:
    result = shop.task("insert").apply_async((table, "x", 60), soft_time_limit=soft, time_limit=hard)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - Celery rebuilds the class, named below
        result.get(timeout=WAIT)
    assert type(caught.value).__name__ == error
    assert effects(database, table) == []
    assert running(database, result.id) == []


def test_a_time_limit_that_is_not_acknowledged_has_the_task_run_again(shop: Shop, sequence: str, database: Any) -> None:
    result = shop.task("sleep_the_first_time").apply_async((sequence,), time_limit=1)
    eventually("it has run again", lambda: runs(database, sequence) >= 2)
    eventually("success", lambda: shop.app.AsyncResult(result.id).state == "SUCCESS")


# --- statements that stand alone ---------------------------------------------------------------------


def test_vacuum_runs(shop: Shop, table: str) -> None:
    assert shop.task("vacuum").delay(table).get(timeout=WAIT) == "VACUUM"


def test_create_index_concurrently_runs(shop: Shop, table: str, database: Any) -> None:
    assert shop.task("index_concurrently").delay(table).get(timeout=WAIT) == "CREATE INDEX"
    assert database.execute("SELECT indisvalid FROM pg_index WHERE indrelid = %s::regclass", [table]).fetchone() == (
        True,
    )


def test_a_procedure_may_commit_on_its_way(shop: Shop, table: str, database: Any) -> None:
    body = (
        "CREATE PROCEDURE {}() LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO {} VALUES ('kept'); COMMIT; RAISE EXCEPTION 'later'; END $$"
    )
    procedure = f"{table}_procedure"
    database.execute(sql.SQL(body).format(sql.Identifier(procedure), sql.Identifier(table)))
    with pytest.raises(errors.RaiseException, match="later"):
        shop.task("call").delay(procedure).get(timeout=WAIT)
    assert effects(database, table) == ["kept"]


def test_an_error_of_a_standalone_statement_is_psycopgs_class(shop: Shop) -> None:
    with pytest.raises(errors.UndefinedTable):
        shop.task("vacuum").delay("no_such_table").get(timeout=WAIT)


def test_a_standalone_statement_is_revoked(shop: Shop, database: Any) -> None:
    result = shop.task("standalone_sleep").delay(60)
    shop.wait_active(result)
    result.revoke(terminate=True)
    eventually("REVOKED", lambda: result.state == "REVOKED")
    assert_revoked_is_gone(database, result.id)
