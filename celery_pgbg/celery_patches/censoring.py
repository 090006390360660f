"""Hides passwords in our settings wherever Celery shows a configuration.

``celery inspect conf``, ``celery report`` and Flower show every setting; Celery masks the passwords of its own URLs,
which it knows by name. It has no hook for other settings, so we wrap its filter.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import psycopg
from celery.app import utils
from psycopg import conninfo

from celery_pgbg.celery_patches.late import when_imported
from celery_pgbg.errors import ConfigurationError
from celery_pgbg.settings import is_dsn, normalise_dsn

_MASK = "*" * 8

#: The beginning of our backend's and broker's URLs, before the part that every PostgreSQL URL has.
_OUR_URL = re.compile(r"pgbg(?:\+postgres(?:ql)?)?(?:\+\w+)?://")

#: Parameters of libpq that are secrets.
_SECRET = re.compile(r"password|secret|scram_\w+_key")

_MAY_HAVE_AT = ("user", "options", "application_name", "fallback_application_name", "requirepeer")

_celerys_filter = utils.filter_hidden_settings

#: Celery's function for the URL of the result backend in ``celery report``, from 5.7 on and before.
_SANITIZER = "sanitize_url" if hasattr(utils, "sanitize_url") else "maybe_sanitize_url"
_celerys_sanitizer = getattr(utils, _SANITIZER)


def hide_passwords() -> None:
    """Make Celery hide the passwords in our settings and in the URLs of our backend and broker."""
    utils.filter_hidden_settings = _filter_hidden_settings
    setattr(utils, _SANITIZER, _sanitize_url)
    when_imported("celery.worker.consumer.connection", _hide_in_stats)


def _hide_in_stats() -> None:
    """Hide our broker's password in ``celery inspect stats``: kombu treats the whole URL as a host name."""
    from celery.worker.consumer.connection import Connection

    info = Connection.info
    if getattr(info, "hides_passwords", False):
        return

    @functools.wraps(info)
    def hiding(self: Any, consumer: Any) -> Any:
        params = consumer.connection.info() if consumer.connection else {}
        if not _is_ours("", params.get("hostname")):
            return info(self, consumer)
        # Celery's own filter fails on some characters that PostgreSQL allows in a password.
        alternates = params.pop("alternates", ())
        shown = info(self, SimpleNamespace(connection=SimpleNamespace(info=lambda: params)))
        return _censored_throughout({"broker": {**shown["broker"], "alternates": alternates}})

    hiding.hides_passwords = True  # type: ignore[attr-defined]
    Connection.info = hiding


def _censored_throughout(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _censored_throughout(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_censored_throughout(each) for each in value]
    return _censored("", value) if _is_ours("", value) else value


def _filter_hidden_settings(conf: Mapping[Any, Any]) -> dict[Any, Any]:
    ours = {key: _censored(str(key).lower(), value) for key, value in conf.items() if _is_ours(str(key).lower(), value)}
    return {**_celerys_filter({key: value for key, value in conf.items() if key not in ours}), **ours}


def _sanitize_url(url: Any, *args: Any, **options: Any) -> Any:
    """Write the URL of the result backend for ``celery report``."""
    return _censored("", url) if _is_ours("", url) else _celerys_sanitizer(url, *args, **options)


def _is_ours(key: str, value: Any) -> bool:
    return key.endswith(("pgbg_databases", "pgbg_dsn")) or (isinstance(value, str) and bool(_OUR_URL.match(value)))


def _censored(key: str, value: Any) -> Any:
    if key.endswith("pgbg_databases") and isinstance(value, Mapping):
        return {alias: mask_password(dsn) for alias, dsn in value.items()}
    if isinstance(value, str) and (found := _OUR_URL.match(value)):
        return found[0] + str(mask_password("postgresql://" + value[found.end() :]))
    return mask_password(value)


def mask_password(dsn: Any) -> Any:
    """Write a DSN for people to read; a DSN that cannot be parsed is masked completely."""
    if not isinstance(dsn, str) or not is_dsn(dsn):
        return dsn
    try:
        parts = conninfo.conninfo_to_dict(normalise_dsn("pgbg_dsn", dsn))
    except (ConfigurationError, psycopg.ProgrammingError):
        return _MASK
    masked = {name: _MASK if _SECRET.search(name) else value for name, value in parts.items()}
    if any("@" in str(value) for name, value in masked.items() if name not in _MAY_HAVE_AT):
        # A password has cut the URL in an unexpected place.
        return _MASK
    return conninfo.make_conninfo("", **masked)
