"""The changes to Celery and kombu that hold wherever this package is imported; all are made here.

Each change waits until its module is imported: the command line and the development server need none of them.
"""

from __future__ import annotations

from celery_pgbg.celery_patches.late import when_imported
from celery_pgbg.celery_patches.steps import add_worker_step
from celery_pgbg.celery_patches.transports import register


def change_celery() -> None:
    """Make the changes. Called once, by the package's ``__init__``."""
    # kombu has no entry points for transports.
    register(("pgbg", "pgbg+postgresql"), "celery_pgbg.broker:Transport")
    # Active in a Celery worker only with pgbg_relay.
    add_worker_step("celery_pgbg.broker.relay_step:RelayStep")
    when_imported("celery.app.utils", _hide_passwords)
    when_imported("kombu.utils.json", _register_json_types)
    when_imported("billiard.pool", _read_counters_without_lock)
    # Before there is any connection: the first thing that a process sends may be a group.
    when_imported("celery.canvas", _send_groups_together)


def _hide_passwords() -> None:
    from celery_pgbg.celery_patches.censoring import hide_passwords

    hide_passwords()


def _register_json_types() -> None:
    from celery_pgbg.celery_patches import json_types

    json_types.register()


def _read_counters_without_lock() -> None:
    from celery_pgbg.celery_patches.prefork import read_counters_without_lock

    read_counters_without_lock()


def _send_groups_together() -> None:
    from celery_pgbg.celery_patches.canvas import send_groups_within

    send_groups_within("celery_pgbg.broker.outlet:together")
