"""The checks of ``pgbg doctor``, one finding after the other."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Literal

import kombu
import psycopg
from kombu.utils.imports import symbol_by_name

from celery_pgbg.broker.outbox import goes_through_outbox
from celery_pgbg.configuration import settings_of
from celery_pgbg.database import poolers, schema
from celery_pgbg.database.capabilities import Capabilities, detect
from celery_pgbg.database.sessions import Session, connect, with_row_security
from celery_pgbg.errors import PgbgError
from celery_pgbg.execution.control import operations
from celery_pgbg.execution.launching.launching_session import SESSION_WORKER_LIMIT
from celery_pgbg.execution.records.attempts import settle_lost
from celery_pgbg.execution.round_trip import round_trip
from celery_pgbg.execution.strategies.means import MOST_LAUNCHERS
from celery_pgbg.operating.broker_health import check_leftovers, check_our_broker
from celery_pgbg.operating.findings import Finding
from celery_pgbg.outcomes import UNSEEN
from celery_pgbg.pool import TaskPool
from celery_pgbg.settings import Settings

_OLDEST_SERVER = 140_000
_OUR_POOL = "celery_pgbg.pool:TaskPool"

_SOURCE = "https://github.com/vibhorkum/pg_background"

#: Fewer slots than this are hardly enough for a Celery worker's default concurrency.
_FEW_SLOTS = 16

_BROKER_SECONDS = 5.0

#: How long Celery workers may take to answer, in seconds.
_ANSWER_SECONDS = 3.0

#: Seconds between two checks for lost messages that are too long in any case.
_SELDOM = 60

#: The largest number of tasks named in one line.
_SHOWN = 5

#: The features that are missing without one of pg_background's functions.
_LACKING = {
    "get_progress": "no progress messages beside the percent, no pg_background.max_workers and no worker_timeout (from "
    "1.8 on)",
    "result_info": "no record of how a statement ended (from 2.0 on), so the end of an atomic=False task is unknown if "
    "its rows have a column of the type void, or no column",
}

#: Brokers that do not notice a lost consumer, but redeliver after a timeout.
_WITH_VISIBILITY_TIMEOUT = ("redis", "sqs")
_SHORT_VISIBILITY_TIMEOUT = 600

#: The packages that brokers and result backends need, by the beginning of their URL: module and cure.
_CLIENTS = {
    "redis": ("redis", 'pip install "celery-pgbg[redis]"'),
    "rediss": ("redis", 'pip install "celery-pgbg[redis]"'),
    "sentinel": ("redis", 'pip install "celery-pgbg[redis]"'),
    "sqs": ("boto3", 'pip install "celery[sqs]"'),
    "db": ("sqlalchemy", 'pip install "celery[sqlalchemy]"'),
    "mongodb": ("pymongo", 'pip install "celery[mongodb]"'),
    "confluentkafka": ("confluent_kafka", "pip install confluent-kafka"),
}


def diagnose(app: Any, alias: str | None) -> Iterator[Finding]:
    """Check the settings, then the database; stops at the first failure that makes all later checks useless."""
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
        yield from _check_database(app, with_row_security(session), dsn, settings)


def _check_celery(app: Any) -> Iterator[Finding]:
    yield _check_pool(app)
    if app.conf.worker_prefetch_multiplier != 1:
        multiplier = app.conf.worker_prefetch_multiplier
        yield Finding(
            "warning",
            "worker_prefetch_multiplier",
            f"is {multiplier}: tasks wait behind long ones; set it to 1 for SQL",
        )
    backend = str(app.conf.result_backend or "")
    missing = _missing_client(backend)
    if not backend:
        yield Finding("warning", "result_backend", "not set: the values that tasks return are lost")
    elif missing:
        yield Finding("error", "result_backend", missing)
    else:
        kind = "ours: outcomes are results" if backend.startswith("pgbg") else "another: results are stored twice"
        yield Finding("ok", "result_backend", kind)


def _check_pool(app: Any) -> Finding:
    pool, custom = app.conf.worker_pool, os.environ.get("CELERY_CUSTOM_WORKER_POOL")
    for name in filter(None, (pool, custom)):
        if problem := _import_problem(name):
            return Finding("error", "worker_pool", f"{name!r} cannot be imported: {problem}; ours is {_OUR_POOL!r}")
    if _is_our_pool(pool):
        return Finding("ok", "worker_pool", str(pool))
    if custom and _is_our_pool(custom):
        return Finding("ok", "worker_pool", f"{custom}, by CELERY_CUSTOM_WORKER_POOL, in Celery workers with -P custom")
    how = f"CELERY_CUSTOM_WORKER_POOL={_OUR_POOL} and -P custom"
    if app.conf.task_routes:
        return Finding(
            "ok", "worker_pool", f"{pool!r} in the configuration; start the Celery workers of SQL queues with {how}"
        )
    return Finding(
        "warning",
        "worker_pool",
        f"is {pool!r}: SQL tasks run there too, but each occupies a place of this pool while it waits; set worker_pool "
        f"to {_OUR_POOL!r}, or route SQL tasks to a queue of their own (task_routes) and start its Celery workers with "
        f"{how}",
    )


def _import_problem(pool: Any) -> str | None:
    """Why a pool that is named by module and class cannot be imported."""
    try:
        _is_our_pool(pool)
    except (ImportError, AttributeError) as exc:
        return str(exc)
    return None


def _is_our_pool(pool: Any) -> bool:
    """Whether a pool is ours, or a subclass. Celery's own, such as ``prefork``, are not imported."""
    if isinstance(pool, str) and "." not in pool and ":" not in pool:
        return False
    found = symbol_by_name(pool)
    return isinstance(found, type) and issubclass(found, TaskPool)


