"""Acknowledgements that are not yet sent to the server."""

from __future__ import annotations

import contextlib
from collections import deque


class Acknowledgements:
    """Collects the ids of messages. Any thread may add ids, also during a look for messages."""

    def __init__(self) -> None:
        self._present: deque[int] = deque()
        self._gone: deque[int] = deque()

    def add(self, message_id: int, is_gone: bool) -> None:
        """Add an id; ``is_gone``: it need not hurry, because the task's transaction has deleted the message."""
        (self._gone if is_gone else self._present).append(message_id)

    @property
    def is_urgent(self) -> bool:
        """Whether acknowledgements should be sent soon."""
        return bool(self._present)

    def __bool__(self) -> bool:
        return bool(self._present or self._gone)

    def take(self) -> list[int]:
        """Take all ids."""
        taken = []
        for ids in (self._present, self._gone):
            with contextlib.suppress(IndexError):
                while True:
                    taken.append(ids.popleft())
        return taken

    def put_back(self, message_ids: list[int]) -> None:
        """Put ids back, because the server did not get them."""
        self._present.extend(message_ids)
