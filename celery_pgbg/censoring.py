"""Passwords in our settings, hidden where Celery shows a configuration.

``celery inspect conf``, ``celery report`` and Flower show every setting; Celery masks the passwords of
its own URLs, which it knows by name. There is no hook for the settings of others, so we wrap its filter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from celery.app import utils
from psycopg import conninfo

from celery_pgbg.errors import ConfigurationError
from celery_pgbg.settings import is_dsn, normalise_dsn

_MASK = "*" * 8
_celerys_filter = utils.filter_hidden_settings


def hide_passwords() -> None:
    """Make Celery hide the passwords in ``pgbg_dsn`` and ``pgbg_databases`` as well."""
    utils.filter_hidden_settings = _filter_hidden_settings


def _filter_hidden_settings(conf: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: _censored(str(key).lower(), value) for key, value in _celerys_filter(conf).items()}


def _censored(key: str, value: Any) -> Any:
    if key.endswith("pgbg_databases") and isinstance(value, Mapping):
        return {alias: mask_password(dsn) for alias, dsn in value.items()}
    return mask_password(value) if key.endswith("pgbg_dsn") else value


def mask_password(dsn: Any) -> Any:
    """Write a DSN for people to read; what cannot be read is masked altogether."""
    if not isinstance(dsn, str) or not is_dsn(dsn):
        return dsn
    try:
        parts = conninfo.conninfo_to_dict(normalise_dsn("pgbg_dsn", dsn))
    except (ConfigurationError, psycopg.ProgrammingError):
        return _MASK
    masked = {name: _MASK if "password" in name else value for name, value in parts.items()}
    return conninfo.make_conninfo("", **masked)
