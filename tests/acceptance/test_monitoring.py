"""Flower in a browser, ``celery events`` and its camera, beside a real Celery worker of ours."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from celery_pgbg.devserver.ports import free_port
from tests.effects import running
from tests.fix_celery import Shop
from tests.fix_parity import ALONE, Events
from tests.fix_tools import program
from tests.waiting import eventually

WAIT = 60


class Flower:
    """A running Flower, seen through its API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str) -> Any:
        """Ask the API; None where it does not answer, or knows no such thing."""
        try:
            with urlopen(self.url + path, timeout=20) as answer:
                return json.load(answer)
        except URLError:
            return None

    def task(self, task_id: str) -> dict[str, Any]:
        """What it knows of a task."""
        return self.get(f"/api/task/info/{task_id}") or {}

    def wait_state(self, task_id: str, state: str) -> dict[str, Any]:
        """Wait until it shows a task in a state."""
        return eventually(f"Flower shows {state}", lambda: (t := self.task(task_id)).get("state") == state and t)


@pytest.fixture(scope="module")
def tools(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str, dsn: str
) -> Iterator[tuple[Shop, Flower, Callable[[], str], Callable[[], Any]]]:
    """A Celery worker that sends events; Flower, ``celery events --dump`` and a camera that see them."""
    folder = tmp_path_factory.mktemp("tools")
    # A password that libpq does not use here, and that nobody may see.
    shop = Shop(folder, f"{redis_url}/9", f"{redis_url}/10", pgbg_dsn=f"{dsn}?sslpassword=very-secret")
    worker = shop.launch_worker("-E")
    film = folder / "film.json"
    environment = {
        "PGBG_TEST_APP": json.dumps(shop._arguments),
        "PGBG_TEST_FILM": str(film),
        "FLOWER_UNAUTHENTICATED_API": "true",
    }
    port = free_port()
    flower = Flower(f"http://127.0.0.1:{port}")
    celery = ("-m", "celery", "-A", "tests.apps.shop")
    events = (*celery, "events", "--camera", "tests.apps.camera.Camera", "--freq", "0.2")

    def seen() -> Any:
        return json.loads(film.read_text()) if film.exists() else {"alive": [], "tasks": {}}

    with ExitStack() as stack:
        stack.callback(shop.close)
        arguments = ("--address=127.0.0.1", f"--port={port}")
        stack.enter_context(program(folder / "flower.log", *celery, "flower", *arguments, **environment))
        dump = stack.enter_context(program(folder / "dump.log", *celery, "events", "--dump", **environment))
        stack.enter_context(program(folder / "camera.log", *events, **environment))
        worker.wait_ready()
        # Heartbeats have reached all three, so events of tasks will.
        eventually("Flower hears", lambda: (flower.get("/api/workers?status=true") or {}).get(worker.nodename))
        eventually("the dump hears", lambda: worker.nodename in dump())
        eventually("the camera hears", lambda: worker.nodename in seen()["alive"])
        yield shop, flower, dump, seen


