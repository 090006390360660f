"""Bad input: a clear error for that task, and nothing else harmed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from celery.exceptions import NotRegistered
from psycopg import errors, sql

from celery_pgbg.configuration import settings_of
from celery_pgbg.database import schema
from celery_pgbg.errors import (
    BindingError,
    ConfigurationError,
    ExtensionMissing,
    ResultTooLarge,
    SchemaMissing,
    ServerRefused,
    TaskDefinitionError,
)
from tests.apps.shop import make_app
from tests.fix_celery import Shop
from tests.fix_server import url_of
from tests.waiting import eventually

WAIT = 60


def assert_still_works(shop: Shop) -> None:
    assert shop.task("add").delay(1).get(timeout=WAIT) == [{"total": 3}]


def send(shop: Shop, name: str, *args: Any, **kwargs: Any) -> Any:
    """Send a task by name, as a client without the code would."""
    return shop.app.send_task(f"shop.{name}", args, kwargs)


# --- the task's own fault -----------------------------------------------------------------------------


def test_wrong_arguments_are_refused_where_they_are_given(shop: Shop) -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        shop.task("add").delay()


def test_wrong_arguments_of_a_message_fail_the_task(shop: Shop) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'c'"):
        send(shop, "add", 1, c=3).get(timeout=WAIT)
    assert_still_works(shop)


@pytest.mark.parametrize(
    ("name", "args", "error", "message"),
    [
        ("missing_argument", (1,), BindingError, r"shop.missing_argument.*%\(b\)s.*no argument.*arguments are: a"),
        ("lone_percent", (), BindingError, "percent|placeholder"),
        (
            "returned",
            ("none",),
            TaskDefinitionError,
            "shop.returned: the body must return a str.*got nothing: a return is missing",
        ),
        ("returned", ("empty",), TaskDefinitionError, "shop.returned: the body returned an empty statement"),
        ("returned", ("list",), TaskDefinitionError, "shop.returned: the body must return a str.*got list"),
        ("returned", ("bytes",), TaskDefinitionError, "shop.returned: the body must return a str.*got bytes"),
        ("returned", ("number",), TaskDefinitionError, "shop.returned: the body must return a str.*got int"),
        ("returned", ("parameters",), BindingError, "shop.returned: parameters must be a dict, tuple or list, got int"),
        ("returned", ("too few",), BindingError, "shop.returned: .*2 placeholders but 1 parameters"),
        ("returned", ("too many",), BindingError, "shop.returned: .*1 placeholders but 2 parameters"),
        ("returned", ("mixed",), BindingError, "shop.returned: .*cannot be mixed"),
        (
            "returned",
            ("object",),
            BindingError,
            "shop.returned: argument o cannot be bound: cannot adapt type 'object'$",
        ),
        ("returned", ("nul",), BindingError, "shop.returned: the statement has a NUL"),
        ("returned", ("surrogate",), BindingError, "shop.returned: .*surrogates not allowed"),
        ("statement", ("COMMIT",), errors.FeatureNotSupported, "transaction commands"),
        ("statement", ("VACUUM",), errors.ActiveSqlTransaction, "HINT:  Give the task atomic=False"),
        ("statement", ("DO $$ BEGIN COMMIT; END $$",), errors.InvalidTransactionTermination, "atomic=False.*COMMIT"),
        ("statement", ("COPY pg_class TO STDOUT",), errors.FeatureNotSupported, "COPY"),
        ("statement_alone", ("VACUUM; SELECT 1",), errors.ActiveSqlTransaction, "a single statement"),
        ("statement_alone", ("SELEC 1",), errors.SyntaxError, 'at or near "SELEC"'),
        ("wrong_role", (), errors.InvalidParameterValue, 'role "pgbg_test_nobody" does not exist'),
        ("wrong_setting", (), errors.UndefinedObject, 'parameter "no_such_setting"'),
        ("wrong_setting_alone", (), errors.InvalidParameterValue, 'parameter "work_mem"'),
        ("syntax_error", (), errors.SyntaxError, 'at or near "SELEC"'),
        ("unknown_database", (), ConfigurationError, "unknown database alias 'nowhere'"),
        ("large", (20_000_000,), ResultTooLarge, "pgbg_max_result_bytes"),
        ("bound", ("a\x00b",), BindingError, "argument suffix cannot be bound: .*NUL"),
        ("bound", ("a\ud800b",), BindingError, "argument suffix cannot be bound: .*surrogates"),
        ("add", ({"a": 1},), errors.InvalidParameterValue, "cannot cast jsonb object"),
        ("add", (1, [1, "x"]), BindingError, "argument b cannot be bound: .*mixed types; got: int, str"),
    ],
)
def test_a_fault_fails_its_task_with_an_error_that_names_it(
    shop: Shop, name: str, args: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        send(shop, name, *args).get(timeout=WAIT)
    assert_still_works(shop)


def test_a_message_that_is_no_task_is_dropped(shop: Shop) -> None:
    with shop.app.connection_for_write() as connection, connection.Producer() as producer:
        for body in ("garbage", {"neither": "task"}, [[], {}, {}]):
            producer.publish(body, exchange="", routing_key=shop.queue, serializer="json")
    with pytest.raises(NotRegistered):
        send(shop, "nowhere").get(timeout=WAIT)
    assert_still_works(shop)


# --- the settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pgbg_dns": "postgresql://h/d"}, "unknown setting 'pgbg_dns' .did you mean 'pgbg_dsn'"),
        ({"pgbg_launchers": 0}, "pgbg_launchers must be int in 1 ... 64, got 0"),
        ({"pgbg_on_shutdown": "kill"}, "must be one of detach, wait, cancel"),
        ({"pgbg_dsn": "mysql://h/d"}, "must begin with postgresql://"),
        ({"pgbg_dsn": "somewhere"}, "must be a URL such as"),
        ({"pgbg_databases": "x"}, "must be a dict"),
    ],
)
def test_wrong_settings_are_refused_with_what_is_right(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        settings_of(make_app("memory://", "cache+memory://", "unused", **settings))


def test_a_celery_worker_does_not_start_with_an_unknown_setting(new_shop: Callable[..., Shop], redis_url: str) -> None:
    shop = new_shop(f"{redis_url}/9", f"{redis_url}/10", pgbg_dns="postgresql://h/d")
    worker = shop.launch_worker()
    assert worker.wait() != 0
    assert "did you mean 'pgbg_dsn'" in worker.text()


# --- the server ------------------------------------------------------------------------------------------------


@pytest.fixture
def on(new_shop: Callable[..., Shop], redis_url: str) -> Callable[..., Shop]:
    """Start a Celery worker whose pgbg_dsn is the given one."""

    def start(dsn: str | None) -> Shop:
        settings = {"pgbg_dsn": dsn} if dsn else {}
        shop = new_shop(f"{redis_url}/9", f"{redis_url}/10", **settings)
        shop.start_worker()
        return shop

    return start


def assert_fails(shop: Shop, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        shop.task("add").delay(1).get(timeout=WAIT)
    assert shop.task("double").delay(1).get(timeout=WAIT) == 2


def test_a_missing_dsn_is_said(on: Callable[..., Shop]) -> None:
    assert_fails(on(None), ConfigurationError, "pgbg_dsn is not set")


def test_a_missing_database_is_said(on: Callable[..., Shop], dsn: str) -> None:
    assert_fails(on(url_of(dsn, dbname="nowhere")), ServerRefused, 'database "nowhere" does not exist')


def test_a_missing_role_or_a_wrong_password_is_said(on: Callable[..., Shop], dsn: str) -> None:
    assert_fails(on(url_of(dsn, user="pgbg_test_nobody")), ServerRefused, 'role "pgbg_test_nobody" does not exist|auth')


def test_a_dsn_that_libpq_cannot_read_is_said_without_its_password(on: Callable[..., Shop]) -> None:
    shop = on("postgresql://u:secret@h/d?colour=red")
    assert_fails(shop, ConfigurationError, 'libpq cannot read the DSN: invalid URI query parameter: "colour"')
    assert "SQL tasks will fail until this is corrected" in shop.workers[0].text()
    assert "secret" not in shop.workers[0].text()


def test_an_extension_that_is_too_old_is_said(on: Callable[..., Shop], new_database: Callable[[], str]) -> None:
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as session:
        schema.install(session)
        # As before 1.6: neither the functions of 2.0 nor those with _v2.
        query = "SELECT proname, oid::regprocedure::text FROM pg_proc WHERE proname ~ '^pg_background_(launch|outcome)'"
        for _, function in session.execute(query).fetchall():
            session.execute(f"ALTER EXTENSION pg_background DROP FUNCTION {function}")
    assert_fails(on(dsn), ExtensionMissing, "is too old: 1.6 or later is needed")


def test_a_missing_extension_is_said_with_what_to_do(on: Callable[..., Shop], new_database: Callable[[], str]) -> None:
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as session:
        schema.install(session)
        session.execute("DROP EXTENSION pg_background CASCADE")
    assert_fails(on(dsn), ExtensionMissing, "no extension pg_background.*pgbg install")


def test_a_missing_schema_is_said_and_found_once_it_is_installed(
    on: Callable[..., Shop], new_database: Callable[[], str]
) -> None:
    dsn = new_database()
    shop = on(dsn)
    assert "no celery_pgbg schema" in shop.workers[0].text()
    assert_fails(shop, SchemaMissing, "pgbg install")
    with psycopg.connect(dsn, autocommit=True) as session:
        schema.install(session)
    assert_still_works(shop)


def test_an_older_schema_is_said(on: Callable[..., Shop], new_database: Callable[[], str]) -> None:
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute(schema.install_script([], up_to=1).encode())
    assert_fails(on(dsn), SchemaMissing, "has version 1, this package needs")


def test_a_database_that_is_read_only_is_said_with_what_to_do(on: Callable[..., Shop], dsn: str) -> None:
    read_only = f"{dsn}?options=-c%20default_transaction_read_only%3Don"
    assert_fails(on(read_only), errors.ReadOnlySqlTransaction, "HINT:  .*default_transaction_read_only must be off")


@pytest.fixture
def plain_role(database: Any) -> Iterator[str]:
    """A login role without any privilege."""
    database.execute("DROP ROLE IF EXISTS pgbg_test_plain; CREATE ROLE pgbg_test_plain LOGIN PASSWORD 'p@ss/word:1'")
    yield "pgbg_test_plain"
    database.execute("DROP OWNED BY pgbg_test_plain; DROP ROLE pgbg_test_plain")


def test_a_role_that_may_not_launch_is_said_and_works_once_granted(
    on: Callable[..., Shop], dsn: str, plain_role: str, database: Any
) -> None:
    # The password has an @ that is not encoded, as users write it.
    written = url_of(dsn, user=plain_role).replace(f"{plain_role}@", f"{plain_role}:p@ss/word:1@")
    shop = on(written)
    assert_fails(shop, ConfigurationError, "may not launch SQL tasks.*--grant-to pgbg_test_plain")
    database.execute(sql.SQL("ALTER ROLE {} SET statement_timeout = 0").format(sql.Identifier(plain_role)))
    schema.install(database, [plain_role])
    assert_still_works(shop)


def test_a_server_that_is_down_is_waited_for(on: Callable[..., Shop], dsn: str) -> None:
    shop = on(url_of(dsn, port="1"))
    result = shop.task("add").delay(1)
    eventually("it says so", lambda: "cannot be launched, trying again in" in shop.workers[0].text())
    assert result.state == "PENDING"
    assert shop.task("double").delay(1).get(timeout=WAIT) == 2
    shop.workers[0].send(signal.SIGQUIT)
    assert shop.workers[0].wait() == 0
