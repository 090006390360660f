"""The broker is known in whatever order Celery, kombu and our package are imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

_USE = "print(Celery('x', broker='pgbg://').connection().get_transport_cls().__module__)"


@pytest.mark.parametrize(
    "imports",
    [
        "import celery_pgbg; from celery import Celery",
        "from celery import Celery; import celery_pgbg",
        "import kombu.transport, celery_pgbg; from celery import Celery",
        "import celery, celery_pgbg; from celery import Celery",
        "import kombu, celery_pgbg, kombu.connection; from celery import Celery",
        "from celery_pgbg import SQLTask; from celery import Celery",
    ],
)
def test_the_broker_is_known_in_any_order_of_imports(imports: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"{imports}; {_USE}"], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "celery_pgbg.broker.transport", done.stderr
