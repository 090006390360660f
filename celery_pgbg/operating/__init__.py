"""The commands `celery pgbg ...`."""
