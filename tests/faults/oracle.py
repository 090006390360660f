"""What may be true of tasks: the book that the stateful tests keep, and the statements that they send.

Each attempt's statement leaves an effect, then waits at a gate of its own, an advisory lock that the test holds,
and then returns or fails. So a statement runs exactly until a rule lets it through, whatever the time is.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from tests.waiting import eventually

#: Key of the advisory locks; the second number is the gate's.
_SPACE = 20_317
_numbers = itertools.count(1)


@dataclass(eq=False)
class Tried:
    """One attempt of one task.

    Attributes:
        task_id: Celery's.
        number: Celery's ``retries``.
        fails: whether its statement fails once it is let through.
        reuse: whether its background worker may run others before and after it.
        gate: number of the lock that it waits for.
        fate: ``open`` while it may still run; then how it ended for good.
        is_wanted: whether rules still have something to do with it. Unlike ``fate`` it does not depend on who wins
            a race, as what Hypothesis draws must not.
        deliveries: of the stateful test, those that have not ended.
    """

    task_id: str
    number: int
    fails: bool
    reuse: bool = False
    gate: int = field(default_factory=lambda: next(_numbers))
    fate: str = "open"
    is_wanted: bool = True
    deliveries: list[Any] = field(default_factory=list)

    @property
    def mark(self) -> str:
        """What its effect says."""
        return f"{self.task_id} {self.number}"


class Book:
    """The effects that are there, against those that should be."""

    def __init__(self, dsn: str) -> None:
        self.session = psycopg.connect(dsn, autocommit=True)
        self.session.execute("DROP TABLE IF EXISTS stateful_effects; CREATE TABLE stateful_effects (mark text)")
        self.attempts: list[Tried] = []

    def enter(self, tried: Tried) -> Tried:
        """Begin to watch over an attempt, whose gate is closed from now on."""
        self.close_the_gate(tried)
        self.attempts.append(tried)
        return tried

    def close_the_gate(self, tried: Tried) -> None:
        """Let an attempt's statement wait when it comes there."""
        self.session.execute("SELECT pg_advisory_lock(%s, %s)", [_SPACE, tried.gate])

    def let_through(self, tried: Tried) -> None:
        """Open an attempt's gate."""
        self.session.execute("SELECT pg_advisory_unlock(%s, %s)", [_SPACE, tried.gate])

    def background_workers(self, tried: Tried) -> set[int]:
        """PIDs of those that run it, and wait at its gate or do not yet."""
        query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_background' AND application_name LIKE %s"
        suffix = f"#{tried.number}" if tried.number else ""
        return {pid for (pid,) in self.session.execute(query, [f"pgbg {tried.task_id}{suffix} %"])}

    def at_the_gate(self, tried: Tried) -> set[int]:
        """PIDs of the background workers that have left their effect and wait."""
        query = (
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid = %s AND NOT granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        return {pid for (pid,) in self.session.execute(query, [_SPACE, tried.gate])}

    def has_outcome(self, tried: Tried) -> bool:
        """Whether it has committed, its effect or its error."""
        query = "SELECT FROM celery_pgbg.outcome WHERE task_id = %s AND attempt = %s"
        return self.session.execute(query, [tried.task_id, tried.number]).rowcount > 0

    def kill(self, tried: Tried) -> None:
        """End its background workers, which have been seen, as one of our sessions does; wait until they are gone."""
        self.session.execute(
            "UPDATE celery_pgbg.execution SET launched_at = launched_at - interval '1 minute', terminated_at = now()"
            " WHERE task_id = %s AND attempt = %s",
            [tried.task_id, tried.number],
        )
        for pid in self.background_workers(tried):
            self.session.execute("SELECT pg_terminate_backend(%s, 60000)", [pid])

    def effects(self) -> dict[str, int]:
        """How often each attempt's effect is there."""
        return dict(self.session.execute("SELECT mark, count(*) FROM stateful_effects GROUP BY mark").fetchall())

    def check(self) -> None:
        """Effects are there once for each attempt that succeeded, and for no other."""
        expected = {tried.mark: 1 for tried in self.attempts if tried.fate == "succeeded"}
        assert self.effects() == expected

    def close(self) -> None:
        """Let all through that still wait, and wait until nothing runs."""
        for tried in self.attempts:
            if tried.fate == "open":
                self.kill(tried)
        eventually("no background worker is left", lambda: not any(map(self.background_workers, self.attempts)))
        self.session.close()


def statement(tried: Tried) -> str:
    """An effect, the gate, and then a row or an error."""
    query = sql.SQL(
        "INSERT INTO stateful_effects VALUES ({mark});"
        " SELECT pg_advisory_xact_lock_shared({space}, {gate}); SELECT 1 / {divisor} AS one"
    )
    return query.format(mark=tried.mark, space=_SPACE, gate=tried.gate, divisor=0 if tried.fails else 1).as_string()
