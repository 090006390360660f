"""``pgbg cancel``, ``retry`` and ``purge``: commands that change tasks and their records."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import click
import psycopg
from celery import states

from celery_pgbg.errors import PgbgError
from celery_pgbg.execution.control import operations
from celery_pgbg.execution.control.stopping import despite_locks
from celery_pgbg.execution.records.expiry import Expired, delete_expired
from celery_pgbg.operating.commands import (
    TimeSpan,
    command,
    database_option,
    full_task_id,
    installed_session,
    new_session,
)
from celery_pgbg.operating.printing import safe
from celery_pgbg.operating.times import for_people

#: How long Celery workers may take to answer, in seconds.
_ANSWER_SECONDS = 2.0

#: How many attempts are searched for while our tables are locked.
_ATTEMPTS = 100


@click.command()
@click.argument("task_id", metavar="ID")
@click.option("--force", is_flag=True, help="Stop the background worker directly, without a Celery worker.")
@database_option
@command
def cancel(app: Any, task_id: str, force: bool, alias: str | None) -> None:
    """Stop a SQL task: revoke it through Celery or, with --force, end its background worker.

    With --force the task fails with QueryCanceled, and a redelivery of its message does not run it again.
    ID may be the beginning of the id of a task that was launched.
    """
    if not force:
        _revoke(app, *_known(app, alias, task_id))
        return
    with (
        installed_session(app, alias) as session,
        despite_locks(partial(new_session, app, alias), task_id, range(_ATTEMPTS)),
    ):
        whole = full_task_id(session, task_id)
        stopped = operations.cancel_by_hand(session, whole)
        is_batched = operations.is_batched(session, whole)
    if not stopped:
        raise click.ClickException(f"no background worker runs task {safe(whole)}")
    if is_batched:
        click.echo(
            "stopped: the batch in progress is rolled back, the earlier batches stay, and the task fails with "
            f"QueryCanceled; a redelivery does not continue the task, `pgbg resume {safe(whole)}` does"
        )
    elif all(stopped):
        click.echo(
            "stopped: the statement is rolled back, and the task fails with QueryCanceled; a redelivery does not run "
            "the statement again"
        )
    else:
        click.echo("stopped: the statement ran outside a transaction, so everything that it has committed stays")


def _known(app: Any, alias: str | None, task_id: str) -> tuple[str, list[dict[str, Any]]]:
    """Complete an id and look up its attempts; if the database cannot be asked, a revoke continues without them."""
    try:
        with installed_session(app, alias) as session:
            whole = full_task_id(session, task_id) if operations.tasks_that_begin(session, task_id) else task_id
            return whole, operations.attempts_of(session, whole)
    except (PgbgError, psycopg.Error) as exc:
        click.echo(f"cannot read the database, so the id is revoked exactly as given: {safe(str(exc))}", err=True)
        return task_id, []


def _revoke(app: Any, task_id: str, attempts: list[dict[str, Any]]) -> None:
    try:
        # Asked first, because the answer to a revoke does not reliably say whether a Celery worker has the task.
        known = app.control.inspect(timeout=_ANSWER_SECONDS).query_task(task_id) or {}
        replies = app.control.revoke(task_id, terminate=True, reply=True, timeout=_ANSWER_SECONDS) or []
    except Exception as exc:
        # Each transport has its own errors.
        raise click.ClickException(
            f"the broker cannot be reached: {exc}; --force ends the background worker directly"
        ) from exc
    if not replies:
        raise click.ClickException("no Celery worker answers; --force ends the background worker directly")
    having = sorted(node for node, tasks in known.items() if tasks)
    if not having:
        raise click.ClickException(_not_had(task_id, attempts))
    for node in having:
        click.echo(f"{safe(node)}: revoked {safe(task_id)}")


def _not_had(task_id: str, attempts: list[dict[str, Any]]) -> str:
    """Print what is known about a task that no Celery worker has."""
    last = attempts[-1] if attempts else None
    if last and last["state"] in ("running", "starting", "waiting"):
        return (
            f"no Celery worker has task {safe(task_id)}, but its background worker runs: --force ends it; "
            "the Celery workers drop the task's message if they receive it"
        )
    if last and last["state"] == "unknown":
        return (
            f"no Celery worker has task {safe(task_id)}, and this role cannot see whether its background worker runs: "
            "ask with a role that may see all sessions"
        )
    if last and last["finished_at"]:
        ended = "was revoked" if last["state"] == "revoked" else f"has {last['state']}"
        return f"task {safe(task_id)} does not run: it {ended}"
    if last:
        return f"task {safe(task_id)} does not run: it has no process and no outcome"
    return (
        f"no Celery worker has task {safe(task_id)}, and this database has no record of a SQL task with this id; the "
        "Celery workers drop the task's message if they receive it"
    )


@click.command()
@click.argument("task_id", metavar="ID")
@click.option("--queue", metavar="NAME", help="Send the task to this queue instead of the app's route.")
@click.option("--force", is_flag=True, help="Retry even a task that has succeeded or may have partly completed.")
@database_option
@command
def retry(app: Any, task_id: str, queue: str | None, force: bool, alias: str | None) -> None:
    """Send a failed SQL task again: the same id and arguments, as a new attempt.

    The arguments come from the result backend, which keeps them with `result_extended = True`. Links, chains and
    chords that the task was part of are not sent again. ID may be the beginning of an id.
    """
    with installed_session(app, alias) as session:
        whole = full_task_id(session, task_id)
        attempts = operations.attempts_of(session, whole)
    _refuse_retry(whole, attempts[-1], force)
    meta = app.backend.get_task_meta(whole)
    if meta.get("args") is None and meta.get("kwargs") is None:
        raise click.ClickException(
            f"the result backend does not have the arguments of task {safe(whole)}: with result_extended = True it "
            "keeps the arguments of later tasks"
        )
    if meta.get("status") == states.REVOKED:
        raise click.ClickException(
            f"task {safe(whole)} was revoked: Celery workers remember the revoke and drop its messages; send a new task"
        )
    name = meta.get("name") or attempts[-1]["task_name"]
    number = attempts[-1]["attempt"] + 1
    # Otherwise readers of the result would get the old error.
    app.backend.mark_as_retry(whole, meta["result"], meta.get("traceback"))
    route = {"queue": queue} if queue else {}
    app.send_task(name, meta.get("args"), meta.get("kwargs"), task_id=whole, retries=number, **route)
    click.echo(f"sent {safe(name)} again, as attempt {number} of {safe(whole)}")


def _refuse_retry(task_id: str, last: dict[str, Any], force: bool) -> None:
    if last["state"] in ("running", "starting", "waiting"):
        raise click.ClickException(f"task {safe(task_id)} runs: cancel it first")
    if force:
        return
    if last["state"] == "finished":
        raise click.ClickException(f"task {safe(task_id)} has succeeded; --force runs it again")
    if not last["atomic"]:
        raise click.ClickException(
            f"task {safe(task_id)} ran outside a transaction and may have partly completed; --force runs it again"
        )


@click.command()
@click.option(
    "--older-than",
    type=TimeSpan(),
    required=True,
    metavar="TIME",
    help="Least age, such as 90 (seconds), 15m, 2h, 1d, 1d12h.",
)
@database_option
@command
def purge(app: Any, older_than: float, alias: str | None) -> None:
    """Delete old outcomes and records. A redelivery of a task without a record runs its statement again."""
    with installed_session(app, alias) as session:
        done = _delete_with_progress(session, older_than)
    click.echo(f"deleted {done.deleted:,} records older than {for_people(older_than)}")
    kept = (
        (done.results, "are values of stored results, which the result backend deletes after result_expires"),
        (done.chord_parts, "wait for the rest of their chords"),
        (done.running, "run"),
        (done.earlier, "had such a reason within the last day, and are checked only once a day"),
        (done.younger, "are younger"),
    )
    for count, reason in kept:
        if count:
            click.echo(f"kept {count:,}: they {reason}")
    if done.contended:
        raise click.ClickException("another session is deleting old records; try again later")


def _delete_with_progress(session: Any, older_than: float) -> Expired:
    if not sys.stderr.isatty():
        return delete_expired(session, older_than)
    with click.progressbar(length=1, label="deleting", file=sys.stderr) as bar:

        def show(expired: Expired) -> None:
            bar.length = max(expired.total, 1)
            bar.update(expired.looked_at - bar.pos)

        return delete_expired(session, older_than, show)
