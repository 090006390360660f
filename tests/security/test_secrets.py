"""Secrets, where settings are shown."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from celery import Celery
from celery.app.utils import bugreport
from celery.worker.consumer.connection import Connection as ConnectionStep
from kombu import Connection
from psycopg.pq import Conninfo

from celery_pgbg.backend import PostgresBackend
from celery_pgbg.configuration import settings_of

SECRET = "hunter2"

#: What the libpq in use knows; others are errors, which show nothing.
KNOWN = {option.keyword.decode() for option in Conninfo.get_defaults()}
PARAMETERS = ["password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"]

ENDINGS = ["", "?", "@", "/", "?a=b", "?user=x", "%", "#", "&"]
ADDRESSES = [
    *(f"postgresql://user@host/db?{name}={SECRET}" for name in PARAMETERS),
    *(f"host=h dbname=d {name}={SECRET}" for name in PARAMETERS),
    *(
        f"postgresql://user:{SECRET}{word}@host:5433/db"
        for word in ("", "?", "@", "/", "?a=b", "?user=x", "%", "#", "&")
    ),
    *(f"postgresql://user:{word}{SECRET}@host/db" for word in ("?", "1?", "1?a=", "@", "/", "?user=", "a?b@c?d")),
]


@pytest.mark.parametrize("dsn", ADDRESSES)
def test_no_secret_is_shown(dsn: str) -> None:
    app = Celery("shown", broker="memory://", set_as_current=False)
    app.conf.update(pgbg_dsn=dsn, pgbg_databases={"other": dsn})
    assert SECRET not in repr(settings_of(app))
    if dsn.startswith("postgresql"):
        app.conf.update(result_backend=f"pgbg+{dsn}", broker_url=dsn.replace("postgresql", "pgbg", 1))
    assert SECRET not in app.conf.humanize(with_defaults=False)
    assert SECRET not in str(app.conf.table(with_defaults=False, censored=True))
    assert SECRET not in bugreport(app)


@pytest.mark.parametrize("name", sorted(KNOWN & set(PARAMETERS)))
def test_the_rest_is_shown(name: str) -> None:
    app = Celery("shown", broker="memory://", set_as_current=False)
    app.conf.update(pgbg_dsn=f"host=somewhere dbname=db {name}={SECRET}")
    assert "host=somewhere" in app.conf.humanize(with_defaults=False)


def test_a_backends_url_is_shown_without_them() -> None:
    app = Celery("shown", broker="memory://", set_as_current=False)
    backend = PostgresBackend(app, url=f"postgresql://user:a?{SECRET}@host/db?sslpassword={SECRET}")
    assert SECRET not in backend.as_uri()
    assert "host/db" in backend.as_uri()


@pytest.mark.parametrize("dsn", [dsn for dsn in ADDRESSES if dsn.startswith("postgresql")])
@pytest.mark.parametrize("scheme", ["pgbg", "pgbg+postgresql"])
def test_a_brokers_url_is_shown_without_them(scheme: str, dsn: str) -> None:
    """In the log, and in ``celery inspect stats`` and so in Flower."""
    url = dsn.replace("postgresql", scheme, 1)
    connection = Connection([url, url])
    assert SECRET not in repr(connection)
    assert SECRET not in connection.as_uri()
    assert SECRET not in repr(ConnectionStep.info(None, SimpleNamespace(connection=connection)))


def test_the_rest_of_a_brokers_url_is_shown() -> None:
    connection = Connection(f"pgbg+postgresql://user:{SECRET}@somewhere:5433/db")
    assert connection.as_uri() == "pgbg+postgresql://user:**@somewhere:5433/db"
    shown = ConnectionStep.info(None, SimpleNamespace(connection=connection))
    assert "host=somewhere" in shown["broker"]["hostname"]
