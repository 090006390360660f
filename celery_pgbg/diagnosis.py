"""What ``pgbg doctor`` checks, one finding after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import psycopg

from celery_pgbg.database import operations, poolers, schema
from celery_pgbg.database.capabilities import detect
from celery_pgbg.database.launching_session import SESSION_WORKER_LIMIT
from celery_pgbg.database.sessions import Session, connect
from celery_pgbg.errors import PgbgError
from celery_pgbg.runners import settings_of
from celery_pgbg.settings import Settings

_OLDEST_SERVER = 140_000
_OUR_POOL = "celery_pgbg.pool:TaskPool"

#: Fewer slots than this are hardly enough for a Celery worker's default concurrency.
_FEW_SLOTS = 16

_BROKER_SECONDS = 5.0

#: Brokers that do not notice a lost consumer, but send again by the clock.
_WITH_VISIBILITY_TIMEOUT = ("redis", "sqs")
_SHORT_VISIBILITY_TIMEOUT = 600


@dataclass(frozen=True)
class Finding:
    """One thing that was checked."""

    level: Literal["ok", "warning", "error"]
    what: str
    said: str

    def as_dict(self) -> dict[str, str]:
        """As JSON wants it."""
        return asdict(self)


def diagnose(app: Any, alias: str | None) -> Iterator[Finding]:
    """Check the settings, then the database; ends at the first thing that nothing works without."""
    try:
        settings = settings_of(app)
        dsn = settings.dsn_of(alias)
    except PgbgError as exc:
        yield Finding("error", "settings", str(exc))
        return
    yield Finding("ok", "settings", "valid")
    yield from _check_celery(app)
    yield from _check_broker(app)
    try:
        session = connect(dsn, application_name="pgbg doctor", connect_timeout=settings.connect_timeout)
    except PgbgError as exc:
        yield Finding("error", "connection", str(exc))
        return
    with session:
        yield from _check_database(app, session, dsn, settings)


def _check_celery(app: Any) -> Iterator[Finding]:
    pool = app.conf.worker_pool
    if pool == _OUR_POOL:
        yield Finding("ok", "worker_pool", pool)
    else:
        yield Finding(
            "warning",
            "worker_pool",
            f"is {pool!r}: SQL tasks run there too, but each keeps a place of it waiting; ours is {_OUR_POOL!r}",
        )
    if app.conf.worker_prefetch_multiplier != 1:
        multiplier = app.conf.worker_prefetch_multiplier
        yield Finding(
            "warning", "worker_prefetch_multiplier", f"is {multiplier}: tasks wait behind long ones; 1 is right for SQL"
        )
    backend = str(app.conf.result_backend or "")
    if not backend:
        yield Finding("warning", "result_backend", "none is set: nobody can read what tasks return")
    else:
        kind = "ours: outcomes are results" if backend.startswith("pgbg") else "another: results are stored twice"
        yield Finding("ok", "result_backend", kind)


def _check_broker(app: Any) -> Iterator[Finding]:
    try:
        with app.connection_for_read() as connection:
            address = connection.as_uri()
            connection.ensure_connection(max_retries=1, timeout=_BROKER_SECONDS)
            driver_type = connection.transport.driver_type
    except Exception as exc:  # noqa: BLE001 - each transport has errors of its own
        yield Finding("error", "broker", f"no connection: {exc}")
        return
    yield Finding("ok", "broker", address)
    if driver_type not in _WITH_VISIBILITY_TIMEOUT:
        return
    seconds = app.conf.broker_transport_options.get("visibility_timeout", 3600)
    yield Finding(
        "ok" if seconds >= _SHORT_VISIBILITY_TIMEOUT else "warning",
        "visibility_timeout",
        f"the broker sends again what is not acknowledged after {seconds} s; a second delivery of a running "
        "statement attaches to it, but takes one of the Celery worker's places: let it be longer than statements run",
    )


def _check_database(app: Any, session: Session, dsn: str, settings: Settings) -> Iterator[Finding]:
    info = session.info
    version = info.server_version
    level: Literal["ok", "error"] = "ok" if version >= _OLDEST_SERVER else "error"
    yield Finding(
        level, "server", f"PostgreSQL {version // 10_000}.{version % 10_000}, {info.host}:{info.port}/{info.dbname}"
    )
    opener = partial(connect, dsn, application_name="pgbg doctor", connect_timeout=settings.connect_timeout)
    if poolers.shares_sessions(session, opener):
        yield Finding("error", "pooler", poolers.NEEDS_SESSIONS)
        return
    if poolers.through_pooler(session):
        need = settings.launchers + 1
        yield Finding("ok", "pooler", f"in session mode; each Celery worker keeps {need} of its sessions")
    try:
        schema.check_installed(session)
        yield Finding("ok", "schema", f"celery_pgbg version {schema.installed_version(session)}")
        capabilities = detect(session)
    except PgbgError as exc:
        yield Finding("error", "installation", str(exc))
        return
    yield Finding("ok", "extension", f"pg_background {capabilities.version} in schema {capabilities.schema}")
    yield from _check_slots(app, session, settings)
    try:
        seconds = operations.round_trip(dsn, settings)
    except (PgbgError, psycopg.Error, RuntimeError) as exc:
        yield Finding("error", "round trip", str(exc))
    else:
        yield Finding("ok", "round trip", f"SELECT 1 in a background worker took {seconds * 1000:.0f} ms")


def _check_slots(app: Any, session: Session, settings: Settings) -> Iterator[Finding]:
    slots = operations.slots(session)
    free_for_us = slots.server_worker_limit - slots.used_by_others
    said = (
        f"max_worker_processes {slots.server_worker_limit}: {slots.used} in use by pg_background, "
        f"{slots.used_by_others} by others"
    )
    concurrency = app.conf.worker_concurrency
    if free_for_us < _FEW_SLOTS or (concurrency and concurrency > free_for_us):
        yield Finding("warning", "slots", f"{said}; worker_concurrency {concurrency}: SQL tasks above it wait in line")
    else:
        yield Finding("ok", "slots", said)
    handles = settings.launchers * SESSION_WORKER_LIMIT
    yield Finding(
        "warning" if (concurrency or 0) > handles else "ok",
        "launchers",
        f"{settings.launchers} sessions in each Celery worker, with pg_background.max_workers raised to "
        f"{SESSION_WORKER_LIMIT}, can hold {handles} running statements",
    )
