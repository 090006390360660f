"""Errors of the development server."""

from __future__ import annotations

from pathlib import Path

#: For Docker Compose: PostgreSQL with pg_background, and a Redis in the profile ``brokers``.
COMPOSE_FILE = Path(__file__).with_name("compose.yaml")

THREE_WAYS = """\
PostgreSQL with the extension pg_background is needed. Three ways to get one:
  1. name a server you have:     export PGBG_DSN=postgresql://user@host/database
  2. install the package:        postgresql-18-pg-background (Debian testing, or PGDG's packages)
     or, as root on Debian, let this command make a private one
  3. run it in Docker:           docker compose --file "$(python -m celery_pgbg.devserver compose)" up --wait
                                 export PGBG_DSN=postgresql://postgres:pgbg@127.0.0.1:5438/pgbg"""


class DevServerError(Exception):
    """The development server is not available or does not start; the message says why and what to do."""
