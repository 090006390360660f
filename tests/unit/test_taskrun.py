"""What a run does with a request that was revoked before its turn came, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from celery_pgbg.handles import Attempt
from celery_pgbg.tasks.taskrun import TaskRun, current_run
from celery_pgbg.watch import Interruption, Watch


class RevokedRequest:
    """Stands for Celery's: discarded, or with a statement of an earlier delivery to stop first."""

    def __init__(self, stops_first: bool) -> None:
        self.stops_first = ("revoked", False) if stops_first else None

    def revoked(self) -> bool:
        return self.stops_first is None

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Called with the PID."""


@pytest.mark.parametrize(("stops_first", "traced"), [(False, []), (True, [Interruption.REVOKE])])
def test_a_run_that_was_revoked_in_line_is_not_traced_unless_something_must_be_stopped(
    stops_first: bool, traced: list[Any]
) -> None:
    seen: list[Any] = []

    def tracer() -> None:
        run = current_run("a")
        assert run is not None
        assert run.watch is not None
        seen.append(run.watch.interruption)

    request = RevokedRequest(stops_first)
    TaskRun("a", Watch(Attempt("a")), tracer, (), {}, {"accept_callback": request.on_accepted}).execute()
    assert seen == traced
