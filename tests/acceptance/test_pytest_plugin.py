"""The pytest plugin, in test suites as users write them, each in a pytest of its own."""

from __future__ import annotations

import shutil
import sys

import pytest

from celery_pgbg.devserver.installations import installed
from tests.doc_blocks import FILE, PROJECT, python_blocks

pytest_plugins = ("pytester",)

PAGE = PROJECT / "docs" / "how-to" / "test-your-tasks.md"

#: pytest-celery would take Celery's own fixtures away.
CELERYS_FIXTURES = ("-p", "no:celery")


@pytest.fixture(autouse=True)
def surroundings(pytester: pytest.Pytester, server_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is named, and warnings are errors."""
    monkeypatch.setenv("PGBG_DSN", server_dsn)
    pytester.makeini("[pytest]\nfilterwarnings = error\naddopts = -p no:cacheprovider\n")


def test_the_suite_of_the_documentation(pytester: pytest.Pytester) -> None:
    files = {heading[1]: block for block in python_blocks(PAGE) if (heading := FILE.match(block))}
    assert {"conftest.py", "sales.py"} < set(files)
    for name, block in files.items():
        (pytester.path / name).write_text(block)
    number = sum(block.count("\ndef test_") for block in files.values())
    assert number > 5
    pytester.runpytest_subprocess(*CELERYS_FIXTURES).assert_outcomes(passed=number)


SHOP = """
    from celery_pgbg import sql_task

    @sql_task(returns="value")
    def add(a: int, b: int):
        return "SELECT %(a)s::int + %(b)s::int"

    @sql_task(returns="value")
    def sleep(seconds: float):
        return "SELECT pg_sleep(%(seconds)s)::text"

    @sql_task(returns="value")
    def worker_kind():
        return "SELECT backend_type FROM pg_stat_activity WHERE pid = pg_backend_pid()"
"""

CONFTEST = """
    import pytest

    pytest_plugins = ("celery.contrib.pytest",)

    @pytest.fixture(scope="session")
    def celery_config(pgbg_database):
        return {"result_backend": f"pgbg+{pgbg_database}", "pgbg_databases": {"reports": "postgresql://nowhere/live"}}

    @pytest.fixture(scope="session")
    def celery_includes():
        return ["shop"]
"""


def test_fixtures_in_a_suite_with_celerys(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        shop=SHOP,
        test_it="""
        import os, psycopg, pytest, shop
        from celery import chord, group

        def test_the_server_is_the_one_that_was_named(pgbg_server, pgbg_database):
            assert pgbg_server == os.environ["PGBG_DSN"]
            assert pgbg_database != pgbg_server

        def test_every_alias_is_the_database_of_the_tests(pgbg_app, celery_app, pgbg_database):
            assert pgbg_app is celery_app
            assert pgbg_app.conf.pgbg_dsn == pgbg_database
            assert pgbg_app.conf.pgbg_databases == {"reports": pgbg_database}

        def test_a_thread_works_on_the_broker_in_memory(pgbg_worker):
            assert shop.worker_kind.delay().get(timeout=30) == "pg_background"
            assert group(shop.add.s(n, 1) for n in range(5)).delay().get(timeout=30) == [1, 2, 3, 4, 5]
            assert chord([shop.add.s(1, 1)], shop.add.si(2, 2)).delay().get(timeout=30) == 4

        def test_running_statements_are_found_by_task_and_by_what_was_sent(pgbg_worker, pgbg_tasks):
            one, other = shop.sleep.delay(60), shop.sleep.delay(60)
            pgbg_tasks.wait_running(one)
            running = pgbg_tasks.wait_running(other)
            assert (running.task_id, running.task_name) == (other.id, "shop.sleep")
            assert "pg_sleep" in running.statement
            assert {r.task_id for r in pgbg_tasks.running(shop.sleep)} == {one.id, other.id}
            assert pgbg_tasks.running(shop.add) == []
            assert len(pgbg_tasks.running()) == 2

        def test_what_a_test_leaves_running_is_ended(pgbg_tasks):
            assert pgbg_tasks.running() == []

        def test_the_outcome_is_what_has_committed(pgbg_worker, pgbg_tasks):
            result = shop.add.delay(1, 2)
            pgbg_tasks.assert_runs_once(result)
            assert pgbg_tasks.outcome(result).value == 3
            assert pgbg_tasks.outcome("unknown") is None

        def test_what_runs_twice_is_said(pgbg_worker, pgbg_tasks):
            result = shop.sleep.delay(1)
            pgbg_tasks.wait_running(result)
            pgbg_tasks.end_background_worker(result)
            with pytest.raises(AssertionError, match="launched 2 times"):
                pgbg_tasks.assert_runs_once(result)

        def test_what_does_not_run_is_said(pgbg_app, pgbg_tasks):
            result = shop.add.delay(1, 2)
            with pytest.raises(AssertionError, match="has an outcome"):
                pgbg_tasks.assert_runs_once(result, timeout=0.1)
            with pytest.raises(AssertionError, match=f"not within 0.1 s: the statement of {result.id} runs"):
                pgbg_tasks.wait_running(result, timeout=0.1)
            with pytest.raises(LookupError, match="no message of task unknown"):
                pgbg_tasks.deliver_again("unknown")

        def test_what_is_left_in_the_broker_is_gone(pgbg_worker, pgbg_tasks):
            assert pgbg_tasks.committed(
                "SELECT count(*) FROM celery_pgbg.execution WHERE task_name = 'shop.add' AND NOT EXISTS "
                "(SELECT FROM celery_pgbg.outcome WHERE outcome.task_id = execution.task_id)") == [(0,)]

        def test_what_is_not_revoked_is_said(pgbg_worker, pgbg_tasks):
            with pytest.raises(AssertionError, match="is SUCCESS, not revoked"):
                pgbg_tasks.assert_revoked(shop.add.delay(1, 2))

        def test_a_thread_can_work_inline(pgbg_worker, pgbg_inline, pgbg_database):
            with psycopg.connect(pgbg_database) as connection:
                pgbg_inline(connection)
                assert shop.worker_kind.delay().get(timeout=30) == "client backend"

        def test_a_process_needs_another_broker(pgbg_worker_process):
            with pytest.raises(ValueError, match="set broker_url"):
                pgbg_worker_process()
        """,
    )
    pytester.runpytest_subprocess(*CELERYS_FIXTURES).assert_outcomes(passed=12)


def test_celerys_own_worker_fixtures_take_our_pool(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        CONFTEST
        + """
    @pytest.fixture(scope="session")
    def celery_worker_pool():
        return "celery_pgbg.pool:TaskPool"

    @pytest.fixture(scope="session")
    def celery_worker_parameters():
        return {"concurrency": 3}
    """
    )
    pytester.makepyfile(
        shop=SHOP,
        test_function="""
        import pytest, shop

        @pytest.mark.celery(task_ignore_result=False)
        def test_celery_worker(pgbg_app, celery_worker):
            assert celery_worker.pool.num_processes == 3
            assert shop.worker_kind.delay().get(timeout=30) == "pg_background"

        def test_pgbg_worker_takes_the_parameters(pgbg_worker):
            assert pgbg_worker.pool.num_processes == 3
        """,
        test_session="""
        import pytest, shop

        @pytest.fixture(scope="session")
        def celery_config(pgbg_database):
            return {"result_backend": f"pgbg+{pgbg_database}", "pgbg_dsn": pgbg_database}

        @pytest.mark.parametrize("number", range(2))
        def test_celery_session_worker(celery_session_app, celery_session_worker, number):
            assert shop.worker_kind.delay().get(timeout=30) == "pg_background"
            assert shop.add.delay(number, 1).get(timeout=30) == number + 1
        """,
    )
    # Each xdist worker has its own database; the waits for Celery workers to end overlap.
    options = ("-n", "2", "--dist", "loadfile")
    pytester.runpytest_subprocess(*CELERYS_FIXTURES, *options).assert_outcomes(passed=4)


def test_without_celerys_plugin(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        shop=SHOP,
        test_it="""
        import psycopg, pytest, shop
        from celery import Celery

        own = Celery("own", broker="memory://", backend="cache+memory://")

        def test_inline_needs_none(pgbg_inline, pgbg_database):
            with psycopg.connect(pgbg_database) as connection:
                pgbg_inline(connection, app=own)
                assert shop.worker_kind() == "client backend"
                assert shop.add.delay(1, 2).get() == 3

        def test_nothing_is_inline_after_the_test(pgbg_database):
            own.conf.pgbg_dsn = pgbg_database
            assert shop.worker_kind() == "pg_background"

        def test_the_app_is_missed(pgbg_app):
            pass

        class TestOwnApp:
            @pytest.fixture
            def celery_app(self):
                return own

            def test_the_app_may_be_ones_own(self, pgbg_worker, pgbg_app):
                assert pgbg_app is own
                assert shop.add.delay(1, 2).get(timeout=30) == 3

        class TestMistake:
            @pytest.fixture
            def celery_app(self, no_such_fixture):
                return own

            def test_a_mistake_in_ones_own_fixture_is_not_hidden(self, pgbg_app):
                pass
        """,
    )
    result = pytester.runpytest_subprocess(*CELERYS_FIXTURES)
    result.assert_outcomes(passed=3, errors=2)
    result.stdout.fnmatch_lines(["*pgbg_app needs a fixture celery_app*", "*fixture 'no_such_fixture' not found*"])


def test_a_connection_of_django(pytester: pytest.Pytester) -> None:
    pytest.importorskip("django")
    pytester.makeconftest("""
        import django, psycopg, pytest
        from django.conf import settings

        @pytest.fixture(scope="session", autouse=True)
        def configured(pgbg_database):
            parts = psycopg.conninfo.conninfo_to_dict(pgbg_database)
            names = {"NAME": "dbname", "USER": "user", "HOST": "host", "PORT": "port", "PASSWORD": "password"}
            database = {django_name: parts.get(name, "") for django_name, name in names.items()}
            settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", **database}})
            django.setup()
    """)
    pytester.makepyfile(
        shop=SHOP,
        test_it="""
        import sys
        import shop
        from contextlib import ExitStack
        from celery_pgbg import sql_task
        from celery_pgbg.testing import inline
        from django.db import connection
        from django.test import TestCase, TransactionTestCase

        @sql_task(returns="rows")
        def rows(document):
            return 'SELECT %(document)s::jsonb AS document, \\'{"a": 1}\\'::jsonb AS other'

        class InATestCase(TestCase):
            def setUp(self):
                stack = ExitStack()
                stack.enter_context(inline(connection))
                self.addCleanup(stack.close)

            def test_the_connection_is_djangos(self):
                with connection.cursor() as cursor:
                    cursor.execute("CREATE TABLE seen (v int)")
                    cursor.execute("INSERT INTO seen VALUES (42)")
                assert shop.worker_kind() == "client backend"
                assert shop.add(1, 2) == 3
                assert rows("[1]") == [{"document": [1], "other": {"a": 1}}]

            def test_it_was_rolled_back(self):
                with connection.cursor() as cursor:
                    cursor.execute("SELECT to_regclass('seen')")
                    assert cursor.fetchone() == (None,)

        class InNoTransaction(TransactionTestCase):
            databases = {"default"}
            available_apps = []

            def test_it_gets_one(self):
                with inline(connection):
                    assert shop.add(1, 2) == 3
                    assert connection.connection.info.transaction_status.name == "INTRANS"
                assert connection.connection.info.transaction_status.name == "IDLE"
        """,
    )
    [block] = [block for block in python_blocks(PAGE) if "django" in block]
    pytester.makepyfile(documented=block)
    pytester.makepyfile(
        test_documented="""
        import shop
        from documented import CloseMonth

        class Documented(CloseMonth):
            def test_it_is_inline(self):
                assert shop.worker_kind() == "client backend"
        """
    )
    # TestCase.enterContext came with Python 3.11.
    files = ["test_it.py", "test_documented.py"] if sys.version_info >= (3, 11) else ["test_it.py"]
    pytester.runpytest_subprocess(*CELERYS_FIXTURES, *files).assert_outcomes(passed=2 + len(files))


@pytest.mark.parametrize(("ci", "outcomes"), [("", {"skipped": 1}), ("true", {"errors": 1})])
def test_a_missing_server_is_a_skip_at_home_and_a_failure_in_ci(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    not_root: tuple[str, ...],
    ci: str,
    outcomes: dict[str, int],
) -> None:
    if installed():
        pytest.skip("this machine has an installed pg_background")
    monkeypatch.delenv("PGBG_DSN")
    monkeypatch.setenv("PGBG_DEVSERVER_DIR", str(pytester.path / "devserver"))
    monkeypatch.setenv("CI", ci)
    pytester.makepyfile("def test_it(pgbg_database):\n    pass\n")
    result = pytester.run(*not_root, sys.executable, "-m", "pytest", *CELERYS_FIXTURES, "-rsE")
    result.assert_outcomes(**outcomes)
    result.stdout.fnmatch_lines(["*PostgreSQL with the extension pg_background is needed*"])


def test_who_does_not_use_the_fixtures_imports_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import sys

        def test_it():
            assert "celery_pgbg.pytest_plugin" in sys.modules
            imported = {name.partition(".")[0] for name in sys.modules}
            assert imported & {"celery", "psycopg", "kombu", "postgast", "redis"} == set()
            assert "celery_pgbg.testing" not in sys.modules
    """)
    pytester.runpytest_subprocess(*CELERYS_FIXTURES).assert_outcomes(passed=1)


def test_the_suite_of_the_example_project(pytester: pytest.Pytester) -> None:
    passed_over = shutil.ignore_patterns("__pycache__", ".*")
    shutil.copytree(PROJECT / "example_project", pytester.path, dirs_exist_ok=True, ignore=passed_over)
    pytester.runpytest_subprocess("-W", "error").assert_outcomes(passed=10)
