"""Rows, dicts and lists as arguments: read back by the server as what they were, or bound as psycopg binds them."""

from __future__ import annotations

import dataclasses
import datetime
import ipaddress
import json
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu.utils import json as kombus_json
from psycopg import sql
from psycopg.adapt import Dumper
from psycopg.types.json import Json, Jsonb, set_json_dumps
from psycopg.types.range import Range

from celery_pgbg.celery_patches import json_types
from celery_pgbg.database.binding import bind
from celery_pgbg.errors import BindingError

json_types.register()

Connection = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def session(dsn: str) -> Iterator[Connection]:
    with psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC") as session:
        session.execute("""
            CREATE TEMP TABLE kinds (
                i bigint, n numeric, f float8, t text, b boolean, d date, ts timestamp, tz timestamptz, tm time,
                iv interval, u uuid, r int4range, dr daterange, ip inet, by bytea, j jsonb, a int[]
            )
        """)
        yield session


def value_of(session: Connection, query: Any, **params: Any) -> Any:
    row = session.execute(bind(session, query, params)).fetchone()
    assert row is not None
    return row[0]


# PostgreSQL knows no NUL, and a message in UTF-8 no half characters.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
bigints = st.integers(-(2**63), 2**63 - 1)
# A float of JSON beyond these is read as an int.
floats = st.floats(-1e9, 1e9)
scalars = st.none() | st.booleans() | texts | bigints | floats
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "i": bigints,
    "n": st.decimals(allow_nan=False, min_value=-(10**20), max_value=10**20) | st.just(Decimal("NaN")),
    "f": st.floats(allow_nan=False),
    "t": texts,
    "b": st.booleans(),
    "d": st.dates(),
    "ts": st.datetimes(min_value=datetime.datetime(1, 1, 2), max_value=datetime.datetime(9999, 12, 30)),
    "tz": st.datetimes(
        min_value=datetime.datetime(2, 1, 2), max_value=datetime.datetime(9998, 12, 30),
        timezones=st.just(datetime.timezone.utc),
    ),
    "tm": st.times(),
    "iv": st.timedeltas(datetime.timedelta(-10000), datetime.timedelta(10000)),
    "u": st.uuids(),
    "r": st.builds(lambda low, more: Range(low, low + more), st.integers(0, 999), st.integers(1, 999)),
    "dr": st.just(Range(datetime.date(2026, 1, 1), None)),
    "ip": st.ip_addresses(v=4).map(lambda ip: ipaddress.ip_interface(f"{ip}/24")),
    "by": st.binary(),
    "j": st.dictionaries(texts, scalars | st.lists(scalars, max_size=3), min_size=1, max_size=3),
    "a": st.lists(st.integers(-100, 100), min_size=1),
}  # fmt: skip
rows_of_all_kinds = st.lists(
    st.fixed_dictionaries({name: st.none() | kind for name, kind in KINDS.items() if name != "a"}), max_size=3
)


@settings(max_examples=60, deadline=None)
@given(rows_of_all_kinds)
def test_rows_are_read_by_the_server_as_what_they_were(session: Connection, rows: list[dict[str, Any]]) -> None:
    """Through a message of Celery's JSON first, as from one task to the next."""
    arrived = kombus_json.loads(kombus_json.dumps(rows))
    query = "SELECT * FROM jsonb_populate_recordset(NULL::kinds, %(rows)s)"
    cursor = session.cursor(row_factory=psycopg.rows.dict_row)
    got = cursor.execute(bind(session, query, {"rows": arrived})).fetchall()
    assert len(got) == len(rows)
    for was, now in zip(rows, got, strict=True):
        for name, value in was.items():
            assert _same(now[name], value), (name, value, now[name])


def _same(now: Any, was: Any) -> bool:
    if isinstance(was, Decimal):
        return str(now) == str(was) or now == was
    return bool(now == was)


def test_a_decimal_keeps_its_digits_as_a_number(session: Connection) -> None:
    value = {
        "d": Decimal("1.50"),
        "e": Decimal("12345678901234567890.123456789"),
        "n": Decimal("NaN"),
        "f": float("inf"),
    }
    assert value_of(session, "SELECT %(v)s::text", v=value) == (
        '{"d": 1.50, "e": 12345678901234567890.123456789, "f": "inf", "n": "NaN"}'
    )


@pytest.mark.parametrize("value", [{"a": 1}, {}, [{"a": None}, {"b": "%s '\\ é"}], [[{"a": 1}], []], [None, {"a": 1}]])
def test_dicts_and_lists_of_them_are_jsonb(session: Connection, value: Any) -> None:
    assert value_of(session, "SELECT %(v)s", v=value) == value
    assert value_of(session, "SELECT pg_typeof(%(v)s)::text", v=value) == "jsonb"
    assert value_of(session, sql.SQL("SELECT %(v)s AS {}").format(sql.Identifier("v")), v=value) == value
    assert bind(session, "SELECT %s", (value,)) == bind(session, "SELECT %s", (Jsonb(value),))


