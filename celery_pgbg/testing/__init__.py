"""For the tests of projects that use celery-pgbg; the pytest fixtures are in ``celery_pgbg.pytest_plugin``."""

from celery_pgbg.testing.inline import inline

__all__ = ["inline"]
