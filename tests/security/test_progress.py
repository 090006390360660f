"""What reports progress with the rights of its owner calls nothing but the extension's own function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import sql

from celery_pgbg.database import schema
from celery_pgbg.outcomes import Returned
from tests.fix_runner import order, run
from tests.security.conftest import superuser_rights


def test_a_function_beside_the_extensions_own_is_not_called(
    new_database: Callable[[], str], new_role: Callable[..., str]
) -> None:
    from celery_pgbg.execution.runner import Runner
    from celery_pgbg.settings import read_settings

    dsn = new_database()
    role = new_role(dsn)
    with psycopg.connect(dsn, autocommit=True) as session:
        schema.install(session)
        session.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        if session.execute("SELECT to_regproc('pg_background_report_progress')").fetchone() != (None,):
            # As where an older pg_background has only the older name.
            session.execute("""
                ALTER EXTENSION pg_background DROP FUNCTION pg_background_report_progress(integer, text);
                DROP FUNCTION pg_background_report_progress(integer, text);
            """)
        with psycopg.connect(dsn, user=role, autocommit=True) as attacker:
            for kind in ("text", "varchar", "name"):
                attacker.execute(
                    sql.SQL("""
                        CREATE FUNCTION public.pg_background_report_progress(integer, {}) RETURNS void
                        LANGUAGE plpgsql AS $$ BEGIN ALTER ROLE {} SUPERUSER; END $$
                    """).format(sql.Identifier(kind), sql.Identifier(role))
                )
        runner = Runner(dsn, read_settings({"pgbg_dsn": dsn}))
        try:
            ending: Any = run(runner, order("SELECT celery_pgbg.report_progress(50, 'half'), 1", returns="row"))
        finally:
            runner.close()
        assert isinstance(ending, Returned)
        assert not superuser_rights(session, role)
