"""Statements that Hypothesis makes, of types, settings and several statements, as tasks and by psycopg."""

from __future__ import annotations

import os
import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celery_pgbg.execution.runner import Runner
from tests.differential.comparing import CANNOT_BE_LOADED, as_task, by_psycopg

#: Expressions of every kind of type; a settings' effect on each is psycopg's.
_VALUES = [
    "1::int2", "i", "i * 1000000::int8", "1.50::numeric / i", "'NaN'::float8", "0.1::float4 * i", "1e300::float8",
    "'a,b\"c\\d'::text", "repeat('x', i)", "''::varchar", "'(1,\"2\")'::text", "NULL::int", "NULL::date",
    "'x'::char(3)",
    "date '2026-02-01' + i", "(date '2026-02-01' + i)::text", "timestamp '2026-02-01 10:11:12.5'", "time '10:11'",
    "timestamptz '2026-02-01 10:11:12+02'", "'infinity'::date", "timestamp '2026-02-01'::text",
    "'\\x00ff41'::bytea", "true", "i > 1", "'{\"a\": [1.5, null]}'::jsonb", "'\"\\u0000\"'::json", "'null'::json",
    "ARRAY[i, NULL]", "ARRAY['a\"b', NULL, '']", "ARRAY[date '2026-02-01']", "ARRAY[[1, 2], [3, 4]]", "'{}'::text[]",
    "int4range(1, i + 1)", "daterange('2026-02-01', NULL)", "'{[1,2),[5,6)}'::int4multirange",
    "ROW(i, 'x')", "ROW(date '2026-02-01', NULL)", "ROW(i, 'x')::odd.pair", "3::odd.positive", "'2026-02-01'::odd.day",
    "'{1,2}'::odd.numbers", "'happy'::odd.mood", "'10.1.2.3/24'::inet", "'10.0.0.0/8'::cidr", "acldefault('r', 10)",
    "'odd.item'::regclass", "'2f5e4f6c-1f0b-4b2e-9a55-0f0b4b2e9a55'::uuid", "'101'::varbit", "'12.34'::money",
    "current_user", "current_setting('search_path')", "odd.fails(i)", "odd.fails(2 - i)", "1 / (3 - i)",
    "'x' || i::text",
    "(SELECT name FROM odd.item WHERE id = i)", "current_setting('datestyle')", "'a'::unknown", "1::odd.tiny * 20",
]  # fmt: skip

#: What a statement may say before; the styles are those that psycopg reads.
_SETTINGS = [
    "SET datestyle = 'SQL, DMY'", "SET LOCAL datestyle = 'German'", "SET datestyle = 'Postgres, YMD'",
    "SET intervalstyle = 'sql_standard'", "SET extra_float_digits = -3", "SET bytea_output = 'escape'",
    "SET search_path = odd, pg_catalog", "SET search_path = ''", "SET LOCAL search_path = pg_catalog, odd, public",
    "SET ROLE pg_monitor", "SET LOCAL ROLE pg_read_all_data", "SET SESSION AUTHORIZATION pg_monitor", "RESET ALL",
    "SET row_security = off", "SET lock_timeout = '9ms'", "SET TRANSACTION READ ONLY", "SET work_mem = '64kB'",
    "SET LOCAL timezone = 'Asia/Kolkata'", "SET quote_all_identifiers = on", "SET enable_hashagg = off",
    "SET plan_cache_mode = force_generic_plan", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET nothing = 1",
    "CREATE TEMP TABLE made AS SELECT 1 AS v", "SELECT 1 / 1", "INSERT INTO odd.part VALUES (1)", "SELECT odd.fails(0)",
    "DO $$ BEGIN PERFORM set_config('datestyle', 'SQL, MDY', false); END $$",
    "SELECT set_config('role', 'pg_monitor', true)",
]  # fmt: skip

_columns = st.lists(st.sampled_from(_VALUES), min_size=1, max_size=6).map(
    lambda values: ", ".join(f"{value} AS c{number % 4}" for number, value in enumerate(values))
)
_sources = st.sampled_from([
    "SELECT {} FROM generate_series(1, 2) i",
    "SELECT {} FROM generate_series(1, 0) i",
    "SELECT {} FROM (VALUES (1), (2)) AS v (i) ORDER BY i DESC",
    "SELECT {} FROM (SELECT 1 AS i) AS q",
    "WITH v AS (SELECT 2 AS i) SELECT {} FROM v",
    "INSERT INTO odd.part SELECT i FROM generate_series(1, 2) i RETURNING {}",
    "WITH new AS (INSERT INTO odd.part VALUES (1) RETURNING item AS i) SELECT {} FROM new",
    "(SELECT {} FROM generate_series(1, 2) i LIMIT 1)",
    "CREATE TEMP TABLE kept AS SELECT i FROM generate_series(1, 3) i; SELECT {} FROM kept LIMIT 2",
])  # fmt: skip


@settings(
    max_examples=int(os.environ.get("PGBG_DIFFERENTIAL_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    before=st.lists(st.sampled_from(_SETTINGS), max_size=3),
    source=_sources,
    columns=_columns,
    reuse=st.booleans(),
)
def test_any_statements_come_to_what_psycopg_makes_of_them(
    odd_runner: Runner, odd_dsn: str, before: list[str], source: str, columns: str, reuse: bool
) -> None:
    if "RETURNING {}" in source:
        columns = re.sub(r"\bi\b(?!')", "item", columns)
    query = "; ".join([*before, source.replace("{}", columns)])
    expected = by_psycopg(odd_dsn, query)
    seen = as_task(odd_runner, query, reuse=reuse)
    # psycopg reads some types in PostgreSQL's usual styles only; ours are always in those.
    assert seen == expected or (expected == CANNOT_BE_LOADED and seen.error is None)
