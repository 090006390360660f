"""The results of a launch, and the parameters of an order for the server."""

from __future__ import annotations

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
from celery_pgbg.texts import as_json

T = TypeVar("T")


@dataclass(frozen=True)
class Launch:
    """The result of a launch.

    Attributes:
        state: ``launched``: by us; ``attached``: to an earlier delivery's background worker; ``finished``: the outcome
            exists; ``settling``: that background worker has just ended, and its launching session may know an error;
            ``worn out``: the launches are used up, and no background worker runs it; ``full``: the server has no free
            background worker slot.
        handle: the background worker that runs, or has run, the attempt, for ``launched``, ``attached`` and
            ``settling``.
    """

    state: Literal["launched", "attached", "finished", "settling", "worn out", "full"]
    handle: Handle | None = None


@dataclass(frozen=True)
class Placement:
    """The result of placing an order for reusable background workers.

    Attributes:
        state: ``placed``: by this or an earlier delivery; ``attached``: to an earlier delivery's background worker;
            ``finished``: the outcome exists; ``settling`` and ``worn out``: see ``Launch``.
        handle: the background worker that runs it, if known; its PID is 0 until a background worker has taken the
            order.
        workers: the estimated number of background workers that may take it.
    """

    number: int
    state: Literal["placed", "attached", "finished", "settling", "worn out"]
    handle: Handle | None
    workers: int


@dataclass(frozen=True)
class Sight:
    """The state of a placed order.

    Attributes:
        state: ``waiting``; ``taken``; ``gone``: taken by a background worker whose process is gone; ``finished``: the
            outcome exists; ``absent``: the order is unknown.
        handle: the background worker that has taken it.
        workers, free_workers, turns: number of background workers that may take it, of idle ones among them, and of
            orders that they have taken together.
        taken_ms_ago: milliseconds since they took the latest order.
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
    """An order cannot be run by the tried strategy.

    Attributes:
        order: the same order, with all the settings that it turned out to need.
    """

    def __init__(self, order: Order) -> None:
        super().__init__()
        self.order = order


def order_parameters(order: Order, prepared: Prepared, message_id: int | None) -> dict[str, Any]:
    """Make the server's parameters for an order, for every strategy.

    Args:
        order: what to run.
        prepared: its statement.
        message_id: id of the message that ends with it, None for none.
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
        "task_meta": None if order.task_meta is None else as_json(order.task_meta),
    }


def fetch(session: Session, kind: Callable[..., T], name: str, parameters: dict[str, Any]) -> T:
    """Run a statement that returns one row; its PID and cookie become a handle."""
    [row] = _rows(session, kind, name, parameters)
    return row


def fetch_all(session: Session, kind: Callable[..., T], name: str, parameters: dict[str, Any]) -> list[T]:
    """Run a statement with numbered rows, and return them in the order of the request."""
    return sorted(_rows(session, kind, name, parameters), key=attrgetter("number"))


def _rows(session: Session, kind: Callable[..., T], name: str, parameters: dict[str, Any]) -> list[T]:
    def make(pid: int | None, cookie: int | None, **others: Any) -> T:
        return kind(handle=None if pid is None or cookie is None else Handle(pid, cookie), **others)

    with session.cursor(row_factory=kwargs_row(make)) as cursor:
        return cursor.execute(queries.query(name), parameters).fetchall()