def test_objects_with_fields_are_jsonb(session: Connection) -> None:
    @dataclasses.dataclass
    class Line:
        n: Decimal
        parts: list[Any] = dataclasses.field(default_factory=list)

    class Model(pydantic.BaseModel):
        d: datetime.date

    lines = [Line(Decimal("1.50"), [Line(Decimal(2))]), Model(d=datetime.date(2026, 1, 2))]
    assert value_of(session, "SELECT %(v)s::text", v=lines) == (
        '[{"n": 1.50, "parts": [{"n": 2, "parts": []}]}, {"d": "2026-01-02"}]'
    )


@pytest.mark.parametrize(
    "value", [[1, 2], ["a", "{b}"], [], [[1], [2]], [None], [Decimal(1)], [True], (1, 2), "x", None, 5, [[]]]
)
def test_everything_else_is_bound_as_psycopg_binds_it(session: Connection, value: Any) -> None:
    for query in ("SELECT %s", "SELECT 1 = ANY(%s)", "SELECT jsonb_build_object('a', %s)", "SELECT to_jsonb(%s)"):
        assert bind(session, query, (value,)) == psycopg.ClientCursor(session).mogrify(query, (value,))


IN_THE_PLACE_OF_JSON = [
    "SELECT count(*) FROM jsonb_to_recordset(%(v)s) AS x (i int)",
    "SELECT count(*) FROM JSONB_TO_RECORDSET ( %(v)s ) AS x (i int)",
    "SELECT count(*) FROM json_to_recordset(%(v)s::json) AS x (i int)",
    "SELECT count(*) FROM jsonb_to_recordset(%(v)s::jsonb) AS x (i int)",
    "SELECT count(*) FROM jsonb_populate_recordset(NULL::kinds, %(v)s)",
    "SELECT count(*) FROM jsonb_populate_recordset(null :: pg_temp.kinds , %(v)s)",
    "SELECT count(*) FROM jsonb_array_elements(%(v)s)",
    "SELECT count(*) FROM jsonb_array_elements_text(CAST(%(v)s AS jsonb))",
    "SELECT jsonb_array_length(%(v)s)",
    "SELECT count(*) FROM jsonb_path_query(%(v)s, '$[*]')",
]


@pytest.mark.parametrize("query", IN_THE_PLACE_OF_JSON)
def test_no_rows_are_rows_in_the_place_of_json(session: Connection, query: str) -> None:
    assert value_of(session, query, v=[]) == 0
    assert value_of(session, query, v=[{"i": 1}, {"i": 2}]) == 2
    by_position = query.replace("%(v)s", "%s")
    assert session.execute(bind(session, by_position, ([],))).fetchone() == (0,)


def test_a_list_of_values_is_json_in_the_place_of_json(session: Connection) -> None:
    assert value_of(session, "SELECT %(v)s::jsonb", v=[1, "a", None]) == [1, "a", None]
    assert value_of(session, "SELECT count(*) FROM jsonb_array_elements(%(v)s)", v=["a"]) == 1


def test_an_array_of_json_is_an_array(session: Connection) -> None:
    assert value_of(session, "SELECT %(v)s::jsonb[]", v=[]) == []


def test_an_array_is_for_unnest(session: Connection) -> None:
    rows = session.execute(bind(session, "SELECT * FROM unnest(%(a)s, %(b)s::text[])", {"a": [1, 2], "b": ["x", "y"]}))
    assert rows.fetchall() == [(1, "x"), (2, "y")]


def test_psycopgs_wrappers_take_what_json_lacks(session: Connection) -> None:
    row = {"n": Decimal("1.10"), "d": datetime.date(2026, 1, 2), "u": uuid.UUID(int=1)}
    expected = {"n": 1.1, "d": "2026-01-02", "u": str(uuid.UUID(int=1))}
    assert value_of(session, "SELECT %(v)s", v=Jsonb(row)) == expected
    assert value_of(session, "SELECT %(v)s", v=Json([row])) == [expected]


def test_what_the_application_has_taught_psycopg_stays(dsn: str) -> None:
    class Keys(Dumper):
        def dump(self, obj: Any) -> bytes:
            return ",".join(obj).encode()

    with psycopg.connect(dsn, autocommit=True) as session:
        set_json_dumps(lambda value: json.dumps({"wrapped": str(value)}), session)
        assert value_of(session, "SELECT %(v)s", v=Jsonb(Decimal(1))) == {"wrapped": "1"}
        session.adapters.register_dumper(dict, Keys)
        assert value_of(session, "SELECT %(v)s", v={"a": 1, "b": 2}) == "a,b"


@pytest.mark.parametrize("value", [{"a": object()}, {(1, 2): 3}, [{"a": {1, 2}}]])
def test_what_cannot_be_json_is_named(session: Connection, value: Any) -> None:
    with pytest.raises(BindingError, match="argument v cannot be bound"):
        bind(session, "SELECT %(v)s", {"v": value})
