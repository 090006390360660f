"""Celery's own beat sends SQL tasks: the schedule of the page ``docs/how-to/maintain.md``, all of it every second."""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg

from celery_pgbg.database import schema
from tests.doc_blocks import PROJECT, python_blocks
from tests.fix_tools import program
from tests.waiting import eventually

#: Makes the page's app run here, and at once instead of at night.
AT_ONCE = """
import json, os
from maintenance import app
app.conf.update(json.loads(os.environ["PGBG_TEST_SETTINGS"]))
for entry in app.conf.beat_schedule.values():
    entry["schedule"] = 1.0
"""

TABLES = """
CREATE TABLE sale (sold_on date, product text, amount numeric) PARTITION BY RANGE (sold_on);
CREATE TABLE {old} PARTITION OF sale FOR VALUES FROM ('{first}') TO ('{after}');
CREATE TABLE sale_total (month date, product text, amount numeric, PRIMARY KEY (month, product));
INSERT INTO sale VALUES ('{first}', 'tea', 2), ('{first}', 'tea', 1), ('{first}', 'rice', 5);
"""


def month(months: int) -> datetime.date:
    """The first day of a month, counted from now."""
    number = datetime.date.today().year * 12 + datetime.date.today().month - 1 + months
    return datetime.date(number // 12, number % 12 + 1, 1)


def test_beat_sends_the_documented_maintenance(tmp_path: Path, redis_url: str, new_database: Callable[[], str]) -> None:
    dsn = new_database()
    old, coming = (f"sale_{month(months):%Y_%m}" for months in (-12, 1))
    (tmp_path / "maintenance.py").write_text("\n".join(python_blocks(PROJECT / "docs" / "how-to" / "maintain.md")))
    (tmp_path / "at_once.py").write_text(AT_ONCE)
    queue = f"pgbg-test-{uuid.uuid4().hex[:12]}"
    settings = {"broker_url": f"{redis_url}/9", "pgbg_dsn": dsn, "task_default_queue": queue}
    environment = {"PGBG_TEST_SETTINGS": json.dumps(settings)}
    celery = ("-m", "celery", "-A", "at_once")
    with ExitStack() as stack:
        session = stack.enter_context(psycopg.connect(dsn, autocommit=True))
        schema.install(session)
        session.execute(TABLES.format(old=old, first=month(-12), after=month(-11)))

        def value(query: str) -> Any:
            row = session.execute(query).fetchone()
            return row and row[0]

        index = value("SELECT 'sale_total_pkey'::regclass::oid")
        for command in (("worker", "-c8", "-n", f"w@{queue}"), ("beat",)):
            log = tmp_path / f"{command[0]}.log"
            stack.enter_context(program(log, *celery, *command, "-l", "INFO", cwd=tmp_path, **environment))
        eventually("the partition is added", lambda: value(f"SELECT to_regclass('{coming}')"))
        eventually("the old one is gone", lambda: value(f"SELECT to_regclass('{old}') IS NULL"))
        totals = session.execute("SELECT * FROM sale_total ORDER BY product").fetchall()
        assert totals == [(month(-12), "rice", 5), (month(-12), "tea", 3)]
        eventually("the index is new", lambda: value(f"SELECT 'sale_total_pkey'::regclass::oid <> {index}"))
        count = f"SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = '{coming}'"
        eventually("it is vacuumed again and again", lambda: (value(count) or 0) > 1)
        outcomes = "SELECT DISTINCT task_name FROM celery_pgbg.execution"
        assert {name for (name,) in session.execute(outcomes)} == {
            f"maintenance.{task}" for task in ("vacuum", "reindex", "add_next_partition", "roll_up_a_year_ago")
        }
