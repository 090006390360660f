"""The task class whose body returns SQL, and its decorator."""

from __future__ import annotations

import inspect
import logging
import socket
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial, wraps
from typing import Any, ClassVar

from celery import Task, states
from celery.exceptions import Ignore, SoftTimeLimitExceeded, WorkerLostError
from celery.utils.log import get_task_logger
from kombu.utils.imports import symbol_by_name

from celery_pgbg.configuration import settings_of
from celery_pgbg.database.values import to_exception
from celery_pgbg.errors import BindingError, LostTooOften, MessageRefused, ResultTooLarge, TaskDefinitionError
from celery_pgbg.handles import Attempt
from celery_pgbg.orders import Order
from celery_pgbg.outcomes import Cancelled, Detached, Ending, ErrorReport, Lost, Raised, Returned, Returns
from celery_pgbg.runners import borrowed_runner
from celery_pgbg.tasks.calls import HEADER, checked_call, options_of_call
from celery_pgbg.tasks.fields import REFUSED
from celery_pgbg.tasks.last_steps import message_that_ends
from celery_pgbg.tasks.options import TaskOptions, check_body, check_spelling
from celery_pgbg.tasks.results import note_outcome, task_meta_of_success
from celery_pgbg.tasks.rows_as import with_rows_as
from celery_pgbg.tasks.statements import to_query
from celery_pgbg.tasks.taskrun import StatementLeft, StatementLost, StatementRevoked, TaskRun, current_run
from celery_pgbg.texts import storable
from celery_pgbg.watch import Interruption, Watch

#: Log levels of PostgreSQL's severities that are not INFO.
_LOG_LEVELS = (
    {"WARNING": logging.WARNING}
    | {f"DEBUG{number}": logging.DEBUG for number in range(1, 6)}
    | {"DEBUG": logging.DEBUG}
)


