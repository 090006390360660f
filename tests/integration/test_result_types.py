"""Every kind of result through every serializer, and what is refused, by real Celery workers."""

from __future__ import annotations

import datetime
import decimal
import ipaddress
import random
import string
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from celery import Celery, chord, states
from celery.exceptions import ChordError, SoftTimeLimitExceeded
from kombu.exceptions import EncodeError
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from celery_pgbg.database.results import close_stores
from celery_pgbg.errors import ResultTooLarge
from tests.effects import effects
from tests.fix_celery import Shop
from tests.waiting import eventually

WAIT = 60
SERIALIZERS = ["json", "pickle", "yaml", "msgpack"]

#: A statement whose one row has what JSON does not know by itself, and the row.
TYPES = """
    SELECT interval '1 day 02:03:04.5' AS span, int4range(1, 5) AS range, daterange(NULL, '2026-01-02') AS days,
        'empty'::numrange AS empty, '{[1,2),[5,)}'::int4multirange AS ranges, '10.1.0.0/16'::cidr AS network,
        inet '10.1.2.3/24' AS host, '\\xff00'::bytea AS bytes, 1.50::numeric AS number, 'NaN'::float8 AS nan,
        '2f5e4f6c-1f0b-4b2e-9a55-0f0b4b2e9a55'::uuid AS id, timestamptz '2026-01-02 03:04+05' AS at,
        time '03:04:05.6' AS clock, ARRAY[interval '1 s', NULL] AS spans, jsonb '{"a": [1, null]}' AS document
"""
ROW = {
    "span": datetime.timedelta(days=1, hours=2, minutes=3, seconds=4.5),
    "range": Range(1, 5, "[)"),
    "days": Range(None, datetime.date(2026, 1, 2), "()"),
    "empty": Range(empty=True),
    "ranges": Multirange([Range(1, 2, "[)"), Range(5, None, "[)")]),
    "network": ipaddress.ip_network("10.1.0.0/16"),
    "host": ipaddress.ip_interface("10.1.2.3/24"),
    "bytes": b"\xff\x00",
    "number": decimal.Decimal("1.50"),
    "id": uuid.UUID("2f5e4f6c-1f0b-4b2e-9a55-0f0b4b2e9a55"),
    "at": datetime.datetime(2026, 1, 1, 22, 4, tzinfo=datetime.timezone.utc),
    "clock": datetime.time(3, 4, 5, 600_000),
    "spans": [datetime.timedelta(seconds=1), None],
    "document": {"a": [1, None]},
}


class Refused(Exception):
    """An application's own error."""


class Awkward(Exception):
    """One that needs more than a message."""

    def __init__(self, code: int, *, detail: str = "none") -> None:
        super().__init__(code)
        self.detail = detail


def new_app(url: str, **settings: Any) -> Celery:
    """An app that only stores and reads results."""
    app = Celery("results", broker="memory://", backend=url, set_as_current=False)
    app.conf.update(settings)
    return app


@pytest.fixture(scope="module", autouse=True)
def _no_session_outlives_the_module() -> Iterator[None]:
    yield
    close_stores()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, redis_url: str, dsn: str) -> Iterator[Shop]:
    """An app whose results are where its SQL tasks run."""
    settings = {"pgbg_dsn": dsn, "result_extended": True, "pgbg_max_result_bytes": 100_000}
    made = Shop(tmp_path_factory.mktemp("types"), f"{redis_url}/12", f"pgbg+{dsn}", **settings)
    made.start_worker()
    yield made
    made.close()


@pytest.fixture(scope="module")
def redis_shop(tmp_path_factory: pytest.TempPathFactory, redis_url: str, dsn: str) -> Iterator[Shop]:
    """The same on Celery's Redis backend, which encodes every result as JSON."""
    made = Shop(tmp_path_factory.mktemp("redis"), f"{redis_url}/12", f"{redis_url}/13", pgbg_dsn=dsn)
    made.start_worker()
    yield made
    made.close()


def same(found: dict[str, Any]) -> bool:
    """Whether a row is that of ``TYPES``; NaN is equal to nothing."""
    return (
        str(found.pop("nan")) == "nan"
        and found == ROW
        and {type(v) for v in ROW.values()} == {type(v) for v in found.values()}
    )


# --- values --------------------------------------------------------------------------------------


def test_an_outcome_needs_no_serializer(shop: Shop, dsn: str) -> None:
    result = shop.task("statement").delay(TYPES)
    for serializer in SERIALIZERS:
        # Its arguments, kept for result_extended, are JSON.
        reader = new_app(f"pgbg+{dsn}", result_serializer=serializer, result_accept_content=[serializer, "json"])
        [row] = reader.AsyncResult(result.id).get(timeout=WAIT)
        assert same(row)


def test_a_json_backend_gives_back_every_type_of_postgresql(redis_shop: Shop) -> None:
    [row] = redis_shop.task("statement").delay(TYPES).get(timeout=WAIT)
    assert same(row)


