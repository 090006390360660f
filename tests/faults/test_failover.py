"""The primary dies, and a standby takes its place."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import psycopg
import pytest
from celery.exceptions import WorkerLostError

from celery_pgbg.database.results import close_stores
from celery_pgbg.devserver import DevServer
from celery_pgbg.execution.runner import Runner
from celery_pgbg.outcomes import Returned
from celery_pgbg.settings import read_settings
from tests.effects import effects, running
from tests.faults.conftest import ALONE
from tests.faults.held import Held
from tests.faults.standby import standby_of
from tests.fix_celery import Shop
from tests.fix_runner import in_background, order
from tests.waiting import eventually

WAIT = 60


@pytest.mark.parametrize("broker", ["redis", "pgbg"])
def test_a_standby_takes_the_place_of_the_primary(
    new_server: Callable[..., DevServer], new_shop: Callable[..., Shop], redis_url: str, broker: str
) -> None:
    server = new_server()
    primary_dsn = server.dsn
    assert primary_dsn is not None
    with standby_of(server) as standby:
        hosts = ",".join(urlsplit(dsn).netloc.partition("@")[2] for dsn in (primary_dsn, standby.dsn))
        both = f"postgresql://postgres@{hosts}/pgbg?target_session_attrs=read-write"
        shop = new_shop(f"{redis_url}/12" if broker == "redis" else f"pgbg+{both}", f"pgbg+{both}", pgbg_dsn=both)
        shop.start_worker(*ALONE)
        with psycopg.connect(primary_dsn, autocommit=True) as database:
            database.execute("CREATE TABLE effects (v text)")
            before = shop.task("insert").delay("effects", "before")
            assert before.get(timeout=WAIT) == 1
            held = Held(shop, "effects", database)
            alone = shop.task("standalone_sleep").delay(300)
            eventually("it runs", lambda: running(database, alone.id))
            standby.wait_replayed(primary_dsn)
            server.crash()
        standby.promote()

        assert held.result.get(timeout=WAIT) == [{"v": "done"}]
        with pytest.raises(WorkerLostError, match="may have partly completed"):
            alone.get(timeout=WAIT)
        assert shop.app.AsyncResult(before.id).get(timeout=WAIT) == 1
        with psycopg.connect(standby.dsn, autocommit=True) as database:
            assert effects(database, "effects") == ["before", "x"]
            sleeping = shop.task("sleep").delay(600)
            eventually("it runs", lambda: running(database, sleeping.id))
            sleeping.revoke(terminate=True)
            eventually("it is stopped", lambda: sleeping.state == "REVOKED")
            assert running(database, sleeping.id) == []
        close_stores()


@pytest.mark.parametrize("options", [{}, {"atomic": False}], ids=["atomic", "alone"])
def test_a_standby_launches_nothing_and_says_so_until_it_is_promoted(
    new_server: Callable[..., DevServer], caplog: pytest.LogCaptureFixture, options: dict[str, object]
) -> None:
    server = new_server()
    assert server.dsn is not None
    with standby_of(server) as standby:
        standby.wait_replayed(server.dsn)
        runner = Runner(standby.dsn, read_settings({"pgbg_dsn": standby.dsn}))
        try:
            _, thread, endings = in_background(runner, order("CREATE TABLE made ()", **options))
            eventually("it is said", lambda: "is a standby" in caplog.text)
            standby.promote()
            thread.join(WAIT)
        finally:
            runner.close()
    assert isinstance(endings[0], Returned)
