"""Parts of the help for users' tests that need no server."""

from __future__ import annotations

import pytest
from celery import Celery
from psycopg import conninfo

from celery_pgbg.configuration import settings_of
from celery_pgbg.testing.apps import configured
from celery_pgbg.testing.databases import as_url
from celery_pgbg.testing.waiting import wait_until


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://postgres@127.0.0.1:5432/pgbg",
        "postgresql://me:p%40ss%2F%20w@db.example/shop?sslmode=require&application_name=a%20b",
        "host=/var/run/postgresql dbname=shop user=me",
        "host=::1 port=6000 dbname='my shop' user='you & me' password='a\\'b%'",
        "host=one,two port=1,2 dbname=shop",
        "port=6000",
        "",
    ],
)
def test_a_dsn_written_as_a_url_means_the_same(dsn: str) -> None:
    assert conninfo.conninfo_to_dict(as_url(dsn)) == conninfo.conninfo_to_dict(dsn)
    assert conninfo.conninfo_to_dict(as_url(dsn, dbname="other/one"))["dbname"] == "other/one"


def test_what_an_app_has_configured_is_back_afterwards() -> None:
    app = Celery("shop", set_as_current=False)
    app.conf.pgbg_dsn = "postgresql://live"
    assert settings_of(app).launchers is None
    with configured(app, pgbg_dsn="postgresql://test", pgbg_launchers=5):
        assert (settings_of(app).dsn, settings_of(app).launchers) == ("postgresql://test", 5)
    assert (settings_of(app).dsn, settings_of(app).launchers) == ("postgresql://live", None)
    assert "pgbg_launchers" not in app.conf


def test_a_wait_in_vain_says_for_what() -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.05 s: the moon"):
        wait_until("the moon", lambda: False, timeout=0.05)
    assert wait_until("something", lambda: [1]) == [1]
