"""The part of a sweep that reports progress to watches."""

from __future__ import annotations

from celery_pgbg.execution.launching.launcher import Launcher
from celery_pgbg.execution.records.progress import Progress
from celery_pgbg.execution.waiting.watches import Entry


def sweep_progress(asked: Launcher, entries: list[Entry]) -> None:
    """Report the progress of statements to their watches, whichever session launched them.

    Args:
        asked: a launcher whose session answers.
        entries: the entries of running statements.
    """
    watches = {entry.watch.attempt: entry for entry in entries}
    if not watches:
        return
    found = asked.read_progress(list(watches))
    found = {attempt: _with_message(watches[attempt], one) for attempt, one in found.items()}
    fresh = {attempt: one for attempt, one in found.items() if watches[attempt].watch.show(*one.shown)}
    published = {attempt: one for attempt, one in fresh.items() if one.source != "record"}
    if published:
        asked.publish_progress(published)


def _with_message(entry: Entry, progress: Progress) -> Progress:
    """Add the statement's message, which only the launching session can read."""
    if progress.source != "statement" or (held := entry.held) is None:
        return progress
    owner, handle = held
    return progress.with_message_of(owner.progress([handle]).get(handle))
