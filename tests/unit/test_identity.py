"""Nothing decides by a name that a statement can change."""

from __future__ import annotations

import re
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "celery_pgbg"

#: What reads a name: a comparison, a condition, a column of what the server shows.
_READS = re.compile(
    r"application_name\s*(?:=(?![>=])|<>|!=|~|LIKE\b|IN\b|IS\b|OPERATOR)|(?:activity|process|live|a)\.application_name"
    r"|current_setting\('application_name'|WHERE[^;]*\bapplication_name\b",
    re.IGNORECASE,
)

#: Assignments, of our own record or of a parameter.
_WRITES = re.compile(r"application_name = excluded\.application_name")


def sql_texts() -> list[tuple[str, str]]:
    """All our SQL, without its comments."""
    return [
        (path.name, re.sub(r"--.*", "", path.read_text(encoding="utf-8"))) for path in sorted(PACKAGE.rglob("*.sql"))
    ]


def test_no_statement_of_ours_reads_an_application_name() -> None:
    readers = [name for name, text in sql_texts() if _READS.search(_WRITES.sub("", text))]
    assert readers == []


def test_what_reads_one_would_be_found() -> None:
    for text in (
        "SELECT pid FROM pg_stat_activity WHERE application_name = %(name)s",
        "JOIN pg_stat_activity AS activity ON activity.application_name = e.application_name",
        "SELECT pid FROM pg_stat_activity WHERE pid = 1 AND application_name LIKE 'pgbg%'",
    ):
        assert _READS.search(text)


def test_every_look_at_processes_and_locks_is_for_one_database() -> None:
    others = {
        "operate_slots.sql",  # counts what the whole server has
        "walk_record.sql",  # whoever waits for this very process
        "current_task.sql",  # this very process
        "serve_v1.sql",  # this very process
        "report_progress.sql",  # this very process
    }
    by_pid = re.compile(
        r"pg_stat_activity AS activity ON activity\.pid = live\.pid|pg_stat_activity WHERE pid = pg_backend_pid\(\)"
    )
    for name, text in sql_texts():
        looks = re.findall(r"pg_stat_activity|pg_locks|pg_stat_get_activity", by_pid.sub("", text))
        if looks and name not in others:
            assert "current_database()" in text, name
