"""Gives the test app a setting that does not exist, when a Celery worker is told to load it."""

from __future__ import annotations

from tests.apps.parity import app

app.conf.pgbg_dns = "postgresql://h/d"
