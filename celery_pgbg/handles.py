"""Identities: the handle of a background worker, and the attempt of a task that it runs."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from celery_pgbg.texts import storable

#: PostgreSQL cuts ``application_name`` after NAMEDATALEN - 1 bytes.
APPLICATION_NAME_BYTES = 63

#: Ids that a name shows unchanged, because they do not contain the separators of its parts.
_PLAIN_ID = re.compile(r"[!-\"$-}]{1,40}")


@dataclass(frozen=True, slots=True)
class Handle:
    """One background worker, as pg_background names it.

    Valid only in the session that launched it. A bare PID is no identity, because PIDs are reused.

    Attributes:
        pid: PostgreSQL's process ID of the background worker.
        cookie: the random number pg_background gave this launch.
    """

    pid: int
    cookie: int

    def __str__(self) -> str:
        return f"({self.pid}, {self.cookie})"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of one task: the unit that runs at most once.

    Attributes:
        task_id: Celery's task id.
        number: Celery's ``request.retries``: 0 for the first attempt, one more with each ``retry``.
    """

    task_id: str
    number: int = 0

    @classmethod
    def of_message(cls, task_id: str, retries: int | None) -> Attempt:
        """Name the attempt of a Celery message, with an id that PostgreSQL can store."""
        return cls(storable(task_id), retries or 0)

    def __str__(self) -> str:
        return f"{self.task_id} (attempt {self.number})" if self.number else self.task_id


def application_name(task_name: str, attempt: Attempt) -> str:
    """Name an attempt for ``pg_stat_activity``, within PostgreSQL's 63 bytes. For people: statements can change it.

    The whole task id comes first. An id that is too long or ambiguous is replaced by ``~`` and its digest. So
    different attempts have different names. The task's name gets the rest.
    """
    task_id = attempt.task_id
    if not _PLAIN_ID.fullmatch(task_id):
        task_id = "~" + hashlib.blake2b(task_id.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    suffix = f"#{attempt.number}" if attempt.number else ""
    prefix = f"pgbg {task_id}{suffix} "
    room = APPLICATION_NAME_BYTES - len(prefix)
    name = task_name if len(task_name) <= room else task_name.rpartition(".")[2]
    return prefix + "".join(c if " " < c < "\x7f" else "?" for c in name)[:room]
