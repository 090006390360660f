"""Walks are interrupted, doubled, stopped and gone on with: each row is done once, in the committed result."""

from __future__ import annotations

import json
import random
import threading
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from celery import Celery

from celery_pgbg import BatchedSQLTask
from celery_pgbg.batches.options import HEADER
from celery_pgbg.errors import BindingError, TaskDefinitionError
from celery_pgbg.execution.control import operations, walk_control
from celery_pgbg.handles import Attempt
from celery_pgbg.outcomes import Cancelled, Returned
from celery_pgbg.runners import runner_of
from celery_pgbg.watch import Interruption, Watch
from tests.batches.conftest import Database, Walked
from tests.waiting import eventually


class Walking:
    """A batched task that runs in a thread."""

    def __init__(self, task: Any, task_id: str | None = None, retries: int = 0, walk_id: str | None = None) -> None:
        self.task_id = task_id or str(uuid.uuid4())
        header = {HEADER: {"walk_id": walk_id}} if walk_id else None
        task.push_request(id=self.task_id, retries=retries, headers=header, called_directly=False, is_eager=True)
        try:
            self.order = task.make_order((), {})
        finally:
            task.pop_request()
        self.watch = Watch(Attempt(self.task_id, retries))
        self.ending: Any = None
        self._runner = runner_of(task.app)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.ending = self._runner.run(self.order, self.watch)

    def wait(self) -> Any:
        """Wait for its end."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.ending

    def progress(self, session: Database) -> tuple[int, str]:
        """What its execution shows."""
        query = (
            "SELECT progress_percent, progress_message FROM celery_pgbg.execution WHERE task_id = %s AND attempt = %s"
        )
        row = session.execute(query, [self.task_id, self.watch.attempt.number]).fetchone()
        return row if row and row[1] else (0, "")


def batches_done(session: Database, walk_id: str) -> int:
    """How many batches of a walk are committed."""
    row = session.execute("SELECT batches FROM celery_pgbg.walk WHERE walk_id = %s", [walk_id]).fetchone()
    return row[0] if row else 0


def bgworkers(session: Database, task_id: str) -> list[int]:
    """PIDs of the background workers of a task."""
    query = (
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_background' AND application_name LIKE %s"
        " AND datname = current_database()"
    )
    return [pid for (pid,) in session.execute(query, [f"pgbg {task_id}%"])]


@pytest.fixture
def slowly(walked: Walked, batched: Callable[..., Any]) -> Callable[..., Any]:
    """A task that notes 300 rows, five in a batch that takes some milliseconds."""
    walked.make("id bigint PRIMARY KEY, v integer", "SELECT g, 0 FROM generate_series(1, 300) g")

    def make(more: str = "", **options: Any) -> Any:
        statement = f"{walked.noting()}; SELECT pg_sleep(0.01); {more}"
        return batched(statement, walked.name, **{"max_batch_rows": 5, **options})

    return make


def test_a_walk_whose_background_workers_are_killed_at_random_moments_goes_on(
    slowly: Callable[..., Any], walked: Walked
) -> None:
    walking = Walking(slowly())
    killed: set[int] = set()
    generator = random.Random()

    while len(killed) < 3 and walking.ending is None:
        # Sometimes at once, in whatever a new one does first; sometimes after some batches.
        done = batches_done(walked.session, walking.task_id) + generator.choice((0, 0, 1, 3))
        _wait_for_batches(walked, walking, done)
        eventually("it runs", lambda: walking.ending or bgworkers(walked.session, walking.task_id))
        for pid in bgworkers(walked.session, walking.task_id):
            walked.session.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])
            killed.add(pid)
            # Not in the same launch: five without a batch would be the end of it.
            _wait_for_batches(walked, walking, done + 1)

    assert isinstance(walking.wait(), Returned)
    assert len(killed) > 1
    assert walked.noted() == walked.each_once()
    assert walking.ending.value["rows"] == 1 * walking.ending.value["batches"]


def _wait_for_batches(walked: Walked, walking: Walking, count: int) -> None:
    eventually(f"{count} batches", lambda: walking.ending or _done(walked, walking) >= count)


def _done(walked: Walked, walking: Walking) -> int:
    return batches_done(walked.session, walking.task_id)


def test_two_deliveries_walk_once_and_return_the_same(slowly: Callable[..., Any], walked: Walked) -> None:
    task = slowly()
    first = Walking(task)
    second = Walking(task, task_id=first.task_id)
    eventually("both run", lambda: first.watch.pid and second.watch.pid)

    assert len(bgworkers(walked.session, first.task_id)) == 1
    assert first.wait() == second.wait()
    assert walked.noted() == walked.each_once()


def test_another_attempt_takes_the_walk_from_a_background_worker_that_lives(
    slowly: Callable[..., Any], walked: Walked
) -> None:
    """As after a retry that came too early, or ``pgbg resume`` of what still ran: never both in one range."""
    task = slowly()
    first = Walking(task)
    eventually("it has begun", lambda: _done(walked, first) > 2)
    second = Walking(task, walk_id=first.task_id)

    assert first.wait().report.sqlstate == "55000"
    assert second.task_id in first.wait().report.message
    assert isinstance(second.wait(), Returned)
    assert walked.noted() == walked.each_once()


def test_a_background_worker_taken_for_dead_does_no_batch_beside_another(
    slowly: Callable[..., Any], walked: Walked
) -> None:
    """Its lock is gone, released by the statement: the walk's row keeps it from going on."""
    first = Walking(slowly(more="SELECT pg_advisory_unlock_all()"))
    eventually("it has begun", lambda: _done(walked, first) > 2)
    taken = "SELECT celery_pgbg.walk_take(task_id, attempt, %s) FROM celery_pgbg.walk WHERE walk_id = %s"
    walk = json.dumps(
        {"walk_id": first.task_id, "task_name": first.order.task_name, "table": walked.name, "key": ["id"]}
    )
    walked.session.execute(taken, [walk, first.task_id])

    assert isinstance(first.wait(), Returned)
    assert walked.noted() == walked.each_once()


