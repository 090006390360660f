"""``pgbg pause`` and ``resume`` of a task that a real Celery worker runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from click.testing import CliRunner

from celery_pgbg.database import schema
from celery_pgbg.operating.cli import pgbg as commands
from celery_pgbg.testing.databases import as_url as url_of
from tests.faults.conftest import ALONE
from tests.faults.test_walks import EACH_ONCE, Database, make_table, noted
from tests.fix_celery import Shop
from tests.waiting import eventually


@pytest.fixture
def walking_shop(tmp_path: Path, new_database: Callable[[], str], redis_url: str) -> Iterator[Shop]:
    """The app, in a database with the table that its task ``walk`` walks."""
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as session:
        schema.install(session)
    shop = Shop(tmp_path, f"{redis_url}/9", f"pgbg+{url_of(dsn)}", pgbg_dsn=dsn)
    shop.start_worker(*ALONE)
    yield shop
    shop.close()


def pgbg(shop: Shop, *arguments: str) -> str:
    """Run a command in this process; what it prints."""
    done = CliRunner().invoke(commands, arguments, obj=SimpleNamespace(app=shop.app))
    assert done.exit_code == 0, done.output
    return done.output


def batches(session: Database) -> int:
    row = session.execute("SELECT batches FROM celery_pgbg.walk").fetchone()
    return row[0] if row else 0


def test_it_is_paused_revoked_and_resumed(walking_shop: Shop) -> None:
    shop = walking_shop
    with make_table(shop.app.conf.pgbg_dsn) as session:
        result = shop.task("walk").delay()
        eventually("it has begun", lambda: batches(session) > 1)
        session.execute("INSERT INTO walked_hold DEFAULT VALUES")
        assert "paused" in pgbg(shop, "pause", result.id)
        eventually("it waits", lambda: "paused" in pgbg(shop, "ps"))
        assert "WHERE {batch}" in pgbg(shop, "ps", "--wide")
        assert "continues" in pgbg(shop, "resume", result.id[:18])
        eventually("it goes on", lambda: "paused" not in pgbg(shop, "ps"))

        result.revoke(terminate=True)
        eventually("it is revoked", lambda: result.state == "REVOKED")
        assert 0 < noted(session).total() < 600
        session.execute("TRUNCATE walked_hold")

        words = pgbg(shop, "resume", result.id).split()
        again = shop.app.AsyncResult(words[words.index("task") + 1])
        assert again.get(timeout=60)["rows"] == 600
        assert noted(session) == EACH_ONCE
        assert "nothing left to do" in pgbg_error(shop, "resume", again.id)


def test_a_batched_task_that_is_stopped_by_force_says_what_stays(walking_shop: Shop) -> None:
    shop = walking_shop
    with make_table(shop.app.conf.pgbg_dsn) as session:
        result = shop.task("walk").delay()
        eventually("it has begun", lambda: batches(session) > 1)
        session.execute("INSERT INTO walked_hold DEFAULT VALUES")
        said = pgbg(shop, "cancel", "--force", result.id)
        assert "the earlier batches stay" in said
        assert f"`pgbg resume {result.id}`" in said
        with pytest.raises(psycopg.errors.QueryCanceled):
            result.get(timeout=60)
        assert noted(session).total() > 0


def pgbg_error(shop: Shop, *arguments: str) -> str:
    """Run a command that fails; what it says."""
    with pytest.raises(AssertionError) as caught:
        pgbg(shop, *arguments)
    return str(caught.value)
