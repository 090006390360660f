"""Settings: normalised, validated, frozen."""

from __future__ import annotations

import dataclasses

import pytest
from celery import Celery
from psycopg import conninfo

from celery_pgbg.configuration import settings_of
from celery_pgbg.errors import ConfigurationError
from celery_pgbg.settings import Settings, normalise_dsn, read_settings


@pytest.mark.parametrize(
    "password", ["simple", "p@ss", "p@s/s:w@rd", "p%40ss", "ünï@", "what?", "a?b=c", "p@a?b", "?@?/?", "1?a=b"]
)
def test_a_password_may_be_written_as_it_is(password: str) -> None:
    dsn = normalise_dsn("pgbg_dsn", f"postgresql://user:{password}@host:5433/db?sslmode=require")
    parts = conninfo.conninfo_to_dict(dsn)
    assert parts["password"] == password.replace("%40", "@")
    assert (parts["user"], parts["host"], parts["port"], parts["dbname"]) == ("user", "host", "5433", "db")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("postgresql://h/d", "postgresql://h/d"),
        ("postgresql+psycopg://u@h/d", "postgresql://u@h/d"),
        ("postgres://u@h1,h2/d", "postgres://u@h1,h2/d"),
        (" host=h dbname=d ", "host=h dbname=d"),
        ("host=h password=a://b", "host=h password=a://b"),
        ("postgresql:///d?host=/tmp", "postgresql:///d?host=/tmp"),
    ],
)
def test_other_forms_of_a_dsn_are_kept(given: str, read: str) -> None:
    assert normalise_dsn("pgbg_dsn", given) == read


def test_unset_settings_have_their_defaults() -> None:
    assert read_settings({}) == Settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().dsn = "x"  # type: ignore[misc]


def test_strings_from_an_environment_are_read() -> None:
    read = read_settings({"pgbg_notify": "off", "pgbg_launchers": "4", "pgbg_outcome_expires": None})
    assert (read.notify, read.launchers, read.outcome_expires) == (False, 4, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("launchers", 1.5),
        ("launchers", True),
        ("launchers", "many"),
        ("notify", 1),
        ("sweep_interval", 0),
        ("max_result_bytes", 10),
        ("outcome_expires", 5),
        ("dsn", ""),
        ("dsn", 5),
        ("databases", {"a": "nonsense"}),
    ],
)
def test_a_wrong_value_is_named(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"pgbg_{name}"):
        read_settings({f"pgbg_{name}": value})


def test_a_namespace_as_djangos_is_read() -> None:
    app = Celery("x", namespace="CELERY", set_as_current=False)

    class DjangoSettings:
        CELERY_PGBG_DSN = "postgresql://u@h/d"
        CELERY_PGBG_LAUNCHERS = 3
        CELERY_BROKER_URL = "memory://"

    app.config_from_object(DjangoSettings, namespace="CELERY")
    read = settings_of(app)
    assert (read.dsn, read.launchers) == ("postgresql://u@h/d", 3)


def test_an_alias_is_found_or_named() -> None:
    settings = read_settings({"pgbg_dsn": "postgresql://h/d", "pgbg_databases": {"stats": "postgresql://h/s"}})
    assert settings.dsn_of(None) == settings.dsn_of("default") == "postgresql://h/d"
    assert settings.dsn_of("stats") == "postgresql://h/s"
    with pytest.raises(ConfigurationError, match="did you mean 'stats'"):
        settings.dsn_of("stat")


def test_passwords_are_hidden_where_celery_shows_the_configuration() -> None:
    app = Celery("x", set_as_current=False)
    app.conf.pgbg_dsn = "postgresql://user:sec@ret@host/db?sslpassword=secret"
    app.conf.pgbg_databases = {"a": "host=h password='secret'", "b": "postgresql://u:secret@[h/d", "c": "dbname=d"}
    shown = app.conf.table()
    masked = {"user": "user", "password": "*" * 8, "host": "host", "dbname": "db", "sslpassword": "*" * 8}
    assert conninfo.conninfo_to_dict(shown["pgbg_dsn"]) == masked
    assert shown["pgbg_databases"] == {"a": "password=******** host=h", "b": "********", "c": "dbname=d"}
    assert "ret" not in app.conf.humanize()
    assert app.conf.pgbg_dsn == "postgresql://user:sec@ret@host/db?sslpassword=secret"


def test_passwords_are_hidden_under_a_namespace_too() -> None:
    app = Celery("x", set_as_current=False)
    app.config_from_object({"CELERY_PGBG_DSN": "host=h password=secret"}, namespace="CELERY")
    assert "h" in str(app.conf.table())
    assert "secret" not in str(app.conf.table())
