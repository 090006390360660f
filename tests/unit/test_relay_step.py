"""When the relay is a part of a Celery worker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from celery import Celery

from celery_pgbg.broker.relay_step import RelayStep


@pytest.mark.parametrize(
    ("broker", "relay", "expected"),
    [
        ("redis://", True, True),
        ("amqp://", True, True),
        ("redis://", False, False),
        # One that has the turn would send on what the apps of another broker have sent, to where nobody consumes it.
        ("pgbg://", True, False),
        ("pgbg+postgresql://localhost/shop", True, False),
    ],
)
def test_it_is_there_where_there_is_another_broker(broker: str, relay: bool, expected: bool) -> None:
    app = Celery("shop", broker=broker, set_as_current=False)
    app.conf.pgbg_relay = relay
    assert RelayStep.include_if(cast(Any, None), SimpleNamespace(app=app)) is expected