def _missing_client(url: str) -> str | None:
    """Name the missing package of a broker or result backend, and how to get it."""
    for scheme in reversed(url.partition("://")[0].split("+")):
        module, cure = _CLIENTS.get(scheme, (None, ""))
        if module and importlib.util.find_spec(module) is None:
            return f"the client package {module} is not installed: {cure}"
    return None


def _check_broker(app: Any) -> Iterator[Finding]:
    missing = _missing_client(str(app.conf.broker_read_url or app.conf.broker_url or ""))
    if missing:
        yield Finding("error", "broker", missing)
        return
    try:
        with app.connection_for_read() as connection:
            address = connection.as_uri()
            connection.ensure_connection(max_retries=1, timeout=_BROKER_SECONDS)
            # only kombu's virtual transports have such a class
            driver_type, channel = connection.transport.driver_type, getattr(connection.transport, "Channel", None)
            ours = list(check_our_broker(connection))
    except Exception as exc:  # noqa: BLE001 - each transport has errors of its own
        yield Finding("error", "broker", f"no connection: {exc}")
        return
    yield Finding("ok", "broker", address)
    yield from ours
    yield from _check_threads(app)
    if driver_type not in _WITH_VISIBILITY_TIMEOUT:
        return
    options = app.conf.broker_transport_options or {}
    seconds = options.get("visibility_timeout", 3600)
    if driver_type == "redis":
        yield check_restoring(channel, options, seconds)
    yield Finding(
        "ok" if seconds >= _SHORT_VISIBILITY_TIMEOUT else "warning",
        "visibility_timeout",
        f"the broker redelivers a message that is not acknowledged within {seconds} s; a second delivery of a running "
        "statement attaches to it, but occupies a thread of the Celery worker: set it longer than statements run",
    )


def check_restoring(channel: Any, options: Mapping[str, Any], visibility_timeout: float) -> Finding:
    """How long the messages of a killed Celery worker stay in Redis before another Celery worker takes them.

    Args:
        channel: kombu's class, whose attributes are its options.
        options: of the broker's transport, as configured.
        visibility_timeout: seconds.
    """
    what, after = "lost messages", f"after a kill -9 a message is redelivered {visibility_timeout} s after it was taken"
    if not hasattr(channel, "unacked_restore_interval"):
        return Finding(
            "warning", what, f"{after}, and up to 100 s later: kombu {kombu.__version__} checks that seldom; kombu 5.7 "
            "checks every few seconds with our pool",
        )  # fmt: skip
    every = options.get("unacked_restore_interval"), options.get("unacked_restore_throttle")
    if every == (None, None):
        return Finding("ok", what, f"{after}, and up to 10 s later: our pool makes Celery workers check that often")
    interval, throttle = every[0] or channel.unacked_restore_interval, every[1] or channel.unacked_restore_throttle
    seconds = interval * throttle
    return Finding(
        "warning" if seconds > max(_SELDOM, visibility_timeout) else "ok", what,
        f"{after}, and up to {seconds} s later: unacked_restore_interval {interval} s times "
        f"unacked_restore_throttle {throttle}",
    )  # fmt: skip


def _check_threads(app: Any) -> Iterator[Finding]:
    """Ask the Celery workers for threads of ours that have died or fail again and again."""
    try:
        answers = app.control.inspect(timeout=_ANSWER_SECONDS).stats() or {}
    except Exception as exc:  # noqa: BLE001 - each transport has errors of its own
        yield Finding("warning", "Celery workers", f"cannot be reached: {exc}")
        return
    ours = {node: stats["pool"]["threads"] for node, stats in answers.items() if "threads" in stats.get("pool", {})}
    if not ours:
        others = f"; {len(answers)} with another pool" if answers else ""
        yield Finding("ok", "Celery workers", f"no Celery worker with our pool answers{others}")
        return
    yield from check_threads(ours)


