"""Tasks for a Celery worker in a container."""

from celery_pgbg import sql_task


@sql_task(returns="value", name="docker.worker_kind")
def worker_kind() -> str:
    return "SELECT backend_type FROM pg_stat_activity WHERE pid = pg_backend_pid()"
