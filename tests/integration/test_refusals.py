"""Whether a server that refuses a connection will do so again: known by SQLSTATE, in any language."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql

from celery_pgbg.database.sessions import connect
from celery_pgbg.devserver.ports import LOOPBACK, free_port
from celery_pgbg.errors import ServerRefused, SessionLost
from tests.fix_server import url_of


def connected(dsn: str) -> None:
    connect(dsn, application_name="test", connect_timeout=5).close()


@pytest.fixture
def role(server_dsn: str) -> Iterator[str]:
    """A role that nobody else uses."""
    name = f"pgbg_test_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server_dsn, autocommit=True) as session:
        session.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        yield name
        session.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


def test_a_missing_database_or_role_is_refused_for_good(server_dsn: str) -> None:
    for changed in ({"dbname": "pgbg_test_nowhere"}, {"user": "pgbg_test_nobody"}):
        with pytest.raises(ServerRefused):
            connected(url_of(server_dsn, **changed))


def test_a_role_that_may_not_log_in_or_connect_is_refused_for_good(
    server_dsn: str, new_database: Callable[[], str], role: str
) -> None:
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as session:
        database, name = sql.Identifier(session.info.dbname), sql.Identifier(role)
        session.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(database))
        with pytest.raises(ServerRefused):
            connected(url_of(dsn, user=role))
        session.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(name))
    with pytest.raises(ServerRefused):
        connected(url_of(server_dsn, user=role))


def test_a_server_that_is_full_for_this_role_may_let_it_in_later(server_dsn: str, role: str) -> None:
    with psycopg.connect(server_dsn, autocommit=True) as session:
        session.execute(sql.SQL("ALTER ROLE {} CONNECTION LIMIT 0").format(sql.Identifier(role)))
    with pytest.raises(SessionLost):
        connected(url_of(server_dsn, user=role))


def test_words_of_a_refusal_do_not_decide(server_dsn: str) -> None:
    name = "authentication failed: the password does not exist"
    with psycopg.connect(server_dsn, autocommit=True) as session:
        session.execute(sql.SQL("CREATE ROLE {} LOGIN CONNECTION LIMIT 0").format(sql.Identifier(name)))
        try:
            with pytest.raises(SessionLost, match=name):
                connected(url_of(server_dsn, user=name))
        finally:
            session.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_of_several_servers_all_must_refuse_for_good(server_dsn: str) -> None:
    nowhere = url_of(server_dsn, dbname="pgbg_test_nowhere")
    given = psycopg.conninfo.conninfo_to_dict(nowhere)
    hosts, ports = f"{LOOPBACK},{given['host']}", f"{free_port()},{given['port']}"
    with pytest.raises(SessionLost):
        connected(psycopg.conninfo.make_conninfo(nowhere, host=hosts, port=ports))
    with pytest.raises(ServerRefused):
        connected(psycopg.conninfo.make_conninfo(nowhere, host=f"{given['host']},{given['host']}"))
