"""What psycopg makes of PostgreSQL's types goes through kombu's JSON and back."""

from __future__ import annotations

import datetime
import decimal
import ipaddress
import subprocess
import sys
from typing import Any

import pytest
from kombu.serialization import dumps, loads
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

import celery_pgbg.tasks.task  # noqa: F401 - registers the types


@pytest.mark.parametrize(
    "value",
    [
        datetime.timedelta(-1, 5, 7),
        Range(1, 5),
        Range(None, datetime.date(2026, 1, 1), "()"),
        Range(empty=True),
        Multirange([Range(decimal.Decimal("1.5"), 2), Range(5, None)]),
        Multirange(),
        ipaddress.ip_interface("10.0.0.1/8"),
        ipaddress.ip_address("::1"),
        ipaddress.ip_network("10.0.0.0/8"),
        b"\xff\x00",
        [{"nested": (datetime.timedelta(1),)}],
    ],
    ids=repr,
)
def test_a_value_comes_back_as_what_it_was(value: Any) -> None:
    content_type, encoding, text = dumps(value, "json")
    found = loads(text, content_type, encoding, accept=[content_type])
    if isinstance(value, list):
        found[0]["nested"] = tuple(found[0]["nested"])
    assert (found, type(found)) == (value, type(value))


def test_what_the_application_has_taught_kombu_stays() -> None:
    program = (
        "from datetime import timedelta; from kombu.utils.json import dumps, register_type;"
        "register_type(timedelta, 'theirs', str, str); import celery_pgbg.tasks.task; print(dumps(timedelta(1)))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "theirs" in told
