"""Fixtures come in families, one in each ``fix_*.py``."""

pytest_plugins = [
    "tests.fix_server",
    "tests.fix_celery",
    "tests.fix_pgbouncer",
    "tests.fix_runner",
    "tests.fix_parity",
    "tests.fix_tools",
]