def check_threads(threads: Mapping[str, list[dict[str, Any]]]) -> Iterator[Finding]:
    """Name the threads that have died or failed.

    Args:
        threads: by Celery worker, as ``inspect stats`` shows them.
    """
    failed = False
    for node, described in sorted(threads.items()):
        for thread in described:
            if thread["alive"] and not thread["failures"]:
                continue
            failed = True
            last = f"; it has failed {thread['failures']} times, the last time with {thread['last_failure']}"
            said = "works again" if thread["alive"] else "has died: restart this Celery worker"
            level: Literal["warning", "error"] = "warning" if thread["alive"] else "error"
            yield Finding(level, "thread", f"{node}: {thread['name']} {said}{last if thread['failures'] else ''}")
    if not failed:
        count = sum(map(len, threads.values()))
        yield Finding("ok", "Celery workers", f"{', '.join(sorted(threads))}: {count} threads of ours, all alive")


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
        need = (settings.launchers or 2) + 1
        yield Finding("ok", "pooler", f"in session mode; each Celery worker keeps {need} of its sessions")
    available = schema.available_extension(session)
    if available is None:
        yield Finding("error", "extension", f"the server has no pg_background: {no_files(version // 10_000)}")
        return
    try:
        schema.check_installed(session)
        yield Finding("ok", "schema", f"celery_pgbg version {schema.installed_version(session)}")
        capabilities = detect(session)
    except PgbgError as exc:
        yield Finding("error", "installation", str(exc))
        return
    yield Finding("ok", "extension", f"pg_background {capabilities.version} in schema {capabilities.schema}")
    yield from _check_files(available[0], capabilities)
    if goes_through_outbox(app):
        yield from check_leftovers(session)
    yield from _check_older(capabilities)
    yield from _check_slots(app, session, settings, capabilities)
    yield from _settle_lost(session)
    try:
        seconds = round_trip(dsn, settings)
    except (PgbgError, psycopg.Error, RuntimeError) as exc:
        yield Finding("error", "round trip", str(exc))
    else:
        yield Finding("ok", "round trip", f"SELECT 1 in a background worker took {seconds * 1000:.0f} ms")


def _check_files(files: str, capabilities: Capabilities) -> Iterator[Finding]:
    """Compare the version in the database with that of the server's files, which a package can have replaced."""
    if files != capabilities.version:
        yield Finding(
            "warning",
            "extension files",
            f"the server's files are of pg_background {files}, the database has {capabilities.version}: if the library "
            "lacks one of its functions every task fails; run `ALTER EXTENSION pg_background UPDATE` as a superuser",
        )


def _check_older(capabilities: Capabilities) -> Iterator[Finding]:
    """List what this version of pg_background lacks."""
    lacks = [said for word, said in _LACKING.items() if capabilities.function(word) is None]
    if lacks:
        yield Finding("warning", "older extension", f"pg_background {capabilities.version} has {'; '.join(lacks)}")


def _settle_lost(session: Session) -> Iterator[Finding]:
    """Settle statements with ``atomic=False`` whose end no session saw."""
    lost = settle_lost(session)
    if lost:
        shown = ", ".join(str(attempt) for attempt in lost[:_SHOWN]) + (", ..." if len(lost) > _SHOWN else "")
        yield Finding("warning", "lost", f"{len(lost)} tasks with atomic=False are lost ({shown}): {UNSEEN}")


def no_files(major: int) -> str:
    """Say where to get the extension for a version of PostgreSQL."""
    if major == 18:
        cure = "install the package postgresql-18-pg-background there (Debian testing, or PGDG's packages)"
    else:
        cure = (
            f"for PostgreSQL {major} look for your distribution's package of pg_background, or build it from {_SOURCE} "
            "with that version's server headers (make && make install); for PostgreSQL 18 it is packaged as "
            "postgresql-18-pg-background"
        )
    return f"its files are not on the server: {cure}"


def _check_slots(app: Any, session: Session, settings: Settings, capabilities: Capabilities) -> Iterator[Finding]:
    slots = operations.slots(session)
    free_for_us = slots.server_worker_limit - slots.used_by_others
    said = (
        f"max_worker_processes {slots.server_worker_limit}: {slots.used} in use by pg_background, "
        f"{slots.used_by_others} by others"
    )
    concurrency = app.conf.worker_concurrency
    if free_for_us < _FEW_SLOTS or (concurrency and concurrency > free_for_us):
        given = concurrency or "not set (one per core)"
        yield Finding("warning", "slots", f"{said}; worker_concurrency {given}: tasks wait for a free slot")
    else:
        yield Finding("ok", "slots", said)
    number = settings.launchers or f"2 to {MOST_LAUNCHERS}"
    if not capabilities.limits_sessions:
        yield Finding(
            "ok", "launchers", f"{number} sessions in each Celery worker, without a limit of running statements"
        )
        return
    handles = (settings.launchers or MOST_LAUNCHERS) * SESSION_WORKER_LIMIT
    yield Finding(
        "warning" if (concurrency or 0) > handles else "ok",
        "launchers",
        f"{number} sessions in each Celery worker, with pg_background.max_workers raised to "
        f"{SESSION_WORKER_LIMIT}, can hold {handles} running statements",
    )
