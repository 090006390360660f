"""Tasks with atomic=False, called directly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery

from celery_pgbg import SQLTask
from celery_pgbg.runners import close_runners


@pytest.fixture
def alone(dsn: str) -> Iterator[Callable[..., Any]]:
    """Make tasks of a statement."""
    app = Celery("alone", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.update(pgbg_dsn=dsn)

    def make(statement: Any, **options: Any) -> Any:
        def body() -> Any:
            return statement

        return app.task(base=SQLTask, shared=False, name=f"alone.{len(app.tasks)}", atomic=False, **options)(body)

    yield make
    close_runners(at_once=True)
    app.close()
