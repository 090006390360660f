"""Threads whose work goes on."""

from __future__ import annotations

import threading

import pytest

from celery_pgbg.lasting import LastingThread, describe_threads
from tests.waiting import eventually


@pytest.mark.parametrize("error", [LookupError, SystemExit, MemoryError])
def test_work_that_fails_begins_again_and_says_so(error: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    works = threading.Event()
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise error("once")
        works.set()
        thread.stopping.wait()

    thread = LastingThread("pgbg-test", work)
    thread.start()
    assert works.wait(60)
    [told] = [told for told in describe_threads() if told["name"] == "pgbg-test"]
    assert told == {"name": "pgbg-test", "alive": True, "failures": 1, "last_failure": repr(error("once"))}
    assert "the thread pgbg-test has failed and restarts" in caplog.text
    thread.stop()
    eventually("it ends", lambda: not thread.is_alive())
    assert "pgbg-test" not in {told["name"] for told in describe_threads()}
