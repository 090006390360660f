"""Databases of a Django project by their alias, wherever a ``pgbg_*`` setting takes a DSN.

Django is imported only if the project uses Django and a setting holds an alias.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping
from typing import Any

from psycopg import conninfo, pq

from celery_pgbg.errors import ConfigurationError
from celery_pgbg.settings import did_you_mean, is_dsn


def with_dsns(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the aliases of Django's ``DATABASES`` among settings by the DSNs they stand for now.

    Django's test runner gives a database another name while the process runs, so the answer may
    differ from one call to the next.

    Args:
        values: ``pgbg_dsn``, ``pgbg_databases`` and others, as they were configured.

    Raises:
        ConfigurationError: no such alias, or a database of another kind.
    """
    replaced = dict(values)
    if "pgbg_dsn" in values:
        replaced["pgbg_dsn"] = _with_dsn("pgbg_dsn", values["pgbg_dsn"])
    databases = values.get("pgbg_databases")
    if isinstance(databases, Mapping):
        replaced["pgbg_databases"] = {
            alias: _with_dsn(f"pgbg_databases[{alias!r}]", value) for alias, value in databases.items()
        }
    return replaced


def _with_dsn(key: str, value: Any) -> Any:
    if not isinstance(value, str) or not value.strip() or is_dsn(value) or not _is_django():
        return value
    from django.db import connections

    known = sorted(connections.settings)
    if value not in known:
        # The value is not quoted: it may be a malformed DSN with a password.
        raise ConfigurationError(
            f"{key} is neither a DSN nor an alias in Django's DATABASES{did_you_mean(value, known)}; "
            f"aliases there: {', '.join(known)}"
        )
    return _dsn(key, value, connections.settings[value])


def _is_django() -> bool:
    """Whether this process belongs to a Django project."""
    configuration = sys.modules.get("django.conf")
    return "DJANGO_SETTINGS_MODULE" in os.environ or bool(configuration and configuration.settings.configured)


def _dsn(key: str, alias: str, database: Mapping[str, Any]) -> str:
    """Write the DSN of ``DATABASES[alias]``; options that only Django knows are left out."""
    engine = database["ENGINE"]
    if _vendor(engine) != "postgresql":
        raise ConfigurationError(f"{key}: Django's database {alias!r} is not PostgreSQL: its engine is {engine!r}")
    options = database.get("OPTIONS") or {}
    parameters = {name: value for name, value in options.items() if name in _parameter_names()}
    # NAME is "" if a service names the database; None means the maintenance database, as in Django.
    given = {"dbname": "postgres" if database["NAME"] is None else database["NAME"]}
    given |= {name: database[name.upper()] for name in ("user", "password", "host", "port")}
    parameters |= {name: value for name, value in given.items() if value}
    if options.get("assume_role"):
        role = str(options["assume_role"]).replace("\\", r"\\").replace(" ", r"\ ")
        parameters["options"] = f"{parameters.get('options', '')} -c role={role}".strip()
    return _conninfo(tuple((name, str(value)) for name, value in parameters.items()))


# Each task reads the settings several times, so slow steps are cached.


@functools.cache
def _vendor(engine: str) -> str:
    from django.db.utils import load_backend

    return str(load_backend(engine).DatabaseWrapper.vendor)


@functools.cache
def _parameter_names() -> frozenset[str]:
    return frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults())


@functools.lru_cache
def _conninfo(parameters: tuple[tuple[str, str], ...]) -> str:
    return conninfo.make_conninfo("", **dict(parameters))
