"""The shared sessions, without a server."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Of two greenlets that wait for the only session, the first is killed just when its turn comes.
KILLING = """
from gevent import monkey; monkey.patch_all()
import gevent
from types import SimpleNamespace
from psycopg.pq import TransactionStatus
from celery_pgbg.database.session_set import SessionSet

idle = SimpleNamespace(transaction_status=TransactionStatus.IDLE)
sessions = SessionSet(lambda: SimpleNamespace(closed=False, broken=False, info=idle, close=print), limit=1)

def work(session):
    gevent.sleep(0.1)
    first.kill(block=False)

holder = gevent.spawn(sessions.run, work)
gevent.sleep(0)
first, second = (gevent.spawn(sessions.run, lambda session: "done") for _ in range(2))
print(second.get(timeout=20))
"""


def test_a_greenlet_that_is_killed_passes_its_turn_on() -> None:
    pytest.importorskip("gevent")
    done = subprocess.run([sys.executable, "-c", KILLING], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.split() == ["done"], done.stderr
