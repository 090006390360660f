"""What the doctor makes of what others tell."""

from __future__ import annotations

from typing import Any

import kombu
import pytest
from kombu.transport import redis

from celery_pgbg.operating.diagnosis import check_restoring, check_threads


def thread(name: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "alive": True, "failures": 0, "last_failure": None, **changes}


def test_threads_that_died_are_named() -> None:
    told = {
        "a@host": [
            thread("pgbg listener"),
            thread("pgbg sweeper", alive=False, failures=3, last_failure="MemoryError()"),
        ],
        "b@host": [thread("pgbg listener", failures=1, last_failure="KeyError('x')")],
    }
    found = [(finding.level, finding.said) for finding in check_threads(told)]
    assert found == [
        (
            "error",
            "a@host: pgbg sweeper has died: restart this Celery worker; it has failed 3 times, the last time with "
            "MemoryError()",
        ),
        ("warning", "b@host: pgbg listener works again; it has failed 1 times, the last time with KeyError('x')"),
    ]
    [content] = check_threads({"a@host": [thread("one"), thread("two")]})
    assert (content.level, content.said) == ("ok", "a@host: 2 threads of ours, all alive")


class OldChannel:
    """As kombu's was before it could be told how often to look."""


def test_an_older_kombu_looks_seldom_for_lost_messages() -> None:
    found = check_restoring(OldChannel, {}, 20)
    assert found.level == "warning"
    assert f"up to 100 s later: kombu {kombu.__version__} checks that seldom; kombu 5.7 checks" in found.said


@pytest.mark.skipif(not hasattr(redis.Channel, "unacked_restore_interval"), reason="kombu is too old for it")
@pytest.mark.parametrize(
    ("options", "level", "said"),
    [
        ({}, "ok", "up to 10 s later"),
        ({"unacked_restore_interval": 10}, "warning", "up to 100 s later"),
        ({"unacked_restore_interval": 5, "unacked_restore_throttle": 2}, "ok", "up to 10 s later"),
    ],
)
def test_how_often_it_is_told_to_look(options: dict[str, int], level: str, said: str) -> None:
    found = check_restoring(redis.Channel, options, 20)
    assert (found.level, said in found.said) == (level, True)
