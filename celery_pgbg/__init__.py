"""SQL tasks for Celery that run in PostgreSQL background workers."""
