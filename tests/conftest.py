"""Fixtures come in families, one in each ``fix_*.py``."""

import signal

from celery.signals import setup_logging

# A shell that starts something in the background lets it ignore SIGINT, and so all that it starts; tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A Celery worker in a test's own process would take the log away from all tests after it: it finds it set up.
setup_logging.connect(lambda **_: None, weak=False)

pytest_plugins = [
    "tests.fix_server",
    "tests.fix_celery",
    "tests.fix_pgbouncer",
    "tests.fix_runner",
    "tests.fix_parity",
    "tests.fix_tools",
    "tests.skips",
]