def test_after_a_revoke_a_resumed_task_goes_on(slowly: Callable[..., Any], walked: Walked) -> None:
    task = slowly()
    first = Walking(task)
    eventually("it has begun", lambda: _done(walked, first) > 3)
    first.watch.interrupt(Interruption.REVOKE)
    assert first.wait() == Cancelled()
    before = walked.noted()
    assert 0 < before.total() < 300

    second = Walking(task, walk_id=first.task_id)

    assert second.wait().value["rows"] == second.wait().value["batches"]
    assert walked.noted() == walked.each_once()
    assert walked.noted() >= before


def test_a_failed_batch_is_rolled_back_and_a_later_attempt_goes_on_at_it(
    batched: Callable[..., Any], walked: Walked
) -> None:
    walked.make("id integer PRIMARY KEY, v integer", "SELECT g, g FROM generate_series(1, 100) g")
    walked.session.execute(f"UPDATE {walked.name} SET v = 0 WHERE id = 50")
    task = batched(
        f"{walked.noting()}; SELECT sum(1 / v) FROM {walked.name} WHERE {{batch}}", walked.name, max_batch_rows=8
    )
    first = Walking(task)

    report = first.wait().report
    assert report.sqlstate == "22012"
    assert "after key (48)" in report.fields["message_hint"]
    assert walked.noted() == walked.each_once(where="id <= 48")

    walked.session.execute(f"UPDATE {walked.name} SET v = 1 WHERE id = 50")
    assert isinstance(Walking(task, task_id=first.task_id, retries=1).wait(), Returned)
    assert walked.noted() == walked.each_once()


def test_a_deferred_constraint_fails_its_batch_only(batched: Callable[..., Any], walked: Walked) -> None:
    walked.make("id integer PRIMARY KEY", "SELECT generate_series(1, 40)")
    walked.session.execute(f"INSERT INTO {walked.log} (key) VALUES ('33')")
    walked.session.execute(f"ALTER TABLE {walked.log} ADD UNIQUE (key) DEFERRABLE INITIALLY DEFERRED")
    walking = Walking(batched(walked.noting(), walked.name, max_batch_rows=10))

    assert walking.wait().report.sqlstate == "23505"
    assert walked.noted() == walked.each_once(where="id <= 30 OR id = 33")


