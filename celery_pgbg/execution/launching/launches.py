"""What came of a launch, and what is said of an order to the server."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal, TypeVar

from psycopg.rows import kwargs_row

from celery_pgbg.database.preparation import Prepared
from celery_pgbg.database.sessions import Session
from celery_pgbg.execution import queries
from celery_pgbg.handles import Handle
from celery_pgbg.orders import Order

T = TypeVar("T")


@dataclass(frozen=True)
class Launch:
    """What came of asking for a launch.

    Attributes:
        state: ``launched`` by us; ``attached`` to a worker of an earlier delivery; ``finished``, the
            outcome is there; ``settling``, that worker has just ended, and the session that launched it may know an
            error; ``worn out``, it was launched as often as it may be and no background worker runs it;
            ``full``, the server has no free background worker slot.
        handle: of the worker that runs the attempt, or has run it, for ``launched``, ``attached`` and ``settling``.
    """

    state: Literal["launched", "attached", "finished", "settling", "worn out", "full"]
    handle: Handle | None = None


@dataclass(frozen=True)
class Placement:
    """What came of placing an order for reusable background workers.

    Attributes:
        state: ``placed``, also where an earlier delivery has placed it; ``attached`` to a background worker that an
            earlier delivery has got; ``finished``, the outcome is there; ``settling`` and ``worn out``, see ``Launch``.
        handle: of the background worker that runs it, if that is known; its PID is 0 until one has taken it.
        workers: how many background workers there seem to be that may take it.
    """

    number: int
    state: Literal["placed", "attached", "finished", "settling", "worn out"]
    handle: Handle | None
    workers: int


@dataclass(frozen=True)
class Sight:
    """What has become of an order that was placed.

    Attributes:
        state: ``waiting``; ``taken``; ``gone``, taken by one whose process is gone; ``finished``, the outcome is there;
            ``absent``, nothing is known of it.
        handle: of the background worker that has taken it.
        workers, free_workers, turns: background workers that may take it, how many of these have nothing to do, and
            how many orders they have taken together.
        taken_ms_ago: when they have taken the latest.
    """

    number: int
    state: Literal["waiting", "taken", "gone", "finished", "absent"]
    handle: Handle | None
    workers: int
    free_workers: int
    turns: int | None
    taken_ms_ago: int | None


@dataclass(frozen=True)
class Launched:
    """A background worker was launched."""

    handle: Handle


class Unfit(Exception):
    """An order cannot be run in the way that was tried.

    Attributes:
        order: the same, with all that it turned out to ask for.
    """

    def __init__(self, order: Order) -> None:
        super().__init__()
        self.order = order


def order_parameters(order: Order, prepared: Prepared, message_id: int | None) -> dict[str, Any]:
    """Say what the server must know of an order, in whatever way it is launched.

    Args:
        order: what to run.
        prepared: its statement.
        message_id: of the message that ends with it, None for none.
    """
    return {
        "task_id": order.attempt.task_id,
        "attempt": order.attempt.number,
        "task_name": order.task_name,
        "application_name": order.application_name,
        "nodename": order.nodename,
        "preamble": prepared.preamble,
        "statement": prepared.statement,
        "returns": order.returns,
        "role": order.role,
        "max_result_bytes": order.max_result_bytes,
        "notify": order.notify,
        "message_id": message_id,
        "task_meta": None if order.task_meta is None else json.dumps(order.task_meta),
    }


def fetch(session: Session, kind: Callable[..., T], name: str, parameters: dict[str, Any]) -> T:
    """Run a statement that returns one row; its PID and cookie become a handle."""
    [row] = _rows(session, kind, name, parameters)
    return row


def fetch_all(session: Session, kind: Callable[..., T], name: str, parameters: dict[str, Any]) -> list[T]:
    """Run a statement that numbers its rows, and return them in the order of what was asked for."""
    return sorted(_rows(session, kind, name, parameters), key=attrgetter("number"))


def _rows(session: Session, kind: Callable[..., T], name: str, parameters: dict[str, Any]) -> list[T]:
    def make(pid: int | None, cookie: int | None, **others: Any) -> T:
        return kind(handle=None if pid is None or cookie is None else Handle(pid, cookie), **others)

    with session.cursor(row_factory=kwargs_row(make)) as cursor:
        return cursor.execute(queries.query(name), parameters).fetchall()
