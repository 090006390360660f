"""An app's configuration, changed for a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celery_pgbg.configuration import forget_settings

if TYPE_CHECKING:
    from celery import Celery

#: What ``worker_pool`` is set to.
POOL = "celery_pgbg.pool:TaskPool"

#: Seconds between two looks of the in-memory broker for messages; its default is one second.
_POLLING_SECONDS = 0.05


@contextmanager
def configured(app: Celery, **settings: Any) -> Iterator[None]:
    """Change settings of an app for a while."""
    before = {name: app.conf.changes[name] for name in settings if name in app.conf.changes}
    app.conf.update(settings)
    forget_settings(app)
    try:
        yield
    finally:
        for name in settings:
            app.conf.changes.pop(name, None)
        app.conf.update(before)
        forget_settings(app)


@contextmanager
def app_under_test(app: Celery, dsn: str, token: str) -> Iterator[None]:
    """Let an app run its SQL tasks in a database for tests, with messages of its own.

    Args:
        app: becomes the current one, which shared tasks belong to; its configuration is back at the end.
        dsn: for every alias it knows.
        token: begins the names of all its keys in a Redis; they are deleted at the end. Messages that
            earlier tests have left in a broker in memory are deleted at the start.
    """
    settings: dict[str, Any] = {"worker_pool": POOL, "pgbg_dsn": dsn}
    settings["pgbg_databases"] = dict.fromkeys(app.conf.get("pgbg_databases") or {}, dsn)
    transport = str(app.conf.broker_url).partition(":")[0]
    if transport == "memory":
        settings["broker_transport_options"] = {"polling_interval": _POLLING_SECONDS, **_transport_options(app)}
    elif transport in ("redis", "rediss"):
        settings["broker_transport_options"] = {**_transport_options(app), "global_keyprefix": f"{token}:"}
    with configured(app, **settings):
        if transport == "memory":
            app.control.purge()
        _forget_connections(app)
        app.set_current()
        app.set_default()
        try:
            yield
        finally:
            if transport in ("redis", "rediss"):
                _delete_keys(app, f"{token}:")
    _forget_connections(app)


def _transport_options(app: Celery) -> dict[str, Any]:
    return app.conf.broker_transport_options or {}


def _forget_connections(app: Celery) -> None:
    """Open connections to the broker were made with other options."""
    app._pool = None
    app.amqp._producer_pool = None


def _delete_keys(app: Celery, prefix: str) -> None:
    from redis import Redis

    with Redis.from_url(str(app.conf.broker_url)) as client:
        for key in client.scan_iter(match=f"{prefix}*", count=1000):
            client.delete(key)
