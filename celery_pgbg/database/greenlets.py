"""Whether waiting in psycopg lets other greenlets run."""

from __future__ import annotations

import sys

from psycopg import waiting

#: What is wrong then, and what helps.
ADVICE = (
    "psycopg does not yield to eventlet by itself: start the process with "
    "PSYCOPG_WAIT_FUNC=wait_select in its environment"
)


def blocks_greenlets() -> bool:
    """Whether a wait in psycopg stops every greenlet of this process.

    psycopg yields to gevent by itself, and to eventlet if configured. ``wait_selector`` would yield too, but
    psycopg 3.2's fails if an answer comes in parts.
    """
    patcher = sys.modules.get("eventlet.patcher")
    return bool(patcher and patcher.is_monkey_patched("select") and waiting.wait is not waiting.wait_select)
