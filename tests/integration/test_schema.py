"""Installing and upgrading the schema."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from celery_pgbg.database import schema

_CATALOG = """
    SELECT 'column', attrelid::regclass::text, attname::text, format_type(atttypid, atttypmod), attnotnull::text,
        coalesce(pg_get_expr(adbin, adrelid), '')
    FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE attnum > 0 AND NOT attisdropped AND attrelid IN (
        SELECT oid FROM pg_class WHERE relnamespace = 'celery_pgbg'::regnamespace AND relkind IN ('r', 'i')
    )
    UNION ALL
    SELECT 'function', oid::regprocedure::text, md5(pg_get_functiondef(oid)), '', '', ''
    FROM pg_proc WHERE pronamespace = 'celery_pgbg'::regnamespace
    UNION ALL
    SELECT 'constraint', conrelid::regclass::text, conname::text, pg_get_constraintdef(oid), '', ''
    FROM pg_constraint WHERE connamespace = 'celery_pgbg'::regnamespace
    UNION ALL
    SELECT 'migration', version::text, name, '', '', '' FROM celery_pgbg.migration
    ORDER BY 1, 2, 3, 4
"""


def catalog(dsn: str) -> list[Any]:
    """Everything that is installed, in a form to compare."""
    with psycopg.connect(dsn) as session:
        return session.execute(_CATALOG).fetchall()  # type: ignore[call-overload, no-any-return]


def install(dsn: str, up_to: int | None = None) -> None:
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute(schema.install_script([], up_to).encode())


@pytest.fixture(scope="module")
def fresh(new_database: Callable[[], str]) -> list[Any]:
    """The catalog after an installation into an empty database."""
    dsn = new_database()
    install(dsn)
    return catalog(dsn)


def test_installing_again_changes_nothing(new_database: Callable[[], str], fresh: list[Any]) -> None:
    dsn = new_database()
    for _ in range(3):
        with psycopg.connect(dsn, autocommit=True) as session:
            assert schema.install(session) == schema.current_version()
    assert catalog(dsn) == fresh


@pytest.mark.parametrize("version", range(1, schema.current_version()))
def test_an_upgrade_ends_where_a_new_installation_does(
    new_database: Callable[[], str], fresh: list[Any], version: int
) -> None:
    dsn = new_database()
    install(dsn, up_to=version)
    install(dsn)
    assert catalog(dsn) == fresh


def test_the_printed_sql_run_by_psql_does_the_same(new_database: Callable[[], str], fresh: list[Any]) -> None:
    if shutil.which("psql") is None:
        pytest.skip("psql is not installed")
    dsn = new_database()
    script = schema.install_script([])
    for _ in range(2):
        command = ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", dsn]
        subprocess.run(command, input=script, text=True, check=True, capture_output=True)
    assert catalog(dsn) == fresh


def test_the_extension_is_found_in_any_schema(new_database: Callable[[], str]) -> None:
    from celery_pgbg.execution.runner import Runner
    from celery_pgbg.handles import Attempt
    from celery_pgbg.orders import Order
    from celery_pgbg.outcomes import Returned
    from celery_pgbg.settings import read_settings
    from celery_pgbg.watch import Watch

    dsn = new_database()
    install(dsn)
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute('CREATE SCHEMA "Odd one"; ALTER EXTENSION pg_background SET SCHEMA "Odd one"')
        runner = Runner(dsn, read_settings({"pgbg_dsn": dsn}))
        try:
            for number in range(2):
                attempt = Attempt(f"odd {number}")
                order = Order(attempt, "test", "test", "SELECT 1", {}, "value")
                assert runner.run(order, Watch(attempt)) == Returned(1)
                # Dropped and made again elsewhere, under a running launcher.
                session.execute("DROP EXTENSION pg_background CASCADE; CREATE EXTENSION pg_background SCHEMA public")
        finally:
            runner.close()
