"""The parents of an awaited task: the failure of a parent is raised."""

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
    """Reads all parents that may have ended in one query, and lets Celery raise the error of a failed parent.

    Args:
        results: the parents, the nearest first; a group stands for its members, because a group has no stored state.
        read: reads the task meta of ids.
        raise_error: the function that Celery wants called from time to time; it raises the error of a failed parent.
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
        """The ids of the parents that are not known to have ended."""
        return set(self._pending)

    def tick(self) -> None:
        """Call Celery's function, unless that only reads each parent by itself.

        Raises:
            Exception: any error that the function of ``get``'s caller raises.
        """
        # Celery's promise has the callback of ``get``'s caller as its listener, until the callback is called.
        if not self._pending or any(getattr(self._raise_error, "listeners", [self._raise_error])):
            self._raise_error()

    def look(self) -> None:
        """Read the parents that had not ended.

        Raises: Exception: the error of a failed parent.
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
