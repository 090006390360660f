"""The ``pgbg_*`` settings of a Celery app."""

from __future__ import annotations

from typing import Any

from celery import Celery

from celery_pgbg.django_databases import with_dsns
from celery_pgbg.settings import PREFIX, Settings, read_settings


def settings_of(app: Celery) -> Settings:
    """Read the ``pgbg_*`` settings of an app once; read them again if a Django alias now means another database.

    Raises:
        ConfigurationError: an unknown setting, or one of the wrong type or out of range.
    """
    known: tuple[dict[str, Any], dict[str, Any], Settings] | None = getattr(app, "_pgbg_settings", None)
    if known is None or with_dsns(known[0]) != known[1]:
        return read_settings_again(app)
    return known[2]


def read_settings_again(app: Celery) -> Settings:
    """Read the ``pgbg_*`` settings of an app as they are now.

    Raises:
        ConfigurationError: as ``settings_of``; the settings read before then stay in force.
    """
    configured = _configured(app)
    values = with_dsns(configured)
    settings = read_settings(values)
    app._pgbg_settings = (configured, values, settings)
    return settings


def _configured(app: Celery) -> dict[str, Any]:
    """Collect the keys that begin with our prefix, also under a namespace such as ``CELERY_``."""
    namespace = (app.namespace or "").lower() + "_" if app.namespace else ""
    keys = {str(key).lower().removeprefix(namespace) for layer in app.conf.maps for key in layer}
    return {key: app.conf.get(key) for key in sorted(keys) if key.startswith(PREFIX)}


def forget_settings(app: Celery) -> None:
    """Let the settings be read again, after a change of the app's configuration."""
    app._pgbg_settings = None
