"""``pgbg pause`` and ``resume``: for batched tasks."""

from __future__ import annotations

import base64
from typing import Any

import click
from kombu.serialization import loads, prepare_accept_content

from celery_pgbg.batches.options import HEADER
from celery_pgbg.execution.control import walk_control
from celery_pgbg.execution.control.walk_control import WalkState
from celery_pgbg.operating.commands import command, database_option, full_task_id, installed_session
from celery_pgbg.operating.printing import safe


@click.command()
@click.argument("task_id", metavar="ID")
@database_option
@command
def pause(app: Any, task_id: str, alias: str | None) -> None:
    """Pause a batched task before its next batch, until `pgbg resume`. The task keeps its background worker.

    ID may be the beginning of an id.
    """
    with installed_session(app, alias) as session:
        whole = full_task_id(session, task_id)
        if not walk_control.pause(session, whole):
            raise click.ClickException(f"task {safe(whole)} is not a batched task with batches left to do")
    click.echo(f"paused: {safe(whole)} waits before its next batch")


@click.command()
@click.argument("task_id", metavar="ID")
@click.option("--queue", metavar="NAME", help="Send the task to this queue instead of the app's route.")
@database_option
@command
def resume(app: Any, task_id: str, queue: str | None, alias: str | None) -> None:
    """Continue a batched task after its last batch: a task that is paused, was revoked, or has failed.

    A task that no longer runs is sent again with the same arguments, as a new task. ID may be the beginning of an id.
    """
    with installed_session(app, alias) as session:
        whole = full_task_id(session, task_id)
        walk = walk_control.unpause(session, whole)
        if walk is None:
            raise click.ClickException(f"task {safe(whole)} is not a batched task")
        if walk.is_done:
            raise click.ClickException(f"task {safe(whole)} has nothing left to do")
        if walk_control.is_walking(session, walk):
            click.echo(f"resumed: task {safe(walk.task_id)} continues")
            return
    sent = _send_again(app, walk, queue)
    click.echo(f"sent {safe(walk.task_name)} again: task {sent.id} continues where {safe(whole)} stopped")


def _send_again(app: Any, walk: WalkState, queue: str | None) -> Any:
    message = walk.message
    if message is None:
        raise click.ClickException(
            f"task {safe(walk.task_id)} no longer runs, and its arguments are not stored (pgbg_store_sql = False): to "
            f"continue, send the task with the same arguments and headers={ {HEADER: {'walk_id': walk.walk_id}}!r}"
        )
    data = base64.b64decode(message["base64"]) if "base64" in message else message["body"]
    accepted = prepare_accept_content(app.conf.accept_content)
    args, kwargs = loads(data, message["content_type"], message["encoding"], accept=accepted)
    options: dict[str, Any] = {"headers": {HEADER: {"walk_id": walk.walk_id}}}
    if queue:
        options["queue"] = queue
    if walk.task_name in app.tasks:
        # The task's own options hold too.
        return app.tasks[walk.task_name].apply_async(args, kwargs, **options)
    return app.send_task(walk.task_name, args, kwargs, **options)
