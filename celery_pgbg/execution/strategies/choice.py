"""The only place that chooses the strategy of an order."""

from __future__ import annotations

from typing import Protocol

from celery_pgbg.execution.launching.launches import Unfit
from celery_pgbg.execution.strategies.in_transaction import InTransaction
from celery_pgbg.execution.strategies.means import Means
from celery_pgbg.execution.strategies.reused_worker import ReusedWorker
from celery_pgbg.execution.strategies.standalone import Standalone
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import Ending
from celery_pgbg.watch import Watch


class Strategy(Protocol):
    """A strategy: one way to take an order to its end."""

    def run(self, order: Order, watch: Watch) -> Ending:
        """Launch, wait, stop on demand; see ``Runner.run``.

        Raises:
            Unfit: this strategy cannot run the order, and nothing was launched; another strategy can run its
                ``order``.
        """
        ...


class OwnWorker(InTransaction):
    """A background worker of its own for each order."""


class Strategies:
    """All strategies, each made once."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._own_worker = OwnWorker(means)
        self._reused_worker = ReusedWorker(means)
        self._standalone = Standalone(means)

    def strategy_of(self, order: Order) -> Strategy:
        """Choose by the order's options and the abilities of the server's sessions."""
        if not order.atomic:
            return self._standalone
        # Settings are inherited at the launch. A time limit would limit the background worker's whole life.
        if order.reuse and not order.settings and self._means.launchers.may_reuse:
            return self._reused_worker
        return self._own_worker

    def run(self, order: Order, watch: Watch) -> Ending:
        """Take an order to its end; an order that turns out to be unfit for its strategy gets another one."""
        while True:
            try:
                return self.strategy_of(order).run(order, watch)
            except Unfit as exc:
                order = exc.order