@pytest.mark.parametrize("which", ["ours", "redis"])
def test_a_chords_callback_gets_every_type_in_its_message(
    shop: Shop, redis_shop: Shop, which: str, request: pytest.FixtureRequest
) -> None:
    one = shop if which == "ours" else redis_shop
    header = [one.task("statement").si(TYPES), one.task("statement").si("SELECT interval '1 s' AS span")]
    first, second, *again = chord(header, one.task("double").s()).delay().get(timeout=WAIT)
    assert same(first[0])
    assert second == [{"span": datetime.timedelta(seconds=1)}]
    assert len(again) == 2


def test_an_interval_may_be_an_argument(shop: Shop) -> None:
    asked = shop.task("days").delay(datetime.date(2026, 1, 1), 1)
    assert asked.get(timeout=WAIT)[0]["day"] == datetime.date(2026, 1, 2)
    span = datetime.timedelta(hours=36)
    assert shop.task("text_of").delay(span).get(timeout=WAIT) == "1 day 12:00:00"


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize(
    "error",
    [
        KeyError("missing"),
        Refused("no", 7),
        psycopg.errors.UniqueViolation('duplicate key value violates "u"\nDETAIL:  a \N{SNOWMAN}'),
        ResultTooLarge("shop.large: too large"),
        SoftTimeLimitExceeded("cancelled"),
        ChordError("Dependency x raised KeyError()"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_come_back_as_what_they_were(dsn: str, serializer: str, error: Exception) -> None:
    app = new_app(f"pgbg+{dsn}", result_serializer=serializer, result_accept_content=[serializer])
    result = app.AsyncResult(str(uuid.uuid4()))
    app.backend.mark_as_failure(result.id, error, traceback="Traceback: of the Celery worker")
    with pytest.raises(type(error)) as caught:
        result.get(timeout=WAIT)
    assert str(caught.value) == str(error)
    assert result.traceback == "Traceback: of the Celery worker"
    if isinstance(error, psycopg.Error):
        assert caught.value.sqlstate == "23505"  # type: ignore[attr-defined]


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("error", [Refused(object()), Awkward(7, detail="more")], ids=["unencodable", "awkward"])
def test_an_error_that_cannot_be_rebuilt_still_fails_the_task_by_name(
    dsn: str, serializer: str, error: Exception
) -> None:
    app = new_app(f"pgbg+{dsn}", result_serializer=serializer, result_accept_content=[serializer])
    result = app.AsyncResult(str(uuid.uuid4()))
    app.backend.mark_as_failure(result.id, error)
    with pytest.raises(Exception, match=r"object object|7") as caught:
        result.get(timeout=WAIT)
    assert type(error).__name__ in f"{type(caught.value).__name__} {caught.value!r}"
    assert result.state == states.FAILURE


def test_a_python_tasks_value_that_json_does_not_know_fails_it_and_says_so(shop: Shop) -> None:
    result = shop.task("something").delay()
    with pytest.raises(EncodeError, match="object is not JSON serializable"):
        result.get(timeout=WAIT)


# --- sizes and names ---------------------------------------------------------------------------------


def test_rows_above_the_limit_are_refused_and_nothing_is_committed(shop: Shop, table: str, database: Any) -> None:
    text = f"INSERT INTO {table} VALUES ('x'); SELECT repeat('x', 200000) AS large"
    with pytest.raises(ResultTooLarge, match=r"larger than pgbg_max_result_bytes \(100000 bytes\)"):
        shop.task("statement").delay(text).get(timeout=WAIT)
    assert effects(database, table) == []


def test_the_limit_is_for_rows_and_not_for_what_python_tasks_return(shop: Shop) -> None:
    assert len(shop.task("double").delay("x" * 5_000_000).get(timeout=WAIT)) == 10_000_000


def test_a_result_of_many_rows_is_read_whole(redis_shop: Shop) -> None:
    rows = redis_shop.task("days").delay(datetime.date(2026, 1, 1), 20_000).get(timeout=WAIT)
    assert len(rows) == 20_000


@pytest.mark.parametrize(
    "task_id",
    ["order 42/\N{SNOWMAN} %s 'q' \\", "".join(random.Random(1).choices(string.ascii_letters, k=2_000))],
    ids=["any text", "long"],
)
def test_a_sql_task_may_have_any_id(shop: Shop, table: str, database: Any, task_id: str) -> None:
    result = shop.task("insert").apply_async((table, "x"), task_id=task_id)
    assert result.get(timeout=WAIT) == 1
    eventually("stored", lambda: shop.app.AsyncResult(task_id).name == "shop.insert")
    result.forget()
    assert shop.app.AsyncResult(task_id).state == states.PENDING


def test_an_id_that_postgresql_cannot_keep_is_kept_in_another_form(shop: Shop, table: str, database: Any) -> None:
    result = shop.task("insert").apply_async((table, "x"), task_id="a\0b")
    assert result.get(timeout=WAIT) == 1
    assert shop.task("add").delay(1).get(timeout=WAIT) == [{"total": 3}]
    assert effects(database, table) == ["x"]
