"""Fixtures come in families, one in each ``fix_*.py``."""

import signal

import pytest
from celery.signals import setup_logging

# A shell that starts something in the background lets it ignore SIGINT, and so all that it starts; tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A Celery worker in a test's own process would take the log away from all tests after it: it finds it set up.
setup_logging.connect(lambda **_: None, weak=False)

pytest_plugins = [
    "tests.fix_server",
    "tests.fix_celery",
    "tests.fix_commands",
    "tests.fix_pgbouncer",
    "tests.fix_runner",
    "tests.fix_parity",
    "tests.fix_tools",
    "tests.skips",
]

#: Folders whose tests wait long begin first, so that processes that run tests end together.
_LONG = ("newcomer", "soak", "faults", "acceptance", "broker")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the folders; the order within a folder stays."""

    def rank(item: pytest.Item) -> int:
        folder = item.nodeid.split("/")[1]
        return _LONG.index(folder) if folder in _LONG else len(_LONG)

    items.sort(key=rank)
