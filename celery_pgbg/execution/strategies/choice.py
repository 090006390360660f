"""Which way an order gets its background worker: the one place that chooses."""

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
    """Takes an order to its end in one way."""

    def run(self, order: Order, watch: Watch) -> Ending:
        """Launch, wait, stop on demand; see ``Runner.run``.

        Raises:
            Unfit: it cannot be run in this way, and nothing was launched; its ``order`` fits another way.
        """
        ...


class OwnWorker(InTransaction):
    """A background worker of its own for each order."""


class Strategies:
    """The ways there are, each made once."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._own_worker = OwnWorker(means)
        self._reused_worker = ReusedWorker(means)
        self._standalone = Standalone(means)

    def strategy_of(self, order: Order) -> Strategy:
        """Choose by what the order asks for, and what is known of the server's sessions."""
        if not order.atomic:
            return self._standalone
        # Settings are inherited at the launch. Where a time limit is, it would be one of the whole life.
        if order.reuse and not order.settings and self._means.launchers.may_reuse:
            return self._reused_worker
        return self._own_worker

    def run(self, order: Order, watch: Watch) -> Ending:
        """Take an order to its end; one that turns out to be unfit for its way goes another."""
        while True:
            try:
                return self.strategy_of(order).run(order, watch)
            except Unfit as exc:
                order = exc.order
