"""A very short soak: the harness works, and nothing is lost or doubled; whether memory is flat, minutes must tell."""

from __future__ import annotations

from tests.soak.run import soak
from tests.soak.samples import LIMITS, judge
from tests.soak.slots import overtaken


def test_what_grows_is_told_from_what_is_flat() -> None:
    minutes = range(40)
    series = {
        "RSS of the Celery worker": [70.0 + minute for minute in minutes],
        "PSS of the Celery worker": [70.0 + 30 * (minute > 5) for minute in minutes],
        "handles in its launching sessions": [float(minute * 40 % 60) for minute in minutes],
        "deadlines": [minute * 10.0 for minute in minutes],
    }
    assert {line.what: line.is_flat for line in judge(series, seconds=600)} == {
        "RSS of the Celery worker": False,
        "PSS of the Celery worker": True,
        "handles in its launching sessions": True,
        "deadlines": False,
    }


def test_who_was_overtaken_most_is_told() -> None:
    assert overtaken([0, 1, 2, 3]) == 0
    assert overtaken([1, 3, 2, 4, 0]) == 4


def test_a_short_soak_loses_nothing_and_leaves_nothing_behind(own_dsn: str) -> None:
    """With our broker; RabbitMQ has the minutes of ``make brief-soak``."""
    # Its own: what stood in another's tables when these were judged last is looked at again a day later.
    report = soak(own_dsn, f"pgbg+{own_dsn}", seconds=10)
    assert report.wrong == []
    assert {line.what for line in report.lines} == LIMITS.keys()
    assert report.counts["Celery workers killed"] >= 1
    for kind in ("fast: SUCCESS", "slow: SUCCESS", "failing: FAILURE", "chord: SUCCESS", "sent_twice: SUCCESS"):
        assert report.counts[kind] > 0
