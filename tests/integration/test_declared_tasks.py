"""Tasks that are a SQL file, which psql runs too, and tasks that are a function or procedure of the database."""

from __future__ import annotations

import datetime
import inspect
import re
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import Celery, current_app

from celery_pgbg import sql_task
from celery_pgbg.errors import BindingError, TaskDefinitionError
from celery_pgbg.runners import close_runners
from tests.doc_blocks import PROJECT, python_blocks

ROLLUP = Path(__file__).parent.parent / "apps" / "rollup.sql"
MONTH = datetime.date(2026, 1, 1)


@pytest.fixture(scope="module")
def app(dsn: str) -> Iterator[Celery]:
    made = Celery("declared", broker="memory://", backend="cache+memory://")
    made.conf.pgbg_dsn = dsn
    made.set_current()
    yield made
    close_runners(made)


@pytest.fixture(scope="module", autouse=True)
def objects(dsn: str) -> Iterator[None]:
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("""
            CREATE SCHEMA billing;
            CREATE TABLE sales (day date, price numeric);
            INSERT INTO sales VALUES ('2026-01-01', 5), ('2026-01-02', 20), ('2026-01-31', 30), ('2026-02-01', 99);
            CREATE TABLE totals (month date, label text, total numeric);
            CREATE TABLE "other ""totals%" (month date, label text, total numeric);
            CREATE FUNCTION billing.close_month(month date, "limit" int DEFAULT 100) RETURNS text
                LANGUAGE SQL AS $$ SELECT month || ' ' || "limit" $$;
            CREATE FUNCTION billing.several(n int) RETURNS TABLE (a int, b text)
                LANGUAGE SQL AS $$ SELECT i, 'x' FROM generate_series(1, n) AS i $$;
            CREATE FUNCTION billing.overloaded(a int) RETURNS text LANGUAGE SQL AS $$ SELECT 'int' $$;
            CREATE FUNCTION billing.overloaded(a text) RETURNS text LANGUAGE SQL AS $$ SELECT 'text' $$;
            CREATE FUNCTION billing.count_rows(rows jsonb) RETURNS int
                LANGUAGE SQL AS $$ SELECT jsonb_array_length(rows) $$;
            CREATE FUNCTION billing.sum_of(VARIADIC numbers int[]) RETURNS bigint
                LANGUAGE SQL AS $$ SELECT sum(n) FROM unnest(numbers) AS n $$;
            CREATE FUNCTION billing.any_of(anyelement) RETURNS text LANGUAGE SQL AS $$ SELECT pg_typeof($1)::text $$;
            CREATE FUNCTION billing."Odd ""name"() RETURNS int LANGUAGE SQL AS $$ SELECT 7 $$;
            CREATE PROCEDURE billing.insert_total(month date, label text, OUT made int)
                LANGUAGE plpgsql AS $$ BEGIN INSERT INTO totals VALUES (month, label, 0); made := 1; END $$;
            CREATE PROCEDURE billing.commits() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;
        """)
        yield
        session.execute("""
            DROP SCHEMA billing CASCADE; DROP TABLE sales, totals, "other ""totals%"
        """)


@pytest.fixture
def module(app: Celery, tmp_path: Path) -> Iterator[types.ModuleType]:
    """A module of its own, as one of a project, whose SQL files lie beside it."""
    made = types.ModuleType(f"project_{tmp_path.name}")
    made.__file__ = str(tmp_path / "tasks.py")
    made.__dict__["sql_task"] = sql_task
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


def define(module: types.ModuleType, code: str, **files: str) -> Any:
    """Run the code of a module with SQL files beside it; returns what it calls ``task``."""
    for name, text in files.items():
        (Path(str(module.__file__)).parent / f"{name}.sql").write_text(text)
    exec(compile(inspect.cleandoc(code), str(module.__file__), "exec"), module.__dict__)
    return module.__dict__["task"]


