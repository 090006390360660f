"""Adds our own step to every Celery worker; otherwise each app would have to add the step."""

from __future__ import annotations

import functools

from celery_pgbg.celery_patches.late import when_imported


def add_worker_step(step: str) -> None:
    """Have each Celery worker of this process include a step, if the step agrees.

    Args:
        step: ``module:Class``, imported when a Celery worker is made.
    """
    when_imported("celery.worker.worker", functools.partial(_add, step))


def _add(step: str) -> None:
    from celery.worker.worker import WorkController

    WorkController.Blueprint.default_steps = {*WorkController.Blueprint.default_steps, step}
