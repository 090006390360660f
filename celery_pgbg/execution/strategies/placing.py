"""One order on its way to a reusable background worker."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from celery_pgbg.execution.waiting.watches import Entry
from celery_pgbg.orders import Order

#: How long to gather orders for one call where background workers have enough to do, in seconds.
GATHERING = 0.03

#: While another thread sends: how long to wait for the result, in seconds. A wake-up comes only if it is needed.
_PATIENCE = 0.05


@dataclass(eq=False)
class Placing:
    """An order on its way to a background worker that takes it.

    Attributes:
        order: what to run.
        entry: the wait for it.
        pool: names the background workers that may take it.
        state: ``queued``; ``sent``, a thread is sending it; ``failed``, see ``error``;
            ``placed``; ``known``, it is known which background worker runs it.
        error: the error of sending it, for the waiting thread.
        wants_worker: no background worker takes it, and the server has no slot for another.
        next_look: the time of the next check, of the monotonic clock.
        gathers: its thread sends all gathered orders, after a while.
    """

    order: Order
    entry: Entry
    pool: str
    state: Literal["queued", "sent", "failed", "placed", "known"] = "queued"
    error: Exception | None = None
    wants_worker: bool = False
    next_look: float = 0.0
    pause: float = 0.0
    placed_at: float = 0.0
    strange_looks: int = 0
    queued_at: float = 0.0
    gathers: bool = False

    def wait_seconds(self) -> float | None:
        """How long the waiting thread may sleep; None until it is woken."""
        match self.state:
            case "known":
                return None
            case "placed":
                return 0.0 if self.wants_worker else max(0.0, self.next_look - time.monotonic())
            case "queued" if self.gathers:
                return GATHERING
            case _:
                return _PATIENCE

    def wake(self) -> None:
        """Let the waiting thread look."""
        self.entry.watch.nudge()
