"""A Django alias where a DSN is wanted: what DATABASES says of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from psycopg.conninfo import conninfo_to_dict

from celery_pgbg.configuration import settings_of
from celery_pgbg.errors import ConfigurationError

utils = pytest.importorskip("django.db.utils")
ENGINE = "django.db.backends.postgresql"


@pytest.fixture
def databases(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Set DATABASES, as the settings of a Django project would."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "unused")

    def configure(**databases: dict[str, Any]) -> Any:
        handler = utils.ConnectionHandler({"default": {"ENGINE": ENGINE, "NAME": "shop"}, **databases})
        monkeypatch.setattr("django.db.connections", handler)
        return handler

    return configure


def app_with(**settings: Any) -> Celery:
    app = Celery("x", set_as_current=False, fixups=[])
    app.conf.update(settings)
    return app


def dsn_of(alias: str) -> dict[str, Any]:
    return conninfo_to_dict(settings_of(app_with(pgbg_dsn=alias)).dsn_of(None))


def test_an_alias_stands_for_the_database_it_names(databases: Callable[..., Any]) -> None:
    password = "p @'ss\\w=ö://?%40"
    databases(
        stats={"ENGINE": ENGINE, "NAME": "a b", "USER": "o'hara", "PASSWORD": password, "HOST": "::1", "PORT": 5433}
    )
    assert dsn_of("stats") == {"dbname": "a b", "user": "o'hara", "password": password, "host": "::1", "port": "5433"}
    assert dsn_of("default") == {"dbname": "shop"}


def test_options_of_libpq_are_kept_and_those_of_django_left_out(databases: Callable[..., Any]) -> None:
    options = {"sslmode": "verify-full", "passfile": ".pgpass", "options": "-c search_path=a", "connect_timeout": 3}
    of_django = {"pool": True, "server_side_binding": True, "isolation_level": 3}
    databases(stats={"ENGINE": ENGINE, "NAME": "stats", "OPTIONS": options | of_django})
    assert dsn_of("stats") == {"dbname": "stats", **options, "connect_timeout": "3"}


def test_a_service_names_the_database_and_none_is_the_maintenance_one(databases: Callable[..., Any]) -> None:
    databases(
        service={"ENGINE": ENGINE, "NAME": "", "OPTIONS": {"service": "stats"}}, none={"ENGINE": ENGINE, "NAME": None}
    )
    assert dsn_of("service") == {"service": "stats"}
    assert dsn_of("none") == {"dbname": "postgres"}


def test_an_assumed_role_is_assumed_by_our_sessions_too(databases: Callable[..., Any]) -> None:
    databases(stats={"ENGINE": ENGINE, "NAME": "s", "OPTIONS": {"options": "-c a.b=c", "assume_role": "the owner"}})
    assert dsn_of("stats")["options"] == r"-c a.b=c -c role=the\ owner"


def test_aliases_and_dsns_mix_in_pgbg_databases(databases: Callable[..., Any]) -> None:
    databases(stats={"ENGINE": ENGINE, "NAME": "stats"})
    settings = settings_of(app_with(pgbg_databases={"a": "stats", "b": "postgresql://h/d", "c": "host=h dbname=d"}))
    assert [settings.dsn_of(alias) for alias in "abc"] == ["dbname=stats", "postgresql://h/d", "host=h dbname=d"]


def test_the_name_that_djangos_test_runner_gives_is_followed(databases: Callable[..., Any]) -> None:
    handler = databases()
    app = app_with(pgbg_dsn="default")
    assert settings_of(app).dsn == "dbname=shop"
    assert settings_of(app) is settings_of(app)
    handler["default"].settings_dict["NAME"] = "test_shop"
    assert settings_of(app).dsn == "dbname=test_shop"


def test_an_unknown_alias_is_answered_with_the_nearest(databases: Callable[..., Any]) -> None:
    databases(stats={"ENGINE": ENGINE, "NAME": "stats"})
    with pytest.raises(ConfigurationError, match=r"pgbg_dsn is neither.*did you mean 'stats'.*default, stats"):
        settings_of(app_with(pgbg_dsn="stat"))
    with pytest.raises(ConfigurationError, match=r"pgbg_databases\['x'\]") as caught:
        settings_of(app_with(pgbg_databases={"x": "user:secret@host/db"}))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("engine", ["django.db.backends.sqlite3", "django.db.backends.dummy"])
def test_a_database_of_another_kind_is_refused(databases: Callable[..., Any], engine: str) -> None:
    databases(stats={"ENGINE": engine, "NAME": "stats"})
    with pytest.raises(ConfigurationError, match=f"'stats' is not PostgreSQL: its engine is '{engine}'"):
        settings_of(app_with(pgbg_dsn="stats"))


def test_without_django_a_mere_name_is_no_dsn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    with pytest.raises(ConfigurationError, match="pgbg_dsn must be a URL"):
        settings_of(app_with(pgbg_dsn="default"))
