"""``celery pgbg messages`` and ``celery pgbg relay``: the broker's queues, and the outbox for another broker."""

from __future__ import annotations

import json
import signal
from typing import Any

import click
from kombu.utils import json as kombu_json

from celery_pgbg.broker import browsing
from celery_pgbg.broker.outbox import goes_through_outbox
from celery_pgbg.broker.relay import Relay
from celery_pgbg.configuration import settings_of
from celery_pgbg.operating.commands import command, database_option, installed_session, json_option, limit_option
from celery_pgbg.operating.printing import safe
from celery_pgbg.operating.times import for_people


@click.command()
@click.argument("queue", required=False)
@click.option(
    "--dead", is_flag=True, help="Show the dead letters: messages delivered pgbg_max_deliveries times without success."
)
@click.option("--send-back", is_flag=True, help="With --dead: send the dead letters back to their queues.")
@click.option("--id", "message_id", type=int, metavar="ID", help="With --send-back: only this message.")
@click.option("--purge", is_flag=True, help="Delete the waiting messages of the queue.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@limit_option
@json_option
@database_option
@command
def messages(
    app: Any,
    queue: str | None,
    dead: bool,
    send_back: bool,
    message_id: int | None,
    purge: bool,
    yes: bool,
    limit: int,
    as_json: bool,
    alias: str | None,
) -> None:
    """Show the queues of the broker pgbg://, or the messages of one queue; send back dead letters; purge a queue."""
    name = browsing.DEAD_LETTERS if dead else queue
    if (send_back and not dead) or (purge and name is None):
        raise click.UsageError("--send-back needs --dead, and --purge needs a queue")
    with installed_session(app, alias) as session:
        if not dead and queue is not None and not browsing.has_queue(session, queue):
            raise click.ClickException(f"there is no queue {safe(queue)!r}: `pgbg messages` lists all queues")
        if send_back:
            click.echo(f"sent back {browsing.send_back(session, message_id)} messages")
        elif purge:
            assert name is not None
            if not yes:
                click.confirm(f"Delete all messages that wait in queue {safe(name)}?", abort=True)
            click.echo(f"deleted {browsing.purge(session, name)} messages")
        elif name is None:
            print_queues(browsing.queues(session), as_json)
        else:
            rows = browsing.messages(session, name, limit or None)
            _show([_with_task(row) for row in rows], as_json, _MESSAGE_TITLES, _message_row)


_QUEUE_TITLES = ("QUEUE", "WAITING", "TAKEN", "OLDEST", "BYTES", "CONSUMERS")
_MESSAGE_TITLES = ("ID", "AGE", "PRIORITY", "DELIVERIES", "TAKEN", "BYTES", "TASK", "TASK ID", "DEAD FROM")


def print_queues(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print the queues of ``browsing.queues``."""
    _show(rows, as_json, _QUEUE_TITLES, _queue_row)


def _queue_row(row: dict[str, Any]) -> tuple[str, ...]:
    oldest = "" if row["oldest_seconds"] is None else for_people(row["oldest_seconds"])
    return (row["name"], str(row["waiting"]), str(row["taken"]), oldest, str(row["bytes"]), str(row["consumers"]))


def _message_row(row: dict[str, Any]) -> tuple[str, ...]:
    taken = "yes" if row["is_taken"] else ""
    numbers = (str(row["id"]), for_people(row["seconds"]), str(row["priority"]), str(row["deliveries"]), taken)
    return (*numbers, str(row["bytes"]), row["task"] or "", row["task_id"] or "", row["dead_from"] or "")


def _with_task(row: dict[str, Any]) -> dict[str, Any]:
    """Read a message's task from its headers, not from its body, which may have any form."""
    try:
        headers = kombu_json.loads(row.pop("envelope")).get("headers") or {}
    except ValueError:
        headers = {}
    return {**row, "task": _text(headers.get("task")), "task_id": _text(headers.get("id"))}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _show(rows: list[dict[str, Any]], as_json: bool, titles: tuple[str, ...], write: Any) -> None:
    if as_json:
        click.echo(json.dumps(rows))
        return
    table = [titles, *(tuple(map(safe, write(row))) for row in rows)]
    widths = [max(len(cells[place]) for cells in table) for place in range(len(titles))]
    for cells in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


@click.command()
@database_option
@command
def relay(app: Any, alias: str | None) -> None:
    """Forward messages that were sent in transactions of this database to the app's broker, until stopped."""
    if not goes_through_outbox(app):
        raise click.UsageError("the broker is pgbg://, which needs no relay: messages sent in transactions are in it")
    settings = settings_of(app)
    working = Relay(app, settings.dsn_of(alias), settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *args: working.stop())
    click.echo("forwarding messages")
    working.run()