def test_an_error_at_a_commit_that_passes_is_gone_on_after(batched: Callable[..., Any], walked: Walked) -> None:
    """A trigger that defers itself fails once, as serialization does, where no procedure can catch it."""
    name = walked.name
    walked.make("id integer PRIMARY KEY", "SELECT generate_series(1, 100)")
    walked.session.execute(f"CREATE SEQUENCE {name}_fails; CREATE TABLE {name}_second (v integer)")
    try:
        walked.session.execute(f"""
            CREATE FUNCTION {name}_first() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN SET CONSTRAINTS ALL DEFERRED; INSERT INTO {name}_second VALUES (1); RETURN NULL; END $$;
            CREATE FUNCTION {name}_fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF nextval('{name}_fails') IN (2, 4) THEN RAISE serialization_failure; END IF; RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER first AFTER INSERT ON {walked.log} DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW WHEN (NEW.key LIKE '%9') EXECUTE FUNCTION {name}_first();
            CREATE CONSTRAINT TRIGGER second AFTER INSERT ON {name}_second DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION {name}_fail();
        """)
        walking = Walking(batched(walked.noting(), name, max_batch_rows=10))

        assert isinstance(walking.wait(), Returned)
        assert walked.noted() == walked.each_once()
        assert walked.session.execute(f"SELECT last_value FROM {name}_fails").fetchone() == (12,)
    finally:
        walked.session.execute(f"DROP TABLE {walked.log}; DROP TABLE {name}_second; DROP SEQUENCE {name}_fails")
        walked.session.execute(f"DROP FUNCTION {name}_first, {name}_fail")