class SQLTask(Task):
    """A task whose body returns the statement; a background worker in the server runs it.

    The statement's placeholders, ``%(name)s``, are bound from the task's arguments of the same
    names; ``%%`` is a percent sign. The body may return a ``str``, a ``(str, params)`` pair, a
    ``psycopg.sql.Composable``, a template string or a SQLAlchemy Core statement. Several statements
    separated by semicolons run in order in one transaction; the last one's rows are the result.

    Failures are psycopg's exception classes.
    """

    abstract = True
    Request: ClassVar[Any] = "celery_pgbg.tasks.request:SQLRequest"

    #: Whether the statement and its outcome are in one transaction. False for statements that must stand alone:
    #: VACUUM, CREATE INDEX CONCURRENTLY, CALL with COMMIT inside.
    atomic: ClassVar[bool] = True
    #: For short tasks: whether the task may share a background worker, one task after another, which saves starting a
    #: process. No effect with ``atomic=False``, ``settings``, or ``pgbg_store_sql = False``.
    reuse: ClassVar[bool] = False
    #: Shape of the value: ``rows`` (list of dicts), ``row``, ``value`` or ``count``. None: rows if the statement
    #: returns rows, else the count; with ``atomic=False`` the command tag, or rows with ``rows_as``.
    returns: ClassVar[Returns | None] = None
    #: A dataclass, NamedTuple, TypedDict or pydantic model, which ``get()`` and a direct call make of each row. None:
    #: dicts.
    rows_as: ClassVar[type | None] = None
    #: Alias in ``pgbg_databases``. None: ``pgbg_dsn``.
    database: ClassVar[str | None] = None
    #: Role to run as; the connection's role must be a member. None: the connection's role.
    role: ClassVar[str | None] = None
    #: While the statement runs, Celery's state becomes PROGRESS, with ``percent`` and ``message`` as its ``info``, and
    #: events ``task-progress`` are sent. ``pgbg ps`` and ``show_progress`` show progress without this option.
    track_progress: ClassVar[bool] = False
    #: With ``atomic=False``: whether an invalid index that CREATE INDEX or REINDEX CONCURRENTLY left is dropped and
    #: made again: at once after a deadlock or a lock timeout, else by the next run.
    retry_invalid: ClassVar[bool] = False
    #: Configuration parameters of PostgreSQL for this task's statement only.
    settings: ClassVar[Mapping[str, Any] | None] = None
    #: What one call may choose with ``apply_async(..., pgbg={...})``: names of ``settings``, ``role``s and
    #: ``database``s; True allows any. Every sender of the task may then choose them.
    per_call: ClassVar[Mapping[str, Collection[str] | bool]] = {
        "settings": ("default_transaction_isolation", "lock_timeout", "statement_timeout")
    }

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Keep the body under its own name, because Celery's ``run`` now runs the statement."""
        super().__init_subclass__(**kwargs)
        body = inspect.getattr_static(cls, "run")
        if body is not Task.run and not hasattr(body, "runs_statement"):
            cls.body = body
            cls.body_signature = inspect.signature(body.__func__ if isinstance(body, staticmethod) else body)
            cls.run = _running(body)
        if "atomic" in cls.__dict__ and not cls.atomic:
            _default(cls, acks_late=False, reject_on_worker_lost=False)
        owner = f"task {cls.__dict__.get('name') or cls.__name__}"
        check_body(cls.__dict__.get("body"), owner)
        check_spelling(cls, owner)
        TaskOptions.of(cls).check(owner)

    # Safe, because a redelivery never runs a statement twice; see the defaults of atomic=False above.
    acks_late = True
    reject_on_worker_lost = True

    body: Callable[..., Any]
    body_signature: ClassVar[inspect.Signature]

    def run_statement(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the body with these arguments, run its statement, and wait for the outcome."""
        if refused := vars(self.request).get(REFUSED):
            raise MessageRefused(f"{self.name}: {refused}")
        order = self.make_order(args, kwargs)
        if (self.wraps_its_call or order.read) and self._is_sent and hasattr(self.backend, "hide_outcomes"):
            self.backend.hide_outcomes(self.request.id)
        task_run = current_run(self.request.id)
        watch = (task_run and task_run.watch) or Watch(order.attempt)
        watch.begin(partial(self._accepted, task_run), self._progressed)
        try:
            with borrowed_runner(self.app, self.options_now().database) as runner:
                ending = runner.run(order, watch)
        except BindingError as exc:
            raise BindingError(f"{self.name}: {exc}") from exc
        for severity, text in watch.notices:
            get_task_logger(self.name).log(_LOG_LEVELS.get(severity, logging.INFO), "%s: %s", severity, text)
        value = self._conclude(ending, watch, task_run)
        note_outcome(self.request, ending.task_meta if isinstance(ending, Returned) else None)
        if order.message and task_run:
            task_run.note_that_message_has_ended()
        value = order.read(value, order.returns) if order.read else value
        return value if self._is_sent else with_rows_as(self.rows_as, value)

    def AsyncResult(self, task_id: str, **kwargs: Any) -> Any:  # noqa: N802 - Celery's name
        """Celery's ``AsyncResult``; its ``get`` makes rows into objects of ``rows_as``."""
        result = super().AsyncResult(task_id, **kwargs)
        if self.rows_as is not None:
            get = result.get
            result.get = lambda *args, **options: with_rows_as(self.rows_as, get(*args, **options))
        return result

    def _accepted(self, task_run: TaskRun | None, pid: int) -> None:
        """Report the process that runs the task to the request, and to the result backend if starts are tracked."""
        if task_run:
            task_run.accept(pid)
        if self.track_started and self._is_sent and not self.ignores_result:
            started = {"pid": pid, "hostname": self.request.hostname}
            self.backend.store_result(self.request.id, started, states.STARTED, request=self.request)

    def _progressed(self, percent: int | None, message: str | None) -> None:
        """If progress is tracked, report it to the result backend and to event monitors."""
        if not (self.track_progress and self._is_sent):
            return
        meta = {"percent": percent, "message": message}
        if not self.ignores_result:
            self.backend.store_result(self.request.id, meta, "PROGRESS", request=self.request)
        self.send_event("task-progress", **meta)

    @property
    def wraps_its_call(self) -> bool:
        """Whether the task has its own ``__call__``, which may return another value than the statement."""
        return bool(type(self).__call__ is not Task.__call__)

    @property
    def _is_sent(self) -> bool:
        """Whether a message started the task: not a direct call, not ``apply``."""
        return not (self.request.called_directly or self.request.is_eager)

    @property
    def ignores_result(self) -> bool:
        """Whether Celery keeps no result of the running call."""
        # Not the attribute: its default hides that the call did not set it.
        asked = vars(self.request).get("ignore_result")
        return bool(self.ignore_result if asked is None else asked)

    def options_now(self) -> TaskOptions:
        """The options of the running call.

        Raises:
            TaskDefinitionError: the call asks for an option that the task does not allow.
        """
        # A message's headers become fields of the request; the headers of an eager call stay headers.
        return options_of_call(self, vars(self.request).get(HEADER) or (self.request.headers or {}).get(HEADER))

    def apply_async(self, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> Any:
        """Send the task; takes Celery's options, and ``pgbg={"settings": {...}, "role": ..., "database": ...}``.

        Raises:
            TaskDefinitionError: one of the task's own options, or an option that the task does not allow.
        """
        return super().apply_async(args, kwargs, *rest, **checked_call(self, options))

    def start_strategy(self, app: Any, consumer: Any, **kwargs: Any) -> Any:
        """Called by each Celery worker: puts the task's own request class on top of ours."""
        from celery_pgbg.tasks.request import for_pool, with_our_ends

        type(self).Request = for_pool(getattr(consumer, "pool", None), with_our_ends(symbol_by_name(self.Request)))
        return super().start_strategy(app, consumer, **kwargs)

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """With Django: send the task when the current transaction commits, as Celery's ``DjangoTask`` does."""
        from celery.contrib.django.task import DjangoTask

        DjangoTask.delay_on_commit(self, *args, **kwargs)

    def apply_async_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """With Django: the same with the options of ``apply_async``."""
        from celery.contrib.django.task import DjangoTask

        DjangoTask.apply_async_on_commit(self, *args, **kwargs)

    def make_order(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Order:
        """Call the body, and combine its statement with the arguments and the options.

        Raises:
            TaskDefinitionError: the body did not return a statement.
            TypeError: the arguments do not fit the body's parameters.
        """
        query = to_query(self.name, self._call_body(args, kwargs), self._arguments(args, kwargs))
        configured = settings_of(self.app)
        options = self.options_now()
        return Order(
            attempt=self._attempt(),
            task_name=storable(self.name),
            nodename=storable(self.request.hostname or socket.gethostname()),
            query=query.query,
            params=query.params,
            read=query.read,
            returns=options.returns or ("rows" if options.rows_as else None),
            atomic=options.atomic,
            # A reusable background worker takes its orders from a table.
            reuse=options.reuse and configured.store_sql,
            role=options.role,
            settings=options.normalised_settings(),
            max_result_bytes=configured.max_result_bytes,
            notify=configured.notify,
            ignore_result=self.ignores_result,
            retry_invalid=options.retry_invalid,
            message=None if query.read else message_that_ends(self),
            task_meta=None if query.read else task_meta_of_success(self, options.database),
        )

    def _call_body(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return self.body(*args, **kwargs)
        except SystemExit as exc:
            if isinstance(exc.code, int) and exc.code < 0:
                # This exit is not the body's: billiard raises it for a signal that ends this prefork process.
                raise
            # Celery would treat it as the death of a process, and run the task again and again.
            raise TaskDefinitionError(f"{self.name}: the body raised {exc!r}") from exc

    def _attempt(self) -> Attempt:
        if self.request.called_directly or not self.request.id:
            return Attempt(f"direct-{uuid.uuid4()}")
        return Attempt.of_message(self.request.id, self.request.retries)

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Give each argument its parameter's name, defaults included."""
        bound = (self, *args) if not isinstance(inspect.getattr_static(self, "body"), staticmethod) else args
        arguments = self.body_signature.bind(*bound, **kwargs)
        arguments.apply_defaults()
        named: dict[str, Any] = {}
        for name, parameter in self.body_signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                named |= arguments.arguments[name]
            else:
                named[name] = arguments.arguments[name]
        return named

    def _conclude(self, ending: Ending, watch: Watch, task_run: TaskRun | None) -> Any:
        match ending:
            case Returned(value):
                return value
            case Raised(report) if report.stopped == "revoked":
                raise StatementRevoked
            case Raised(report):
                raise _exception(report, self)
            case Lost(reason, hopeless=True):
                raise LostTooOften(f"{self.name}[{watch.attempt}]: {reason}")
            case Lost(reason):
                message = f"{self.name}[{watch.attempt}]: {reason}"
                raise StatementLost(message) if self._is_sent else WorkerLostError(message)
            case Detached():
                raise StatementLeft("left running by its Celery worker")
            case Cancelled():
                raise self._cancelled(watch.interruption, task_run)

    def _cancelled(self, interruption: Interruption | None, task_run: TaskRun | None) -> Exception:
        error: Exception
        match interruption:
            case Interruption.SOFT_TIME_LIMIT:
                if task_run:
                    task_run.report_timeout(soft=True)
                error = SoftTimeLimitExceeded(f"{self.name}: its statement was cancelled")
            case Interruption.HARD_TIME_LIMIT:
                # The request stores the failure itself.
                if task_run:
                    task_run.report_timeout(soft=False)
                error = Ignore()
            case Interruption.SHUTDOWN:
                error = StatementLeft("cancelled by the shutdown of the Celery worker")
            case _:
                error = StatementRevoked()
        return error


def _running(body: Any) -> Callable[..., Any]:
    """Make the ``run`` of a task class; Celery reads its signature for a ``retry`` with other arguments."""

    def run(self: SQLTask, *args: Any, **kwargs: Any) -> Any:
        return self.run_statement(args, kwargs)

    function = body.__func__ if isinstance(body, staticmethod) else body
    signature = inspect.signature(function)
    if isinstance(body, staticmethod):
        itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        # A positional-only parameter must come first.
        signature = signature.replace(parameters=[itself, *signature.parameters.values()])
    run = wraps(function)(run)
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.runs_statement = True  # type: ignore[attr-defined]
    return run


def _default(cls: type[SQLTask], **values: Any) -> None:
    """Set the defaults that the class does not set itself."""
    for name, value in values.items():
        if name not in cls.__dict__:
            setattr(cls, name, value)


#: Advice for a statement that cannot run with this ``atomic``, by ``atomic`` and SQLSTATE.
_HINTS = {
    (True, "2D000"): "Give the task atomic=False, and the procedure may COMMIT.",
}

#: Not even the outcome could be written, so the statement did not make the transaction read only.
_READ_ONLY = (
    "The outcome is written in the same transaction: default_transaction_read_only must be off, "
    "and with a standby, pgbg_dsn needs target_session_attrs=read-write."
)


def _exception(report: ErrorReport, task: SQLTask) -> Exception:
    if report.sqlstate == "54000" and report.fields.get("table_name") == "celery_pgbg.outcome":
        return ResultTooLarge(f"{task.name}: {report.message}. {report.fields.get('message_hint', '')}")
    is_read_only = task.atomic and report.sqlstate == "25006" and report.without_outcome
    hint = _READ_ONLY if is_read_only else _HINTS.get((task.atomic, report.sqlstate))
    if hint and "message_hint" not in report.fields:
        report = replace(report, fields={**report.fields, "message_hint": hint})
    return to_exception(report)
