"""What is found in an extension, by names, arguments and results."""

from __future__ import annotations

import pytest

from celery_pgbg.database.capabilities import Capabilities, Function

HANDLE = "pid integer, cookie bigint"

#: The old API, which every 1.x has beside the newer one.
V1 = [
    Function("pg_background_launch", "text, integer", "integer"),
    Function("pg_background_result", "integer", "record"),
    Function("pg_background_detach", "integer", "void"),
]
V2 = [
    Function("pg_background_launch_v2", "text, integer", HANDLE),
    Function("pg_background_cancel_v2", "integer, bigint", "void"),
    Function("pg_background_detach_v2", "integer, bigint", "void"),
    Function("pg_background_list_v2", "", "record"),
    Function("pg_background_result_v2", "integer, bigint", "record"),
]
SINCE_1_9 = [
    Function(
        "pg_background_error_info_v2",
        "integer, bigint",
        "sqlstate text, message text, detail text, hint text, context text",
    )
]


def made_of(*functions: Function) -> Capabilities:
    return Capabilities("s", "1.x", list(functions), server_worker_limit=8, server_version=150000)


@pytest.mark.parametrize("order", [1, -1])
def test_the_old_api_is_never_taken(order: int) -> None:
    found = made_of(*(V1 + V2)[::order])
    for word in ("launch", "cancel", "detach", "result"):
        assert found.name(word) == f"pg_background_{word}_v2"
    assert found.keeps_a_handle
    assert not found.limits_sessions
    assert "label" not in found.list_columns.as_string(None)
    assert found.no_grace.as_string(None) == ""


def test_an_error_is_asked_for_the_fields_that_there_are() -> None:
    found = made_of(*V1, *V2, *SINCE_1_9)
    assert found.error_fields.as_string(None) == (
        'error."sqlstate" AS "sqlstate", error."message" AS "message", error."detail" AS "message_detail", '
        'error."hint" AS "message_hint", error."context" AS "context"'
    )
    assert "label" in found.list_columns.as_string(None)


def test_a_function_of_another_result_is_another_function() -> None:
    assert made_of(*V1).function("launch") is None
    assert made_of(Function("pg_background_get_progress", "integer, bigint", "text")).function("get_progress") is None


def test_the_plain_names_of_2_are_taken_with_all_arguments() -> None:
    found = made_of(
        Function("pg_background_launch", "text, integer", HANDLE),
        Function("pg_background_cancel", "integer, bigint, integer", "void"),
        *V2,
    )
    assert (found.name("launch"), found.keeps_a_handle) == ("pg_background_launch", False)
    assert found.no_grace.as_string(None) == ", 0"
