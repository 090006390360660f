"""The names, frames and orders inside Celery that we rely on; each fails in seconds where a new Celery changes it."""

from __future__ import annotations

import inspect
import threading
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, patch

import pytest
from billiard import get_context
from billiard.pool import ResultHandler, Worker
from celery import Celery, signals, states
from celery.app import utils
from celery.app.task import Context
from celery.apps import worker
from celery.events import EventDispatcher
from celery.result import AsyncResult
from celery.worker import components, loops, state
from celery.worker.control import Panel
from celery.worker.request import Request, create_request_cls

from celery_pgbg.backend.task_metas import EarlyMeta
from celery_pgbg.celery_patches import shutdowns
from celery_pgbg.celery_patches.requests import nodename_of, request_of
from tests.effects import CELERY_VERSION

has_handlers = pytest.mark.skipif(CELERY_VERSION < (5, 5), reason="Celery 5.4 stops nothing in the signal's handler")


def a_request(app: Celery, **headers: Any) -> Any:
    """A request of a task of this app."""
    message = app.amqp.as_task_v2("an id", "contract.task", (), {})
    envelope = SimpleNamespace(
        headers={**message.headers, **headers}, body=message.body, payload=message.body, properties={},
        delivery_info={}, content_type="application/json", content_encoding="utf-8",
    )  # fmt: skip
    return Request(envelope, app=app, decoded=True, body=message.body, headers=envelope.headers)


@pytest.fixture
def app() -> Celery:
    made = Celery("contract", broker="memory://", set_as_current=False)

    @made.task(shared=False, name="contract.task")
    def task() -> None:
        pass

    made.finalize()
    return made


# --- shutdowns ---------------------------------------------------------------------------------------


@has_handlers
def test_a_cold_shutdown_stops_from_within_its_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "should_terminate", None)
    seen: list[bool] = []
    controller: Any = MagicMock()
    controller.consumer.pool.stop = lambda: seen.append(shutdowns.is_in_handler_of_cold_shutdown())
    with patch.object(worker, "install_worker_term_hard_handler"):
        worker.on_cold_shutdown(controller)
    assert seen == [True]
    assert not shutdowns.is_in_handler_of_cold_shutdown()


@has_handlers
def test_a_hard_shutdown_raises_from_its_handler() -> None:
    assert not shutdowns.is_hard_shutdown()
    try:
        worker.on_hard_shutdown(None)
    except SystemExit:
        assert shutdowns.is_hard_shutdown()
    assert not shutdowns.is_hard_shutdown()


def test_the_state_says_which_shutdown_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hasattr(state, "should_stop")
    monkeypatch.setattr(state, "should_terminate", None)
    assert not shutdowns.is_cold_shutdown()
    monkeypatch.setattr(state, "should_terminate", 1)
    assert shutdowns.is_cold_shutdown()
    assert isinstance(state.revoked_stamps, dict)
    assert "an id" not in state.revoked


def test_the_consumer_is_the_sender_of_its_signal() -> None:
    assert "worker_ready.send(sender=consumer)" in inspect.getsource(worker.Worker.on_consumer_ready)
    assert {"worker_ready"} <= set(signals.__all__)


# --- requests ------------------------------------------------------------------------------------------


def test_a_pool_is_given_the_request_and_its_fields(app: Celery) -> None:
    class Pool:
        def apply_async(self, target: Any, **options: Any) -> None:
            self.given = options

    request, pool = a_request(app), Pool()
    request.execute_using_pool(pool)
    callbacks = {name: pool.given[name] for name in ("callback", "error_callback", "accept_callback")}
    assert request_of(callbacks) is request
    assert pool.given["args"][1:3] == ("an id", request.request_dict)
    assert pool.given["correlation_id"] == "an id"
    made = create_request_cls(Request, app.tasks["contract.task"], pool, "host", None, app=app)
    assert issubclass(made, Request)


def test_a_pool_is_given_the_nodename() -> None:
    assert "initargs=(w.app, w.hostname)" in inspect.getsource(components)
    assert nodename_of({"initargs": (None, "name@host")}) == "name@host"


@pytest.mark.parametrize(
    "name",
    ["_announce_revoked", "on_accepted", "on_failure", "on_timeout", "terminate", "cancel", "revoked", "reject",
     "_already_revoked", "_already_cancelled", "_apply_result", "time_limits", "send_event", "info"],
)  # fmt: skip
def test_requests_have_what_ours_override_or_read(name: str) -> None:
    assert hasattr(Request, name)


def test_fields_of_a_request_are_its_own(app: Celery) -> None:
    request = a_request(app, timelimit=[1, 2])
    assert request.time_limits == [1, 2]
    request._request_dict["retries"] = 3
    assert request.request_dict["retries"] == 3


def test_headers_of_a_users_own_are_kept_by_retries(app: Celery) -> None:
    request = a_request(app, pgbg={"role": "reader"})
    context = Context(request.request_dict)
    assert vars(context)["pgbg"] == {"role": "reader"}
    assert context.as_execution_options()["headers"]["pgbg"] == {"role": "reader"}


# --- the rest ------------------------------------------------------------------------------------------


def test_celery_looks_for_children_in_a_meta_that_it_keeps(app: Celery) -> None:
    reads: list[int] = []

    def read() -> dict[str, Any]:
        reads.append(1)
        return {"children": ["read"]}

    result = AsyncResult("an id", app=app)
    meta = EarlyMeta({"status": states.SUCCESS, "result": 1, "task_id": "an id"}, read)
    result._set_cache(meta)
    assert reads == []
    assert result.children == ["read"]
    assert result.children == ["read"]
    assert reads == [1]


def test_remote_control_and_shown_settings_have_their_names() -> None:
    assert {"revoke", "terminate"} <= set(Panel.data)
    assert callable(utils.filter_hidden_settings)
    assert hasattr(utils, "sanitize_url") or hasattr(utils, "maybe_sanitize_url")


def test_a_dispatcher_gathers_events_of_tasks(app: Celery) -> None:
    parameters = inspect.signature(EventDispatcher).parameters
    assert {"buffer_group", "on_send_buffered"} <= set(parameters)
    assert hasattr(app.events, "dispatcher_cls")


def test_the_pool_meets_the_loop_before_messages_come() -> None:
    source = inspect.getsource(loops.asynloop)
    assert source.index("register_with_event_loop(hub)") < source.index("consumer.consume()")


# --- prefork -----------------------------------------------------------------------------------------------------


def test_a_child_of_prefork_needs_no_lock_to_see_that_its_results_were_read() -> None:
    worker = Worker.__new__(Worker)
    worker.on_ready_counter = get_context().Value("i", 3)
    seen: list[bool] = []
    child = threading.Thread(target=lambda: seen.append(worker._ensure_messages_consumed(completed=3)), daemon=True)
    with worker.on_ready_counter.get_lock():
        child.start()
        child.join(10)
        assert seen == [True]


def test_its_parent_counts_with_that_lock() -> None:
    assert "with on_ready_counter.get_lock():" in inspect.getsource(ResultHandler)
