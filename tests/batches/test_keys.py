"""Every kind of key is walked: each row once, whatever it sorts like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from celery_pgbg.database import schema
from tests.batches.conftest import Walked

#: Columns, their unique key, and a query for the rows.
_KEYS = {
    "bigint with gaps": (
        "id bigint PRIMARY KEY",
        "id",
        "SELECT g * g FROM generate_series(-20, 60) g WHERE g <> 0 AND g > -1",
    ),
    "smallint downwards": ("id smallint, UNIQUE (id)", "id", "SELECT g FROM generate_series(-50, 50) g"),
    "numeric": ("id numeric PRIMARY KEY", "id", "SELECT g / 7.0 FROM generate_series(1, 60) g UNION ALL SELECT 'NaN'"),
    "double": (
        "id float8 PRIMARY KEY",
        "id",
        "SELECT 1 / (g + 0.5) FROM generate_series(-30, 30) g"
        " UNION ALL VALUES (float8 'NaN'), ('Infinity'), ('-Infinity')",
    ),
    "uuid": ("id uuid PRIMARY KEY", "id", "SELECT gen_random_uuid() FROM generate_series(1, 80)"),
    "text as people write it": (
        "id text PRIMARY KEY",
        "id",
        r"""VALUES (''), (' '), ('a'), ('A'), ('ä'), ('o''clock'), ('back\slash'), ('{batch}'), ('%s'), ('NULL'), ('"'),
            ('$$'), (E'line\nfeed'), ('ab'), ('a b'), ('aB'), ('z'), ('ß'), ('a' || repeat('b', 500))""",
    ),
    "text in another collation": (
        'id text COLLATE "C"',
        "id",
        "SELECT chr(32 + g) || chr(100 - g / 2) FROM generate_series(1, 90) g",
    ),
    "char(n)": ("id char(5) PRIMARY KEY", "id", "SELECT g::text FROM generate_series(1, 60) g"),
    "varchar": ("id varchar(9) PRIMARY KEY", "id", "SELECT md5(g::text)::varchar(9) FROM generate_series(1, 60) g"),
    "timestamptz": (
        "id timestamptz PRIMARY KEY",
        "id",
        "SELECT '2024-03-31'::timestamptz + g * interval '7 minutes 0.000001 s' FROM generate_series(1, 60) g"
        " UNION ALL VALUES ('infinity'::timestamptz), ('-infinity'), ('0044-03-15 BC')",
    ),
    "date": ("id date PRIMARY KEY", "id", "SELECT '2024-01-01'::date + g FROM generate_series(1, 60) g"),
    "bytea": (
        "id bytea PRIMARY KEY",
        "id",
        r"SELECT decode(md5(g::text), 'hex') || '\x00' FROM generate_series(1, 60) g",
    ),
    "interval": (
        "id interval PRIMARY KEY",
        "id",
        "SELECT g * interval '1 month -3 days 4.5 s' FROM generate_series(-9, 30) g",
    ),
    "boolean": ("id boolean PRIMARY KEY", "id", "VALUES (true), (false)"),
    "array": ("id integer[] PRIMARY KEY", "id", "SELECT ARRAY[g % 7, g] FROM generate_series(1, 60) g"),
    "inet": ("id inet PRIMARY KEY", "id", "SELECT '10.0.0.0'::inet + g * 77 FROM generate_series(1, 60) g"),
    "two columns": (
        'a integer, "B b" text, PRIMARY KEY (a, "B b")',
        ("a", "B b"),
        "SELECT g % 5, md5(g::text) FROM generate_series(1, 80) g",
    ),
    "three columns, downwards": (
        "a date, b smallint, c bigint",
        ("a", "b", "c"),
        "SELECT '2024-01-01'::date + g % 3, g % 2, g FROM generate_series(1, 80) g",
    ),
    "some are NULL": (
        "a integer, b integer, UNIQUE (a, b)",
        ("a", "b"),
        "SELECT nullif(g % 5, 3), nullif(g, 7 * (g / 7)) FROM generate_series(1, 80) g",
    ),
}

_INDEXES = {
    "text in another collation": 'CREATE UNIQUE INDEX ON {} (id COLLATE "C")',
    "three columns, downwards": "CREATE UNIQUE INDEX ON {} (a DESC, b DESC, c DESC) INCLUDE (a)",
}


@pytest.mark.parametrize("kind", _KEYS)
def test_each_row_is_given_to_the_statement_once(walked: Walked, batched: Callable[..., Any], kind: str) -> None:
    columns, key, rows = _KEYS[kind]
    walked.make(columns, rows)
    walked.session.execute(_INDEXES.get(kind, "SELECT '{}'").format(walked.name))
    names = [key] if isinstance(key, str) else key
    row = f"ROW({', '.join(_quoted(name) for name in names)})"
    not_null = " AND ".join(f"{_quoted(name)} IS NOT NULL" for name in names)
    task = batched(walked.noting(row), walked.name, key, max_batch_rows=9)

    result = task()

    assert walked.noted() == walked.each_once(row, not_null)
    assert result["rows"] == walked.noted().total()
    assert result["batches"] >= result["rows"] / 9


def _quoted(name: str) -> str:
    return psycopg.sql.Identifier(name).as_string()


def test_a_composite_enum_and_domain_key(walked: Walked, batched: Callable[..., Any]) -> None:
    suffix = walked.name
    walked.session.execute(f"CREATE TYPE mood_{suffix} AS ENUM ('sad', 'ok', 'happy')")
    walked.session.execute(f"CREATE DOMAIN amount_{suffix} AS integer CHECK (VALUE > 0)")
    walked.session.execute(f"CREATE TYPE pair_{suffix} AS (a integer, b text)")
    try:
        walked.make(
            f"id mood_{suffix}, n amount_{suffix}, p pair_{suffix}, PRIMARY KEY (n), UNIQUE (id, n), UNIQUE (p)",
            f"""SELECT (ARRAY['sad', 'ok', 'happy'])[1 + g % 3]::mood_{suffix}, g,
                ROW(g % 3, 'x,"' || g)::pair_{suffix} FROM generate_series(1, 50) g""",
        )
        for key in (("id", "n"), "n"):
            walked.session.execute(f"TRUNCATE {walked.log}")
            batched(walked.noting("n"), walked.name, key, max_batch_rows=7)()
            assert walked.noted() == walked.each_once("n")
        # The operators of a row have another name than those of integers, but need not meet them.
        walked.session.execute(f"TRUNCATE {walked.log}")
        batched(walked.noting("n"), walked.name, "p", max_batch_rows=7)()
        assert walked.noted() == walked.each_once("n")
    finally:
        walked.drop()
        walked.session.execute(f"DROP TYPE mood_{suffix}, pair_{suffix}; DROP DOMAIN amount_{suffix}")


def test_a_partitioned_table_is_walked(walked: Walked, batched: Callable[..., Any]) -> None:
    walked.session.execute(f"CREATE TABLE {walked.name} (id bigint PRIMARY KEY) PARTITION BY RANGE (id)")
    for number in range(3):
        walked.session.execute(
            f"CREATE TABLE {walked.name}_{number} PARTITION OF {walked.name} FOR VALUES FROM ({number * 50})"
            f" TO ({number * 50 + 50})"
        )
    walked.session.execute(f"INSERT INTO {walked.name} SELECT generate_series(0, 149)")

    batched(walked.noting(), walked.name, max_batch_rows=13)()

    assert walked.noted() == walked.each_once()


@pytest.mark.parametrize(
    ("columns", "key", "expected"),
    [
        ("id integer", "id", "no unique index on (id)"),
        ("id integer PRIMARY KEY, a integer", ("id", "a"), "no unique index on (id, a)"),
        ("a integer, id integer, PRIMARY KEY (a, id)", ("id", "a"), "no unique index on (id, a)"),
        ("id integer PRIMARY KEY", "ID", 'column "ID" of relation'),
    ],
)
def test_a_key_that_cannot_be_walked_is_refused(
    walked: Walked, batched: Callable[..., Any], columns: str, key: Any, expected: str
) -> None:
    walked.make(columns, "SELECT 1" if columns.count("integer") == 1 else "SELECT 1, 1")

    with pytest.raises(psycopg.Error) as caught:
        batched(walked.noting(), walked.name, key)()

    assert expected in str(caught.value)
    assert caught.value.diag.context is None
    assert walked.noted() == {}


def test_a_table_that_is_not_there_is_named(batched: Callable[..., Any]) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable, match='"nowhere" does not exist'):
        batched("UPDATE nowhere SET a = 1 WHERE {batch}", "nowhere")()


def test_an_empty_table_is_walked_at_once(walked: Walked, batched: Callable[..., Any]) -> None:
    walked.make("id integer PRIMARY KEY", "SELECT 1 WHERE false")

    assert batched(walked.noting(), walked.name)() == {"rows": 0, "batches": 0, "seconds": 0.0}


def test_no_name_that_others_made_is_called(walked: Walked, batched: Callable[..., Any]) -> None:
    """Operators, functions and types of a schema that the first batch puts first; all fail when they are called."""
    schema = f"first_{walked.name}"
    walked.make(
        "id bigint, name varchar(20), PRIMARY KEY (id, name)", "SELECT g, g::text FROM generate_series(1, 40) g"
    )
    walked.session.execute(f"CREATE SCHEMA {schema}")
    try:
        _make_shadows(walked.session, schema)
        task = batched(
            f"SET search_path = {schema}, pg_catalog, public; INSERT INTO public.{walked.log} (key)"
            f" SELECT pg_catalog.format('%%s', id) FROM public.{walked.name} WHERE {{batch}}",
            f"public.{walked.name}",
            ("id", "name"),
            max_batch_rows=6,
            wait_while="false",
        )
        task()
        assert walked.noted() == walked.each_once()
    finally:
        walked.session.execute(f"DROP SCHEMA {schema} CASCADE")


def _make_shadows(session: psycopg.Connection[Any], schema: str) -> None:
    session.execute(f"SET check_function_bodies = off; SET search_path = {schema}, public")
    session.execute("CREATE DOMAIN text AS pg_catalog.text CHECK (pg_catalog.length(VALUE) < 0)")
    for name in ("int4", "int8", "jsonb", "timestamptz", "bool", "varchar", "record", "oid", "regclass"):
        session.execute(f"CREATE DOMAIN {name} AS pg_catalog.int2 CHECK (false)")
    types = ("pg_catalog.int8", "pg_catalog.int4", "pg_catalog.text", "pg_catalog.varchar", "pg_catalog.jsonb")
    for number, type_name in enumerate(types):
        session.execute(
            f"CREATE FUNCTION bad{number}({type_name}, {type_name}) RETURNS pg_catalog.bool LANGUAGE plpgsql"
            " AS 'BEGIN RAISE EXCEPTION ''a shadow was called''; END'"
        )
        for operator in ("=", "<", "<=", ">", ">=", "<>", "+", "||"):
            session.execute(
                f"CREATE OPERATOR {operator} (FUNCTION = bad{number}, LEFTARG = {type_name}, RIGHTARG = {type_name})"
            )
    for name, arguments in (
        ("format", "pg_catalog.text, VARIADIC pg_catalog.text[]"),
        ("clock_timestamp", ""),
        ("current_setting", "pg_catalog.text"),
        ("pg_sleep", "pg_catalog.float8"),
        ("set_config", "pg_catalog.text, pg_catalog.text, pg_catalog.bool"),
        ("count", ""),
    ):
        session.execute(
            f"CREATE FUNCTION {name}({arguments}) RETURNS pg_catalog.text LANGUAGE plpgsql"
            " AS 'BEGIN RAISE EXCEPTION ''a shadow was called''; END'"
        )
    session.execute("RESET search_path")


def test_a_walk_with_any_text_in_a_database_without_an_encoding(
    app: Any, batched: Callable[..., Any], new_database: Callable[..., str]
) -> None:
    app.conf.pgbg_dsn = new_database(encoding="SQL_ASCII")
    with psycopg.connect(app.conf.pgbg_dsn, autocommit=True, client_encoding="utf8") as session:
        schema.install(session)
        session.execute("CREATE TABLE walked (k text PRIMARY KEY, v text); INSERT INTO walked VALUES ('ä'), ('ö')")
        assert batched("UPDATE walked SET v = 'ß' WHERE {batch}", "walked", "k", max_batch_rows=1)()["rows"] == 2
        assert session.execute("SELECT DISTINCT v FROM walked").fetchall() == [("ß",)]
