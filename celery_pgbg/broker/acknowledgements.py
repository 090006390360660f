"""What is acknowledged and not yet sent to the server."""

from __future__ import annotations

import contextlib
from collections import deque


class Acknowledgements:
    """Gathers the ids of messages. Any thread may add, also in the middle of a look."""

    def __init__(self) -> None:
        self._present: deque[int] = deque()
        self._gone: deque[int] = deque()

    def add(self, message_id: int, is_gone: bool) -> None:
        """Add one; ``is_gone``: nothing hangs on it, for the transaction of its task has deleted the message."""
        (self._gone if is_gone else self._present).append(message_id)

    @property
    def is_urgent(self) -> bool:
        """Whether the server should know soon."""
        return bool(self._present)

    def __bool__(self) -> bool:
        return bool(self._present or self._gone)

    def take(self) -> list[int]:
        """Take all that are there."""
        taken = []
        for ids in (self._present, self._gone):
            with contextlib.suppress(IndexError):
                while True:
                    taken.append(ids.popleft())
        return taken

    def put_back(self, message_ids: list[int]) -> None:
        """Have these among the next, since the server does not know of them."""
        self._present.extend(message_ids)
