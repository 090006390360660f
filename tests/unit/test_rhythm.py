"""When a consumer of the broker looks for messages."""

from __future__ import annotations

from celery_pgbg.broker.rhythm import Rhythm


def look(rhythm: Rhythm, taken: int) -> None:
    """A notification comes, and a look takes so many messages."""
    rhythm.notified(is_full=False)
    rhythm.begin()
    rhythm.end(taken)


def test_messages_that_come_one_by_one_are_taken_at_once() -> None:
    rhythm = Rhythm(listens=True, poll_interval=None)
    for _ in range(5):
        look(rhythm, 1)
        assert not rhythm.is_busy
    rhythm.notified(is_full=False)
    assert rhythm.seconds() == 0


def test_many_messages_are_taken_by_the_clock() -> None:
    rhythm = Rhythm(listens=True, poll_interval=None)
    rhythm.tended()
    look(rhythm, 1)
    look(rhythm, 2)
    assert rhythm.is_busy
    rhythm.notified(is_full=False)
    assert 0 < rhythm.seconds() <= 0.01
    look(rhythm, 1)
    assert not rhythm.is_busy
