"""When a consumer of the broker looks for messages."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from celery_pgbg.broker.rhythm import DeepLooks, Reach, Rhythm
from celery_pgbg.broker.slots import Slot, Subscription


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


def test_looks_that_search_far_back_take_a_small_share_of_the_time() -> None:
    looks = DeepLooks(share=0.1)
    assert looks.is_due()
    looks.note(100)
    assert not looks.is_due()
    looks.note(0)
    assert looks.is_due()
    seldom = DeepLooks(share=0.1, shortest=100.0)
    seldom.note(0)
    assert not seldom.is_due()
    often = DeepLooks(share=0.1, longest=0.0)
    often.note(100)
    assert often.is_due()


def test_a_look_that_finds_nothing_is_repeated_from_the_first_id_on_within_a_small_share_of_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("celery_pgbg.broker.rhythm.time.monotonic", lambda: now)
    rhythm = Rhythm(listens=True, poll_interval=None)

    def missed(seconds: float) -> Reach:
        """Other consumers are quicker; the look takes so long."""
        nonlocal now
        rhythm.notified(is_full=False)
        rhythm.begin()
        now += seconds
        rhythm.end(0)
        return rhythm.reach

    rhythm.tended()
    rhythm.begin()
    rhythm.end(0)
    assert rhythm.reach is Reach.FULL
    # Many dead rows under an old snapshot.
    seconds, full, begun = 0.004, 0.0, now
    for _ in range(200):
        now += 0.005
        full += seconds * (missed(seconds) is Reach.FULL)
    assert full / (now - begun) < 0.03
    # The last one is not forgotten, and comes by the clock.
    assert 0 < rhythm.seconds() < 0.4
    now += rhythm.seconds()
    rhythm.begin()
    assert rhythm.reach is Reach.FULL
    # With few rows it comes at once.
    rhythm.end(0)
    assert missed(0.0001) is not Reach.FULL
    assert rhythm.seconds() == 0
    rhythm.begin()
    assert rhythm.reach is Reach.FULL


def test_a_look_begins_where_messages_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("celery_pgbg.broker.slots.time.monotonic", lambda: now)

    def begins(reach: Reach) -> int:
        slot.aim(reach)
        return slot.lowest_id

    subscription = Subscription(Mock(), "tag", 1, 0, False)
    [slot] = subscription.slots
    slot.note([1, 2, 5])
    now += 1
    slot.note([6, 9])
    # Less was taken than there was room for: other messages may come, with any recent id.
    assert [begins(reach) for reach in (Reach.NEXT, Reach.LATE, Reach.FULL)] == [6, 6, 0]
    subscription.is_hungry = True
    assert [begins(reach) for reach in (Reach.NEXT, Reach.LATE, Reach.FULL)] == [10, 6, 0]
    # Late messages filled all room: behind them more may wait.
    slot.note([7, 8])
    assert [begins(reach) for reach in (Reach.NEXT, Reach.LATE, Reach.FULL)] == [9, 6, 0]
    slot.note([2])
    assert [begins(reach) for reach in (Reach.NEXT, Reach.LATE, Reach.FULL)] == [3, 0, 0]
    assert Slot(1, 0, False).lowest_id == 0
