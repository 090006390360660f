"""The parents of a task that is waited for: a failure of one of them is raised."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from celery import states

from celery_pgbg.backend.task_metas import TaskMeta


def parents_of(result: Any) -> Iterator[Any]:
    """The parents of a result in its chain, the nearest first."""
    while (result := result.parent) is not None:
        yield result


class Parents:
    """Reads those that may have ended all at once, and lets Celery raise the error of one that has failed.

    Args:
        results: the parents, the nearest first; a group stands for its members, as nothing is stored of itself.
        read: reads the task meta of ids.
        raise_error: what Celery gave us to call from time to time; it raises the error of a failed parent.
    """

    def __init__(
        self,
        results: Iterable[Any],
        read: Callable[[Collection[str]], dict[str, TaskMeta]],
        raise_error: Callable[[], Any],
    ) -> None:
        self._pending = {str(result.id): result for result in _leaves(results) if not result._cache}
        self._read = read
        self._raise_error = raise_error

    @property
    def pending(self) -> Collection[str]:
        """The ids of those that are not known to have ended."""
        return set(self._pending)

    def tick(self) -> None:
        """Call what Celery gave us, unless all it does is to look at each parent by itself.

        Raises:
            Exception: whatever the caller of ``get`` has it raise.
        """
        # A promise of Celery's has the callback of the caller of ``get`` as its listener, until that was called.
        if not self._pending or any(getattr(self._raise_error, "listeners", [self._raise_error])):
            self._raise_error()

    def look(self) -> None:
        """Read those that had not ended.

        Raises:
            Exception: the error of one that has failed.
        """
        if not self._pending:
            return
        metas = self._read(sorted(self._pending))
        ended = {task_id: meta for task_id, meta in metas.items() if meta["status"] in states.READY_STATES}
        for task_id, meta in ended.items():
            self._pending.pop(task_id)._maybe_set_cache(meta)
        if any(meta["status"] in states.PROPAGATE_STATES for meta in ended.values()):
            self._raise_error()


def _leaves(results: Iterable[Any]) -> Iterator[Any]:
    for result in results:
        members = getattr(result, "results", None)
        if members is None:
            yield result
        else:
            yield from _leaves(members)