class TestFiles:
    @pytest.mark.parametrize("variables", [{}, {"least": 25}, {"label": "a '\"b % :month", "target": 'other "totals%'}])
    def test_a_file_does_what_psql_does_with_it(
        self, module: types.ModuleType, dsn: str, database: Any, variables: dict[str, Any]
    ) -> None:
        psql = shutil.which("psql")
        if psql is None:
            pytest.skip("there is no psql here")
        sets = [f"--set={name}={value}" for name, value in {"month": MONTH, **variables}.items()]
        ended = subprocess.run(
            [psql, "-X", "-q", "-A", "-t", "-F", "|", *sets, "-f", str(ROLLUP), dsn], capture_output=True, text=True
        )
        assert ended.stderr == ""
        task = define(module, "task = sql_task(file='rollup.sql')", rollup=ROLLUP.read_text())
        rows = task(MONTH, **variables)
        # It ran twice, and the second time the rows of both are there.
        assert ["|".join(str(value) for value in row.values()) for row in rows] == ended.stdout.splitlines() * 2
        database.execute('TRUNCATE totals, "other ""totals%"')

    def test_its_head_says_what_its_arguments_are(self, module: types.ModuleType) -> None:
        task = define(module, "task = sql_task(file='rollup.sql')", rollup=ROLLUP.read_text())
        assert task.name == f"{module.__name__}.rollup"
        with pytest.raises(TypeError, match="month"):
            task.delay()
        with pytest.raises(TypeError, match="nope"):
            task.delay(MONTH, nope=1)

    def test_without_a_head_its_variables_are_its_arguments(self, module: types.ModuleType) -> None:
        text = "SELECT :b::int - :'a'::int AS n, '%' AS p;"
        task = define(module, "task = sql_task(file='sub.sql', returns='row')", sub=text)
        assert task(5, 3) == {"n": 2, "p": "%"}
        with pytest.raises(TypeError):
            task.delay(5)

    def test_psqls_own_defaults_are_defaults(self, module: types.ModuleType) -> None:
        text = "\\if :{?n}\n\\else\n\\set n 4\n\\endif\nSELECT :n::int + :m::int AS n"
        task = define(module, "task = sql_task(file='default.sql', returns='value')", default=text)
        assert (task(1), task(1, n=1)) == (5, 2)

    def test_a_functions_signature_says_what_its_arguments_are(self, module: types.ModuleType) -> None:
        code = """
            @sql_task(file="slices.sql", returns="value")
            def task(low: int, high: int = 2):
                "Cuts."
        """
        task = define(module, code, slices="SELECT (ARRAY[1, 2, 3])[:low : :high]")
        assert task.name == f"{module.__name__}.task"
        assert task.__doc__ == "Cuts."
        assert task(1) == [1, 2]
        with pytest.raises(TypeError):
            task.delay()

    def test_a_function_of_the_files_name(self, module: types.ModuleType) -> None:
        code = """
            @sql_task(file="task.sql", returns="value")
            def task(n: int = 5): ...
        """
        task = define(module, code, task="SELECT :n::int")
        assert (task(), task(6)) == (5, 6)
        task.delay()

    def test_an_app_that_is_made_later_has_the_task_once(self, module: types.ModuleType, app: Celery, dsn: str) -> None:
        code = """
            @sql_task(file="two.sql")
            def one(n: int = 5): ...
            @sql_task(file="two.sql", name="second")
            def other(n: int = 6): ...
            task = sql_task(file="two.sql")
        """
        define(module, code, two="SELECT :n::int AS n")
        for each in (app, Celery("later", broker="memory://", set_as_current=False)):
            each.conf.pgbg_dsn = dsn
            names = {name for name, task in each.tasks.items() if task.__module__ == module.__name__}
            assert names == {"second", f"{module.__name__}.one", f"{module.__name__}.two"}
            assert each.tasks["second"]() == [{"n": 6}]
            assert each.tasks[f"{module.__name__}.one"]() == [{"n": 5}]
            close_runners(each)

    def test_options_are_those_of_any_task(self, module: types.ModuleType) -> None:
        code = "task = sql_task(file='vacuum.sql', atomic=False, name='nightly', max_retries=7)"
        task = define(module, code, vacuum='-- Cleans.\nVACUUM :"table";')
        assert (task.name, task.max_retries, task.acks_late) == ("nightly", 7, False)
        assert task("totals") == "VACUUM"

    def test_what_only_psql_can_do_is_refused(self, module: types.ModuleType) -> None:
        with pytest.raises(TaskDefinitionError, match=r"bad.sql, line 2: only psql can run .*copy"):
            define(module, "task = sql_task(file='bad.sql')", bad="SELECT 1;\n\\copy t from 'x'")
        with pytest.raises(TaskDefinitionError, match="cannot be read"):
            define(module, "task = sql_task(file='missing.sql')")
        with pytest.raises(TaskDefinitionError, match="-- args"):
            define(module, "task = sql_task(file='bad.sql')", bad="-- args: a b c\nSELECT 1")

    def test_a_name_must_be_one(self, module: types.ModuleType) -> None:
        task = define(module, "task = sql_task(file='name.sql')", name='SELECT * FROM :"table"')
        with pytest.raises(BindingError, match="table is a name"):
            task(5)

    def test_it_is_read_again_where_that_is_asked(self, module: types.ModuleType) -> None:
        for reload, expected in ((True, 2), (False, 1)):
            name = f"again_{reload}".lower()
            task = define(
                module, f"task = sql_task(file='{name}.sql', returns='value', reload={reload})", **{name: "SELECT 1"}
            )
            assert task() == 1
            path = Path(str(module.__file__)).parent / f"{name}.sql"
            path.write_text("SELECT 2")
            assert task() == expected

    def test_the_example_of_the_documentation(self, module: types.ModuleType, database: Any) -> None:
        page = (PROJECT / "docs" / "how-to" / "sql-files.md").read_text()
        [file] = re.findall(r"```sql\n-- shop/rollup.sql\n(.*?)```", page, re.DOTALL)
        for block in python_blocks(PROJECT / "docs" / "how-to" / "sql-files.md")[:2]:
            define(module, f"{block}\ntask = None", rollup=file)
        tasks = module.__dict__
        assert tasks["rollup"](MONTH, least=25) == tasks["rollup_month"](MONTH, 25) == Decimal(30)
        assert module.__name__ + ".rollup" in current_app.tasks
        assert tasks["rollup_month"].__doc__ == "Sum up the sales of a month."
        database.execute("TRUNCATE totals")