def test_flower_shows_our_tasks_and_its_button_stops_one(tools: Any, browser: Any, database: Any) -> None:
    from selenium.common.exceptions import TimeoutException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    shop, flower, _, _ = tools
    nodename = shop.workers[0].nodename
    done, failed = shop.task("sleep").delay(0.3), shop.task("divide").delay(1, 0)
    result = shop.task("sleep").delay(60)
    pid = shop.wait_active(result)["worker_pid"]

    success = flower.wait_state(done.id, "SUCCESS")
    assert (success["name"], success["args"], success["worker"]) == ("shop.sleep", "(0.3,)", nodename)
    assert success["runtime"] >= 0.3
    failure = flower.wait_state(failed.id, "FAILURE")
    assert failure["exception"] == "DivisionByZero('division by zero')"
    assert "psycopg.errors.DivisionByZero" in failure["traceback"]
    flower.wait_state(result.id, "STARTED")

    def active() -> list[Any]:
        # An answer that came late is missing.
        answer = flower.get(f"/api/workers?refresh=1&workername={nodename}") or {}
        return [(task["id"], task["worker_pid"]) for task in answer.get(nodename, {}).get("active", [])]

    eventually("Flower lists it with its PID", lambda: active() == [(result.id, pid)])
    assert running(database, result.id) == [pid]

    def see(path: str, selector: str, *words: str) -> None:
        """Load a page until an element has these words; tables are filled after the page has come."""

        def shown() -> bool:
            browser.get(flower.url + path)
            element = browser.find_element(By.CSS_SELECTOR, selector)
            with contextlib.suppress(TimeoutException):
                return bool(WebDriverWait(browser, 5).until(lambda _: missing(element) == []))
            return False

        def missing(element: Any) -> list[str]:
            return [word for word in words if word not in element.get_attribute("textContent")]

        eventually(f"{path} shows {words}", shown)

    see("/tasks", "#tasks-table", done.id, "shop.divide", "SUCCESS", "FAILURE", "STARTED")
    see(f"/worker/{nodename}", "#tab-tasks", result.id, str(pid), "(60,)")
    see(f"/worker/{nodename}", "#tab-config", "pgbg_dsn", "sslpassword=********")
    assert "very-secret" not in browser.page_source
    see(f"/task/{result.id}", "#task-terminate", "Terminate")
    browser.find_element(By.ID, "task-terminate").click()
    flower.wait_state(result.id, "REVOKED")
    assert running(database, result.id) == []
    eventually("REVOKED", lambda: result.state == "REVOKED")
    see(f"/task/{result.id}", ".badge", "REVOKED")


def test_the_event_stream_tells_states_lengths_and_pids(tools: Any) -> None:
    shop, _, dump, seen = tools
    done, failed = shop.task("sleep").delay(0.3), shop.task("fail").delay()
    pids = shop.task("worker_pid").delay()
    revoked = shop.task("sleep").delay(60)
    pid = shop.wait_active(revoked)["worker_pid"]
    revoked.revoke(terminate=True)

    def film(task_id: str, state: str) -> dict[str, Any]:
        return eventually(
            f"the camera sees {state}", lambda: (t := seen()["tasks"].get(task_id, {})).get("state") == state and t
        )

    success = film(done.id, "SUCCESS")
    assert (success["name"], success["args"]) == ("shop.sleep", "(0.3,)")
    assert 0.3 <= success["runtime"] < WAIT
    assert film(failed.id, "FAILURE")["exception"].startswith("RaiseException('failed on purpose")
    assert film(revoked.id, "REVOKED")["worker_pid"] == pid
    assert film(pids.id, "SUCCESS")["worker_pid"] == pids.get(timeout=WAIT)

    def lines(task_id: str) -> list[str]:
        return [line for line in dump().splitlines() if task_id in line]

    eventually("the end is dumped", lambda: any("revoked" in line for line in lines(revoked.id)))
    received, started, ended = lines(revoked.id)
    assert "task received" in received
    assert f"worker_pid={pid}" in started
    assert "terminated=True" in ended
    eventually("the failure is dumped", lambda: any("task failed" in line for line in lines(failed.id)))


def test_no_event_of_many_quick_tasks_is_lost(new_shop: Callable[..., Shop], redis_url: str, dsn: str) -> None:
    shop = new_shop(f"{redis_url}/9", f"{redis_url}/10", pgbg_dsn=dsn)
    events = Events(shop)
    events.start()
    shop.start_worker("-E", *ALONE)
    results = [shop.task("double").delay(n) for n in range(200)]
    assert [result.get(timeout=WAIT) for result in results] == [2 * n for n in range(200)]
    told = {result.id: ["task-received", "task-started", "task-succeeded"] for result in results}

    def missing() -> list[str]:
        return [kind for task_id, kinds in told.items() for kind in kinds if kind not in events.types(task_id)]

    with contextlib.suppress(AssertionError):
        eventually("all have come", lambda: not missing())
    # So many of each kind, rather than all their ids.
    assert Counter(missing()) == {}
    assert {task_id: events.types(task_id) for task_id in told} == told
    events.stop()