def test_a_lock_timeout_repeats_the_batch_smaller(
    batched: Callable[..., Any], walked: Walked, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    walked.make("id integer PRIMARY KEY, v integer", "SELECT g, 0 FROM generate_series(1, 64) g")
    task = batched(
        f"{walked.noting()}; UPDATE {walked.name} SET v = v + 1 WHERE {{batch}}",
        walked.name,
        max_batch_rows=32,
        settings={"lock_timeout": "50ms"},
    )
    with psycopg.connect(dsn) as other:
        other.execute(f"UPDATE {walked.name} SET v = 10 WHERE id = 40")
        walking = Walking(task)
        size = "SELECT batch_rows FROM celery_pgbg.walk WHERE walk_id = %s"
        eventually(
            "it tries single rows",
            lambda: walked.session.execute(size, [walking.task_id]).fetchone() == (1,) and len(walked.noted()) == 39,
        )
    assert isinstance(walking.wait(), Returned)
    assert walked.noted() == walked.each_once()
    query = f"SELECT array_agg(DISTINCT v) FROM {walked.name} WHERE id <> 40"
    assert walked.session.execute(query).fetchone() == ([1],)


def test_batches_get_smaller_while_others_wait_for_their_locks(
    batched: Callable[..., Any], walked: Walked, dsn: str
) -> None:
    walked.make("id integer PRIMARY KEY, v integer", "SELECT g, 0 FROM generate_series(1, 400) g")
    # The other's row is in the first batch of 100, which goes on for a second.
    task = batched(
        f"UPDATE {walked.name} SET v = v + 1 WHERE {{batch}}; SELECT pg_sleep(0.3)", walked.name, batch_seconds=5
    )
    walking = Walking(task)
    eventually("it works", lambda: bgworkers(walked.session, walking.task_id))
    with psycopg.connect(dsn, autocommit=True) as other:
        eventually(
            "it has locks",
            lambda: (
                walked.session.execute(f"SELECT FROM {walked.name} WHERE id = 400 FOR UPDATE SKIP LOCKED").rowcount == 0
                or walked.session.execute(f"SELECT FROM {walked.name} WHERE id = 1 FOR UPDATE SKIP LOCKED").rowcount
                == 0
            ),
        )
        other.execute(f"UPDATE {walked.name} SET v = 0 WHERE id = 1")
    size = "SELECT batch_rows FROM celery_pgbg.walk WHERE walk_id = %s"
    assert eventually("a batch", lambda: walked.session.execute(size, [walking.task_id]).fetchone())[0] <= 100
    walking.watch.interrupt(Interruption.REVOKE)
    walking.wait()


def test_a_paused_walk_waits_and_a_resumed_one_goes_on(slowly: Callable[..., Any], walked: Walked) -> None:
    walking = Walking(slowly())
    eventually("it has begun", lambda: _done(walked, walking) > 2)

    assert walk_control.pause(walked.session, walking.task_id)
    eventually("it shows that", lambda: "paused" in walking.progress(walked.session)[1])
    done = _done(walked, walking)
    [shown] = [row for row in operations.executions(walked.session, 0) if row["task_id"] == walking.task_id]
    assert shown["progress_message"].endswith("paused")
    assert done == _done(walked, walking)

    assert walk_control.unpause(walked.session, walking.task_id) is not None
    assert isinstance(walking.wait(), Returned)
    assert walked.noted() == walked.each_once()
    assert not walk_control.pause(walked.session, walking.task_id)


def test_a_condition_of_the_users_own_lets_it_wait(slowly: Callable[..., Any], walked: Walked) -> None:
    task = slowly(
        wait_while=f"SELECT count(*) BETWEEN 20 AND 300 AND NOT EXISTS (SELECT FROM {walked.log} WHERE key = 'go')"
        f" FROM {walked.log}"
    )
    walking = Walking(task)
    eventually("it waits", lambda: "condition" in walking.progress(walked.session)[1])
    assert walked.noted().total() == 20

    walked.session.execute(f"INSERT INTO {walked.log} (key) VALUES ('go')")
    assert isinstance(walking.wait(), Returned)
    assert walked.noted() == {**walked.each_once(), "go": 1}


def test_progress_grows_to_a_hundred(slowly: Callable[..., Any], walked: Walked) -> None:
    walking = Walking(slowly())
    seen = {0}

    def look() -> bool:
        seen.add(walking.progress(walked.session)[0] or 0)
        return walking.ending is not None

    eventually("its end", look)
    assert len(seen) > 5
    assert walking.progress(walked.session) == (100, f"{walking.ending.value['rows']} rows in 60 batches")


def test_rows_that_come_while_it_walks_are_not_its_rows_beyond_the_end(
    slowly: Callable[..., Any], walked: Walked
) -> None:
    walking = Walking(slowly())
    eventually("it has begun", lambda: _done(walked, walking) > 2)
    walked.session.execute(f"INSERT INTO {walked.name} VALUES (301, 0), (-1, 0)")

    assert isinstance(walking.wait(), Returned)
    assert walked.noted() == walked.each_once(where="id BETWEEN 1 AND 300")


def test_ranges_share_the_table_whichever_begins(batched: Callable[..., Any], walked: Walked) -> None:
    walked.make("a integer, b text, PRIMARY KEY (a, b)", "SELECT g % 7, md5(g::text) FROM generate_series(1, 500) g")
    task = batched(walked.noting("b"), walked.name, ("a", "b"), max_batch_rows=30)
    parts = task.in_ranges(4).tasks
    threads = [threading.Thread(target=part.apply, kwargs={"throw": True}) for part in random.sample(parts, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert walked.noted() == walked.each_once("b")
    rows = walked.session.execute(
        "SELECT row_count FROM celery_pgbg.walk WHERE table_name = %s ORDER BY 1", [walked.name]
    ).fetchall()
    assert rows == [(125,)] * 4


def test_more_ranges_than_rows(batched: Callable[..., Any], walked: Walked) -> None:
    walked.make("id integer PRIMARY KEY", "SELECT generate_series(1, 2)")
    for part in batched(walked.noting(), walked.name).in_ranges(4).tasks:
        part.apply(throw=True)
    assert walked.noted() == walked.each_once()


def test_a_role_sees_and_changes_its_own_rows(batched: Callable[..., Any], walked: Walked, database: Database) -> None:
    role = f"role_{walked.name}"
    walked.make(
        "id integer PRIMARY KEY, who text",
        f"SELECT g, CASE WHEN g % 3 = 0 THEN '{role}' ELSE 'x' END FROM generate_series(1, 60) g",
    )
    database.execute(
        f"CREATE ROLE {role}; GRANT SELECT ON {walked.name} TO {role}; GRANT INSERT ON {walked.log} TO {role}"
    )
    try:
        database.execute(f"ALTER TABLE {walked.name} ENABLE ROW LEVEL SECURITY")
        database.execute(f"CREATE POLICY own ON {walked.name} USING (who = current_user)")
        batched(walked.noting("id || current_user"), walked.name, role=role, max_batch_rows=4)()
        assert walked.noted() == walked.each_once(f"id || '{role}'", where="id % 3 = 0")
    finally:
        walked.drop()
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_time_limit_that_the_role_has_is_none_of_the_whole_walk(
    app: Celery, slowly: Callable[..., Any], walked: Walked, dsn: str
) -> None:
    app.conf.pgbg_dsn = f"{dsn}?options=-c%20statement_timeout%3D200ms"
    assert isinstance(Walking(slowly()).wait(), Returned)
    assert walked.noted() == walked.each_once()


def test_values_that_look_like_the_placeholder_are_values(app: Celery, walked: Walked) -> None:
    walked.make("id integer PRIMARY KEY", "SELECT generate_series(1, 3)")

    @app.task(base=BatchedSQLTask, shared=False, table=walked.name, key="id", name=f"shop.{walked.name}")
    def note(prefix: str) -> Any:
        statement = psycopg.sql.SQL(
            "INSERT INTO {log} (key) SELECT %(prefix)s || {infix} || t.id || '%%' FROM {table} AS t WHERE {{batch:t}}"
        )
        return statement.format(
            log=psycopg.sql.Identifier(walked.log), table=psycopg.sql.Identifier(walked.name), infix="{batch}"
        )

    note("{batch:t}")
    assert walked.noted() == {f"{{batch:t}}{{batch}}{number}%": 1 for number in (1, 2, 3)}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"table": None}, "table must be"),
        ({"key": ()}, "key must be"),
        ({"batch_seconds": 0}, "batch_seconds must be"),
        ({"max_batch_rows": 1.5}, "max_batch_rows must be a whole number"),
        ({"max_replication_lag": True}, "max_replication_lag must be"),
        ({"wait_while": " "}, "wait_while must be"),
        ({"atomic": False}, "neither atomic=False nor reuse=True"),
        ({"reuse": True}, "neither atomic=False nor reuse=True"),
        ({"returns": "rows"}, "takes no returns="),
        ({"settings": {"Statement_Timeout": "1s"}}, "statement_timeout"),
    ],
)
def test_wrong_options_are_refused_when_the_task_is_defined(
    batched: Callable[..., Any], options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(TaskDefinitionError, match=expected):
        _ = batched("DELETE FROM t WHERE {batch}", **{"table": "t", **options}).name


def test_a_statement_without_the_placeholder_is_refused(batched: Callable[..., Any], walked: Walked) -> None:
    with pytest.raises(TaskDefinitionError, match="needs the placeholder"):
        batched(f"DELETE FROM {walked.log}", walked.log)()


@pytest.mark.parametrize("header", ["x", {"walk_id": 1}, {"split": "s", "part": 3, "parts": 2}, {"other": 1}])
def test_a_message_that_we_did_not_write_is_refused(batched: Callable[..., Any], header: Any) -> None:
    task = batched("DELETE FROM t WHERE {batch}", "t")
    with pytest.raises(BindingError, match="a form that celery-pgbg does not write"):
        task.apply(headers={HEADER: header}, throw=True)
