# PostgreSQL with pg_background, for compose.yaml and for pytest-celery's clusters.
FROM postgres:18
RUN apt-get update \
    && apt-get install --yes --no-install-recommends postgresql-18-pg-background \
    && rm -rf /var/lib/apt/lists/*
CMD ["postgres", "-c", "max_worker_processes=100", "-c", "max_connections=300", "-c", "shared_preload_libraries=plpgsql"]
