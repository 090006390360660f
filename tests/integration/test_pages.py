"""The how-to pages' tasks, as they stand on their pages, on a real server."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from celery import _state, current_app

from celery_pgbg.database import schema
from celery_pgbg.runners import close_runners
from tests.doc_blocks import PROJECT, python_blocks

#: What the pages call the database of the tasks.
_PLACEHOLDER = "postgresql://user@host/db"


@pytest.fixture
def page(
    new_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[dict[str, Any], Any]]]:
    """Paste a page's Python into one module, in a database with these tables. Gives the module, and a session."""
    before = current_app._get_current_object()
    # Shared tasks of the pages are not for the apps of other tests.
    monkeypatch.setattr(_state, "_on_app_finalizers", set(_state._on_app_finalizers))
    sessions = []

    def paste(name: str, tables: str, app: str = "") -> tuple[dict[str, Any], Any]:
        dsn = new_database()
        session = psycopg.connect(dsn, autocommit=True)
        sessions.append(session)
        schema.install(session, [])
        session.execute(tables)
        text = "\n".join([app, *python_blocks(PROJECT / "docs" / "how-to" / f"{name}.md")])
        assert _PLACEHOLDER in text
        module = types.ModuleType(f"page_{name}")
        # dataclasses look for their module
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(text.replace(_PLACEHOLDER, dsn), f"{name}.md", "exec", dont_inherit=True), module.__dict__)
        return module.__dict__, session

    yield paste
    close_runners(at_once=True)
    for session in sessions:
        session.close()
    before.set_current()


def test_backfill(page: Callable[..., Any]) -> None:
    module, session = page(
        "backfill",
        """
        CREATE TABLE customers (id int PRIMARY KEY, region text);
        INSERT INTO customers SELECT n, 'region ' || n FROM generate_series(0, 9) AS n;
        CREATE TABLE orders (
            id bigint PRIMARY KEY, price int, quantity int, total int, customer int, region text, note text
        );
        INSERT INTO orders SELECT n, n, 2, NULL, n % 10, NULL, '' FROM generate_series(1, 1500) AS n
        """,
    )
    for name in ("fill_totals", "copy_region", "gently"):
        done = module[name]()
        assert (done["rows"], set(done)) == (1500, {"rows", "batches", "seconds"}), name
    assert module["fill_totals"]()["rows"] == 0
    right = "total = price * quantity AND region = 'region ' || customer AND note IS NULL"
    assert session.execute(f"SELECT count(*) FROM orders WHERE {right}").fetchone() == (1500,)
    assert len(module["fill_totals"].in_ranges(4).tasks) == 4


def test_etl(page: Callable[..., Any]) -> None:
    module, session = page(
        "etl",
        """
        CREATE TABLE orders (id bigint PRIMARY KEY, customer text, total numeric, placed_at timestamptz);
        INSERT INTO orders SELECT n, 'c', n + 0.10, '2026-01-31 12:00+00' FROM generate_series(1, 3) AS n;
        CREATE TABLE facts (LIKE orders INCLUDING ALL)
        """,
        f"""
from celery import Celery
app = Celery("etl", broker="memory://", backend="cache+memory://")
app.conf.pgbg_dsn = "{_PLACEHOLDER}"
app.conf.pgbg_databases = {{"shop": app.conf.pgbg_dsn, "warehouse": app.conf.pgbg_dsn}}
""",
    )
    day = date(2026, 1, 31)
    assert module["load"](module["extract"](day)) == 3
    assert module["load"](module["extract"](date(2026, 1, 30))) == 0
    assert session.execute("SELECT sum(total) FROM facts").fetchone() == (Decimal("6.30"),)
    assert [task.name for task in module["move"](day).tasks] == ["page_etl.extract", "page_etl.load"]
    assert len(module["move_month"](day, 3).tasks) == 3


def test_progress(page: Callable[..., Any]) -> None:
    tables = (
        "CREATE TABLE orders (); CREATE TABLE returns (); CREATE TABLE facts (); INSERT INTO returns DEFAULT VALUES"
    )
    module, _ = page("progress", tables)
    assert module["load"]() == 1


def test_maintain(page: Callable[..., Any]) -> None:
    module, session = page(
        "maintain",
        """
        CREATE TABLE sale (sold_on date NOT NULL, product text, amount numeric) PARTITION BY RANGE (sold_on);
        CREATE TABLE sale_total (month date, product text, amount numeric, PRIMARY KEY (month, product))
        """,
    )
    old = module["later"](date.today(), -12)
    name = module["partition"](old).as_string(session)
    session.execute(f"CREATE TABLE {name} PARTITION OF sale FOR VALUES FROM ('{old}') TO ('{module['later'](old, 1)}')")
    session.execute("INSERT INTO sale VALUES (%s, 'tea', 2), (%s, 'tea', 3)", [old, old])
    assert module["vacuum"]("sale") == "VACUUM"
    assert module["reindex"]("sale_total_pkey") == "REINDEX"
    module["add_next_partition"]()
    module["roll_up_a_year_ago"]()
    assert session.execute("SELECT month, amount FROM sale_total").fetchall() == [(old, Decimal(5))]
    following = module["partition"](module["later"](date.today(), 1)).as_string(session)
    assert session.execute("SELECT inhrelid::regclass::text FROM pg_inherits").fetchall() == [(following.strip('"'),)]
    assert all(entry["task"] in module["app"].tasks for entry in module["app"].conf.beat_schedule.values())


def test_write_tasks(page: Callable[..., Any]) -> None:
    module, _ = page(
        "write-tasks",
        """
        CREATE TABLE sales (id int, month date, total numeric);
        INSERT INTO sales VALUES (1, '2026-01-01', 2.50), (2, '2026-02-01', 1);
        CREATE TABLE totals (LIKE sales);
        CREATE TABLE old (created text); INSERT INTO old VALUES ('2025'), ('2027');
        CREATE TABLE orders (id int PRIMARY KEY, customer text, total numeric);
        INSERT INTO orders VALUES (1, 'Ada', 5), (2, 'Ada', 7.5);
        CREATE FUNCTION transfer(int, int, int) RETURNS text LANGUAGE sql
            AS $$ SELECT current_setting('transaction_isolation') $$
        """,
        f"""
from celery import Celery
app = Celery("write", broker="memory://", backend="cache+memory://")
app.conf.pgbg_dsn = "{_PLACEHOLDER}"
""",
    )
    assert module["close_month"](date(2026, 1, 1)) == [{"id": 1, "total": Decimal("2.50")}]
    assert module["archive"]("old", "2026") == 1
    assert module["large_orders"](6) == [{"id": 2, "total": Decimal("7.5")}]
    assert module["totals"]() == [module["Total"]("Ada", Decimal("12.5"))]
    assert module["transfer"](1, 2, 3) == [{"transfer": "serializable"}]
