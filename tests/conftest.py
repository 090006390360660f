"""Fixtures come in families, one in each ``fix_*.py``."""

<<<<<<< HEAD
pytest_plugins = ["tests.fix_server", "tests.fix_celery", "tests.fix_runner"]
=======
pytest_plugins = ["tests.fix_server", "tests.fix_celery", "tests.fix_pgbouncer"]
>>>>>>> 3721a79 (PgBouncer: recognised and told apart by mode; transaction mode is refused for SQL tasks with the reason)
