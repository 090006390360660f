"""A message that is discarded, as revoked, when an earlier delivery has left its statement running."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from celery import states

from tests.effects import effects, running
from tests.faults.conftest import ALONE
from tests.faults.held import Held
from tests.fix_celery import Shop
from tests.waiting import eventually


def test_what_a_dead_celery_worker_left_is_stopped_when_its_message_is_discarded(
    new_shop: Callable[..., Shop], amqp_url: str, dsn: str, table: str, database: Any
) -> None:
    """Else it would commit after REVOKED was told. What has committed by then stands, and is a success."""
    shop = new_shop(amqp_url, f"pgbg+{dsn}", pgbg_dsn=dsn)
    doomed = shop.start_worker()
    next_one = shop.start_worker("-Q", f"{shop.queue}-other")
    insert = shop.task("insert")
    runs_on = insert.delay(table, "runs on", 600)
    commits = insert.delay(table, "commits", 2)
    eventually("both run", lambda: running(database, runs_on.id) and running(database, commits.id))
    doomed.kill()
    shop.app.control.revoke([runs_on.id, commits.id], terminate=True)
    inspect = shop.app.control.inspect(destination=[next_one.nodename])
    eventually("heard of", lambda: runs_on.id in (inspect.revoked() or {}).get(next_one.nodename, ()))
    assert runs_on.state == states.PENDING, "it runs"
    eventually("committed", lambda: effects(database, table) == ["commits"])
    shop.app.control.add_consumer(shop.queue, destination=[next_one.nodename])
    eventually("discarded", lambda: runs_on.state == states.REVOKED)
    assert running(database, runs_on.id) == []
    eventually("attached", lambda: f"[{commits.id}] succeeded" in next_one.text())
    assert commits.state == states.SUCCESS
    assert effects(database, table) == ["commits"]


def test_a_revoke_reaches_what_still_runs_when_another_delivery_was_discarded(
    new_shop: Callable[..., Shop], amqp_url: str, dsn: str, table: str, database: Any
) -> None:
    """Celery forgets the task id with the first request of it that ends."""
    shop = new_shop(amqp_url, f"pgbg+{dsn}", pgbg_dsn=dsn)
    worker = shop.start_worker()
    held = Held(shop, table, database)
    held.send_again(expires=datetime.now(timezone.utc) - timedelta(minutes=1))
    eventually("discarded", lambda: f"Discarding revoked task: shop.statement[{held.result.id}]" in worker.text())
    held.result.revoke(terminate=True)
    eventually("stopped", lambda: not running(database, held.result.id))
    eventually("told", lambda: held.result.state == states.REVOKED)
    assert effects(database, table) == []


def test_what_began_in_time_is_not_stopped_when_another_delivery_has_expired(
    fault_shop: Callable[..., Shop], dsn: str, table: str, database: Any
) -> None:
    """As with a visibility timeout shorter than the task."""
    shop = fault_shop("redis", dsn)
    worker = shop.start_worker(*ALONE)
    held = Held(shop, table, database, expires=4)
    expired = f"Discarding revoked task: shop.statement[{held.result.id}]"
    eventually("a further delivery has expired", lambda: expired in worker.text())
    eventually("it has joined", lambda: f"{held.result.id} runs already" in worker.text().partition(expired)[2])
    assert running(database, held.result.id) == [held.pid]
    held.release()
    assert held.result.get(timeout=60) == [{"v": "done"}]
    assert effects(database, table) == ["x"]
