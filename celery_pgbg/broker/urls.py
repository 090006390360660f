"""Finds the database and the options of a broker's URL."""

from __future__ import annotations

from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from celery_pgbg.broker.station import Address
from celery_pgbg.celery_patches.transports import app_of
from celery_pgbg.configuration import settings_of
from celery_pgbg.errors import ConfigurationError
from celery_pgbg.settings import Settings, normalise_dsn

_SCHEME = "pgbg"


def address_of(client: Any) -> Address:
    """Find the database of kombu's ``Connection``.

    Raises:
        ConfigurationError: the URL has no address, and no app has a ``pgbg_dsn``; or a setting is wrong.
    """
    app = app_of(client)
    settings = Settings() if app is None else settings_of(app)
    dsn = _dsn_of(client) or settings.dsn
    if dsn is None:
        raise ConfigurationError(
            "the broker's URL has no address and pgbg_dsn is not set: set pgbg_dsn, or write pgbg+postgresql://user@host/db"
        )
    return Address(
        dsn=dsn,
        connect_timeout=settings.connect_timeout,
        answer_timeout=settings.answer_timeout,
        poll_interval=None if settings.notify else settings.poll_interval,
        max_deliveries=settings.max_deliveries,
    )


def _dsn_of(client: Any) -> str | None:
    """Find the DSN in kombu's form of a URL; None if the URL has no address.

    kombu keeps ``pgbg://...``, or the rest after ``pgbg+``; of later URLs in a list it keeps only the parts.
    """
    url = str(client.hostname or "")
    if "://" not in url:
        parts = {"host": url, "user": client.userid, "password": client.password, "port": client.port}
        given = {name: str(value) for name, value in parts.items() if value}
        if client.virtual_host not in (None, "", "/"):
            given["dbname"] = client.virtual_host
        return make_conninfo("", **given) if url else None
    scheme, _, rest = url.partition("://")
    if not rest.partition("?")[0].strip("/"):
        return None
    return normalise_dsn("broker_url", f"{'postgresql' if scheme == _SCHEME else scheme}://{rest}")


def describe(client: Any, include_password: bool, mask: str) -> str:
    """Write a broker's URL for people to read."""
    dsn = _dsn_of(client)
    if dsn is None:
        return f"{_SCHEME}://"
    parts = conninfo_to_dict(dsn)
    if parts.get("password") and not include_password:
        parts["password"] = mask
    user = ":".join(str(parts[name]) for name in ("user", "password") if parts.get(name))
    address = str(parts.get("host") or "") + (f":{parts['port']}" if parts.get("port") else "")
    return f"{_SCHEME}+postgresql://{user}{'@' if user else ''}{address}/{parts.get('dbname') or ''}"
