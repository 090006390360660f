# A Celery worker for pytest-celery's clusters; the app and the tasks come in a volume at /app.
FROM python:3.13-slim
ARG CELERY_PGBG_PKG="celery-pgbg[binary,redis]"
ARG PYTEST_CELERY_PKG="pytest-celery"
RUN pip install --no-cache-dir "${CELERY_PGBG_PKG}" "${PYTEST_CELERY_PKG}"
RUN useradd --create-home celery
USER celery
WORKDIR /app
CMD ["celery", "-A", "app", "worker"]
