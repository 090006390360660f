"""The owner of a database does not become superuser when a superuser installs, upgrades or looks there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import conninfo, sql

from celery_pgbg.database import schema
from celery_pgbg.errors import ConfigurationError
from celery_pgbg.execution.round_trip import round_trip
from celery_pgbg.settings import read_settings
from tests.security.conftest import superuser_rights

Databases = Callable[[], str]
Owners = Callable[[str], str]
AsRole = Callable[[str, str], str]

#: What an attacker has run by whoever calls it: it makes a superuser, and fails silently for all others.
_GET_RIGHTS = """
    CREATE SCHEMA IF NOT EXISTS traps;
    GRANT USAGE ON SCHEMA traps TO PUBLIC;
    CREATE FUNCTION traps.get_rights() RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        EXECUTE format('ALTER ROLE %I SUPERUSER', '{role}');
    EXCEPTION WHEN insufficient_privilege THEN NULL;
    END $$;
"""


@pytest.fixture
def attacked(new_database: Databases, owner_of: Owners) -> Iterator[tuple[str, str, psycopg.Connection[Any]]]:
    """A database, the role that owns it, and a session of that role, with a function that would make it superuser."""
    dsn = new_database()
    role = owner_of(dsn)
    with psycopg.connect(dsn, user=role, autocommit=True) as session:
        session.execute(_GET_RIGHTS.format(role=role).encode())
        yield dsn, role, session


def install(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as session:
        schema.install(session)


def rights_of(dsn: str, role: str) -> bool:
    with psycopg.connect(dsn, options="-c search_path=pg_catalog") as session:
        return superuser_rights(session, role)


def test_a_search_path_of_the_database_is_not_used(attacked: tuple[str, str, Any]) -> None:
    dsn, role, attacker = attacked
    attacker.execute("""
        CREATE FUNCTION traps.now() RETURNS timestamptz LANGUAGE plpgsql AS $$
        BEGIN PERFORM traps.get_rights(); RETURN pg_catalog.now(); END $$;
        CREATE FUNCTION traps.pg_advisory_xact_lock(integer) RETURNS void LANGUAGE sql AS 'SELECT traps.get_rights()';
        CREATE FUNCTION traps.pg_advisory_xact_lock(bigint) RETURNS void LANGUAGE sql AS 'SELECT traps.get_rights()';
        CREATE FUNCTION traps.equal(integer, integer) RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN PERFORM traps.get_rights(); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
        CREATE OPERATOR traps.= (LEFTARG = integer, RIGHTARG = integer, FUNCTION = traps.equal);
        CREATE DOMAIN traps.text AS pg_catalog.text CHECK (traps.get_rights() IS NOT NULL OR true);
    """)
    name = sql.Identifier(str(conninfo.conninfo_to_dict(dsn)["dbname"]))
    attacker.execute(sql.SQL("ALTER DATABASE {} SET search_path = traps, pg_catalog, public").format(name))
    install(dsn)
    install(dsn)
    with psycopg.connect(dsn, autocommit=True) as session:
        assert schema.installed_version(session) == schema.current_version()
        schema.check_installed(session)
    assert not rights_of(dsn, role)


_PREPARED = {
    "a table with a trigger": """
        CREATE SCHEMA celery_pgbg;
        CREATE TABLE celery_pgbg.migration (version integer, name text, applied_at timestamptz DEFAULT now());
        CREATE FUNCTION celery_pgbg.trap() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM traps.get_rights(); RETURN NEW; END $$;
        CREATE TRIGGER trap BEFORE INSERT ON celery_pgbg.migration FOR EACH ROW EXECUTE FUNCTION celery_pgbg.trap();
    """,
    "a view": """
        CREATE SCHEMA celery_pgbg;
        CREATE FUNCTION celery_pgbg.trap() RETURNS integer LANGUAGE plpgsql AS $$
        BEGIN PERFORM traps.get_rights(); RETURN 999; END $$;
        CREATE VIEW celery_pgbg.migration AS SELECT celery_pgbg.trap() AS version;
    """,
}


@pytest.mark.parametrize("prepared", _PREPARED.values(), ids=_PREPARED)
def test_a_schema_that_others_have_prepared_is_refused(attacked: tuple[str, str, Any], prepared: str) -> None:
    dsn, role, attacker = attacked
    attacker.execute(prepared.encode())
    with pytest.raises(psycopg.errors.InvalidSchemaDefinition, match=f"schema celery_pgbg belongs to role {role}"):
        install(dsn)
    with (
        psycopg.connect(dsn, autocommit=True) as session,
        pytest.raises(ConfigurationError, match=f"belongs to role '{role}'"),
    ):
        schema.installed_version(session)
    assert not rights_of(dsn, role)


def test_a_schema_that_was_taken_over_with_what_is_in_it_is_refused(attacked: tuple[str, str, Any]) -> None:
    dsn, role, attacker = attacked
    attacker.execute(_PREPARED["a view"].encode())
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("ALTER SCHEMA celery_pgbg OWNER TO CURRENT_USER")
        with pytest.raises(psycopg.errors.InvalidSchemaDefinition, match=rf"celery_pgbg\.\w+.* belongs to role {role}"):
            session.execute(schema.install_script([]).encode())
    assert not rights_of(dsn, role)


def test_a_superuser_does_not_use_what_another_role_has_installed(attacked: tuple[str, str, Any]) -> None:
    dsn, role, attacker = attacked
    attacker.execute(_PREPARED["a view"].encode())
    with psycopg.connect(dsn, autocommit=True) as session, pytest.raises(ConfigurationError, match="not a superuser"):
        schema.check_installed(session)
    with pytest.raises(ConfigurationError, match="not a superuser"):
        round_trip(dsn, read_settings({"pgbg_dsn": dsn}))
    assert not rights_of(dsn, role)


def test_a_role_that_is_no_superuser_may_install_and_use_its_own(new_database: Databases, owner_of: Owners) -> None:
    dsn = new_database()
    role = owner_of(dsn)
    with psycopg.connect(dsn, user=role, autocommit=True) as session:
        assert schema.install(session) == schema.current_version()
        schema.check_installed(session)
        assert schema.install(session) == schema.current_version()
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute(sql.SQL("GRANT pgbackground_role TO {}").format(sql.Identifier(role)))
    as_owner = conninfo.make_conninfo(dsn, user=role)
    assert round_trip(as_owner, read_settings({"pgbg_dsn": as_owner})) > 0


def test_members_keep_their_rights_over_upgrades_and_get_no_more(
    new_database: Databases, new_role: Callable[..., str]
) -> None:
    dsn = new_database()
    member, other = new_role(dsn), new_role(dsn)
    with psycopg.connect(dsn, autocommit=True) as session:
        schema.install(session, [member])
        session.execute("CREATE TABLE celery_pgbg.later (n integer)")
        session.execute("CREATE FUNCTION celery_pgbg.later() RETURNS void LANGUAGE sql RETURN NULL")
        schema.install(session)
        rights = """
            SELECT has_table_privilege(%(role)s, 'celery_pgbg.later', 'INSERT'),
                has_function_privilege(%(role)s, 'celery_pgbg.later()', 'EXECUTE'),
                has_table_privilege(%(role)s, 'celery_pgbg.migration', 'SELECT'),
                has_table_privilege(%(role)s, 'celery_pgbg.migration', 'INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER'),
                has_table_privilege(%(role)s, 'celery_pgbg.member', 'INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER')
        """
        assert session.execute(rights, {"role": member}).fetchone() == (True, True, True, False, False)
        assert session.execute(rights, {"role": other}).fetchone() == (False, False, False, False, False)
        for_all = """
            SELECT proname FROM pg_proc
            WHERE pronamespace = 'celery_pgbg'::regnamespace AND has_function_privilege(%s, oid, 'EXECUTE') ORDER BY 1
        """
        assert session.execute(for_all, [other]).fetchall() == [
            ("call_procedure",), ("current_task",), ("report_progress",),
        ]  # fmt: skip