class TestRoutines:
    @pytest.mark.parametrize(
        ("name", "args", "kwargs", "expected"),
        [
            ("billing.close_month", (MONTH,), {}, [{"close_month": "2026-01-01 100"}]),
            ("billing.close_month", ("2026-01-01",), {"limit": 5}, [{"close_month": "2026-01-01 5"}]),
            ("billing.close_month", (), {"limit": 5, "month": "2026-01-01"}, [{"close_month": "2026-01-01 5"}]),
            ("billing.several", (2,), {}, [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]),
            ("billing.overloaded", (1,), {}, [{"overloaded": "int"}]),
            ("billing.overloaded", ("1",), {}, [{"overloaded": "text"}]),
            ("billing.count_rows", ([],), {}, [{"count_rows": 0}]),
            ("billing.count_rows", ([{"a": 1}],), {}, [{"count_rows": 1}]),
            ("billing.sum_of", ([1, 2, 3],), {}, [{"sum_of": 6}]),
            ("billing.any_of", (MONTH,), {}, [{"any_of": "date"}]),
            ('billing."Odd ""name"', (), {}, [{'Odd "name': 7}]),
            ("pg_catalog.lower", ("ABC",), {}, [{"lower": "abc"}]),
            ("upper", ("abc",), {}, [{"upper": "ABC"}]),
        ],
    )
    def test_a_function_is_called_with_its_own_arguments(
        self, module: types.ModuleType, name: str, args: Any, kwargs: Any, expected: Any
    ) -> None:
        task = define(module, f"task = sql_task(call={name!r}, name={name + repr(args)!r})")
        assert task(*args, **kwargs) == expected

    def test_a_procedure_is_called(self, module: types.ModuleType, database: Any) -> None:
        task = define(module, "task = sql_task(call='billing.insert_total')")
        assert task(MONTH, label="by call") == [{"made": 1}]
        assert database.execute("SELECT count(*) FROM totals WHERE label = 'by call'").fetchone() == (1,)

    def test_results_of_a_procedure_are_its_value(self, module: types.ModuleType, database: Any) -> None:
        database.execute("""
            CREATE OR REPLACE PROCEDURE billing.sum_up(
                month date, INOUT total numeric, OUT "a note" text, OUT days date[]
            ) LANGUAGE plpgsql AS $$
            BEGIN
                SELECT sum(price) + total, 'of ' || month, array_agg(day ORDER BY day) INTO total, "a note", days
                FROM sales WHERE date_trunc('month', day) = month;
            END $$;
            CREATE OR REPLACE PROCEDURE billing.swap(INOUT integer, INOUT text, OUT integer) LANGUAGE plpgsql AS $$
            BEGIN $3 := $1; $2 := upper($2); $1 := length($2); END $$
        """)
        expected = {
            "total": Decimal(55), "a note": "of 2026-01-01",
            "days": [MONTH, datetime.date(2026, 1, 2), datetime.date(2026, 1, 31)],
        }  # fmt: skip
        task = define(module, "task = sql_task(call='billing.sum_up', returns='row')")
        assert task(MONTH, 0) == task(MONTH, total=0) == expected
        alone = define(module, "task = sql_task(call='billing.sum_up', name='alone', returns='row', atomic=False)")
        assert alone(MONTH, 0) == expected
        swap = define(module, "task = sql_task(call='billing.swap', returns='row')")
        assert swap(7, "abc") == {"column1": 3, "column2": "ABC", "column3": 7}

    def test_an_error_in_a_procedure_with_results_is_its_own(self, module: types.ModuleType, database: Any) -> None:
        database.execute("""
            CREATE OR REPLACE PROCEDURE billing.fails(secret text, OUT n integer) LANGUAGE plpgsql AS $$
            BEGIN n := 1 / 0; END $$
        """)
        task = define(module, "task = sql_task(call='billing.fails', returns='value')")
        with pytest.raises(psycopg.errors.DivisionByZero) as caught:
            task("hush")
        assert "hush" not in str(caught.value)
        assert "PL/pgSQL function billing.fails" in caught.value.diag.context
        assert "call_procedure" not in caught.value.diag.context

    def test_a_procedure_that_commits(self, module: types.ModuleType) -> None:
        task = define(module, "task = sql_task(call='billing.commits', atomic=False)")
        assert task() == "CALL"

    @pytest.mark.parametrize(
        ("name", "args", "kwargs", "message"),
        [
            (
                "billing.close_month",
                (),
                {},
                r"cannot be called with \(\); there is .*month date, .*limit.* DEFAULT 100",
            ),
            ("billing.close_month", (MONTH,), {"lim": 5}, r"called with \(..., lim=...\)"),
            ("billing.close_month", (MONTH,), {"month": MONTH}, "cannot be called"),
            ("billing.nothing", (), {}, "there is no function or procedure billing.nothing"),
            ("nowhere.nothing", (), {}, "there is no function"),
            ("not a name", (), {}, "is no name"),
            ("count", (1,), {}, "there is no function"),
        ],
    )
    def test_what_does_not_fit_is_told_with_what_does(
        self, module: types.ModuleType, name: str, args: Any, kwargs: Any, message: str
    ) -> None:
        task = define(module, f"task = sql_task(call={name!r}, name={name + message!r})")
        with pytest.raises(BindingError, match=message):
            task(*args, **kwargs)

    def test_a_functions_signature_is_checked_where_it_is_sent(self, module: types.ModuleType) -> None:
        code = """
            @sql_task(call="billing.close_month", returns="value")
            def task(month, limit=7): ...
        """
        task = define(module, code)
        assert task(MONTH) == "2026-01-01 7"
        with pytest.raises(TypeError):
            task.delay()

    def test_one_of_both_is_given(self, module: types.ModuleType) -> None:
        with pytest.raises(TaskDefinitionError, match="either file= or call="):
            define(module, "task = sql_task(call='a', file='b')")
