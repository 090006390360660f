"""A real PostgreSQL with the real pg_background, for development, tests and the demo."""

from celery_pgbg.devserver.errors import DevServerError
from celery_pgbg.devserver.server import DevServer

__all__ = ["DevServer", "DevServerError"]
