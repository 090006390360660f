"""``celery -A proj pgbg install`` and ``uninstall`` as a process, and what any command says without them."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from celery_pgbg.database import schema
from tests.fix_commands import assert_one_message, levels
from tests.fix_server import url_of


@pytest.mark.parametrize("encoding", ["UTF8", "SQL_ASCII"])
def test_install_then_doctor_is_content(
    pgbg: Callable[..., Any], new_database: Callable[..., str], encoding: str
) -> None:
    dsn = new_database(encoding=encoding)
    before = pgbg("doctor", "--json", pgbg_dsn=dsn)
    assert before.returncode == 1
    assert levels(before)["installation"] == "error"
    for expected in ("newly installed", "schema version"):
        done = pgbg("install", pgbg_dsn=dsn)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
    after = pgbg("doctor", "--json", pgbg_dsn=dsn)
    assert after.returncode == 0, after.stdout
    assert levels(after)["round trip"] == "ok"
    assert "error" not in pgbg("doctor", pgbg_dsn=dsn).stdout
    assert "pgbg.doctor" in pgbg("ps", "--all", pgbg_dsn=dsn).stdout
    assert "pgbg.doctor" in pgbg("stats", pgbg_dsn=dsn).stdout


def test_install_says_that_the_extension_cannot_be_read_in_an_encoding(pgbg: Callable[..., Any], dsn: str) -> None:
    assert schema.install_script(["a"]).isascii()
    other = f"pgbg_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute(f"CREATE DATABASE {other} TEMPLATE template0 LOCALE 'C' ENCODING 'EUC_JP'")
        try:
            with psycopg.connect(url_of(dsn, dbname=other), autocommit=True) as there:
                there.execute("CREATE EXTENSION pg_background")
        except psycopg.errors.CharacterNotInRepertoire:
            assert_one_message(pgbg("install", pgbg_dsn=url_of(dsn, dbname=other)), "databases in EUC_JP")
        else:
            assert pgbg("install", pgbg_dsn=url_of(dsn, dbname=other)).returncode == 0
        finally:
            session.execute(f"DROP DATABASE {other} WITH (FORCE)")


def test_install_prints_its_sql(pgbg: Callable[..., Any], dsn: str) -> None:
    done = pgbg("install", "--sql", "--grant-to", 'odd "role"', pgbg_dsn=dsn)
    assert "CREATE TABLE celery_pgbg.execution" in done.stdout
    assert """quote_ident('odd "role"')""" in done.stdout


def test_install_without_privilege_says_what_to_do(pgbg: Callable[..., Any], new_database: Callable[[], str]) -> None:
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("DROP ROLE IF EXISTS pgbg_test_installer; CREATE ROLE pgbg_test_installer LOGIN")
    done = pgbg("install", pgbg_dsn=url_of(dsn, user="pgbg_test_installer"))
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("DROP ROLE pgbg_test_installer")
    assert_one_message(done, "superuser")


def test_install_of_an_alias_goes_there(pgbg: Callable[..., Any], new_database: Callable[[], str], dsn: str) -> None:
    other = new_database()
    done = pgbg("install", "--database", "other", pgbg_dsn=dsn, pgbg_databases={"other": other})
    assert done.returncode == 0, done.stderr
    assert other.rpartition("/")[2] in done.stdout
    assert "unknown database alias 'othr' (did you mean 'other'?)" in (
        pgbg("doctor", "--database", "othr", pgbg_dsn=dsn, pgbg_databases={"other": other}).stdout
    )


def test_a_wrong_dsn_is_one_line(pgbg: Callable[..., Any], dsn: str) -> None:
    done = pgbg("ps", pgbg_dsn=url_of(dsn, dbname="nowhere"))
    assert_one_message(done, 'database "nowhere" does not exist')


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "pgbg_dsn is not set"),
        ({"pgbg_dns": "x"}, "did you mean 'pgbg_dsn'"),
        ({"pgbg_dsn": "postgresql://h:port/d"}, "libpq cannot read the DSN: port must be a number"),
        ({"pgbg_dsn": "postgresql://postgres@127.0.0.1:1/d"}, "no connection to 127.0.0.1:1"),
    ],
)
def test_a_wrong_setting_is_a_message(pgbg: Callable[..., Any], settings: dict[str, Any], message: str) -> None:
    assert_one_message(pgbg("ps", **settings), message)
    doctor = pgbg("doctor", "--json", **settings)
    assert doctor.returncode == 1
    assert any(found["level"] == "error" and message in found["said"] for found in json.loads(doctor.stdout))


def test_a_server_that_is_away_is_a_message_of_every_command(pgbg: Callable[..., Any]) -> None:
    for command in (["install"], ["stats"], ["purge", "--older-than", "60"], ["cancel", "--force", "x"]):
        done = pgbg(*command, pgbg_dsn="postgresql://postgres@127.0.0.1:1/d")
        assert_one_message(done, "no connection to 127.0.0.1:1")


def test_an_upgrade_does_not_wait_long_for_a_table(pgbg: Callable[..., Any], new_database: Callable[[], str]) -> None:
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute(schema.install_script([], up_to=15).encode())
    with psycopg.connect(dsn) as session:
        session.execute("SELECT FROM celery_pgbg.work")
        assert_one_message(pgbg("install", pgbg_dsn=dsn), "run the command again later")
        assert schema.installed_version(session) == 15
    assert pgbg("install", pgbg_dsn=dsn).returncode == 0


def test_the_printed_sql_lets_the_granted_role_run_tasks(
    pgbg: Callable[..., Any], new_database: Callable[[], str]
) -> None:
    if shutil.which("psql") is None:
        pytest.skip("psql is not installed")
    dsn = new_database()
    role = f"pgbg_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute(f"CREATE ROLE {role} LOGIN; REVOKE ALL ON SCHEMA public FROM PUBLIC")
        as_role = url_of(dsn, user=role)
        before = pgbg("doctor", "--json", pgbg_dsn=as_role)
        assert levels(before)["installation"] == "error"
        session.execute(schema.install_script([], senders=[role]).encode())
        assert_one_message(pgbg("ps", pgbg_dsn=as_role), "--grant-to ROLE")
        assert pgbg("uninstall", "--yes", pgbg_dsn=dsn).returncode == 0
        script = pgbg("install", "--sql", "--grant-to", role).stdout
        command = ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", dsn]
        subprocess.run(command, input=script, text=True, check=True, capture_output=True)
        after = pgbg("doctor", "--json", pgbg_dsn=as_role)
        session.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert after.returncode == 0, after.stdout
    assert levels(after)["round trip"] == "ok"


def test_purge_and_uninstall(pgbg: Callable[..., Any], new_database: Callable[[], str]) -> None:
    dsn = new_database()
    pgbg("install", pgbg_dsn=dsn)
    pgbg("doctor", pgbg_dsn=dsn)
    assert "pgbg.doctor" in pgbg("ps", "--all", pgbg_dsn=dsn).stdout
    assert "kept 1: they are younger" in pgbg("purge", "--older-than", "1d", pgbg_dsn=dsn).stdout
    assert "deleted 1 records" in pgbg("purge", "--older-than", "0", pgbg_dsn=dsn).stdout
    assert "pgbg.doctor" not in pgbg("ps", "--all", pgbg_dsn=dsn).stdout
    assert pgbg("uninstall", pgbg_dsn=dsn).returncode == 1  # nobody said yes
    assert pgbg("ps", pgbg_dsn=dsn).returncode == 0
    assert pgbg("uninstall", "--yes", pgbg_dsn=dsn).returncode == 0
    assert_one_message(pgbg("ps", pgbg_dsn=dsn), "pgbg install")
