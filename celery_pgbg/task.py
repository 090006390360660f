"""The task class whose body returns SQL, and its decorator."""

from __future__ import annotations

import inspect
import socket
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial, wraps
from typing import Any, ClassVar

from celery import Task, shared_task, states
from celery.exceptions import Ignore, SoftTimeLimitExceeded, WorkerLostError
from kombu.utils.imports import symbol_by_name

from celery_pgbg import json_types
from celery_pgbg.database.stopping import REVOKED
from celery_pgbg.database.values import to_exception
from celery_pgbg.errors import BindingError, LostTooOften, ResultTooLarge, TaskDefinitionError
from celery_pgbg.handles import Attempt
from celery_pgbg.options import TaskOptions
from celery_pgbg.orders import Interruption, Order, Watch
from celery_pgbg.outcomes import Cancelled, Detached, Ending, ErrorReport, Lost, Raised, Returned, Returns
from celery_pgbg.runners import borrowed_runner, settings_of
from celery_pgbg.statements import to_query
from celery_pgbg.taskrun import StatementLeft, StatementLost, StatementRevoked, TaskRun, current_run

json_types.register()


class SQLTask(Task):
    """A task whose body returns the statement; a background worker in the server runs it.

    The statement's placeholders, ``%(name)s``, are bound from the task's arguments of the same
    names; ``%%`` is a percent sign. The body may return a ``str``, a ``(str, params)`` pair, a
    ``psycopg.sql.Composable``, a template string or a SQLAlchemy Core statement. Several statements
    separated by semicolons run in order in one transaction; the last one's rows are the result.

    Failures are psycopg's exception classes.
    """

    abstract = True
    Request: ClassVar[Any] = "celery_pgbg.request:SQLRequest"

    #: In a transaction with its outcome. False for what must stand alone: VACUUM, CREATE INDEX
    #: CONCURRENTLY, CALL with COMMIT inside.
    atomic: ClassVar[bool] = True
    #: For short tasks: may run in a background worker that has run another such task, and leave it to others,
    #: which saves making a process. Without effect with ``atomic=False`` and with ``settings``.
    reuse: ClassVar[bool] = False
    #: Shape of the value: ``rows`` (list of dicts), ``row``, ``value`` or ``count``. None: rows where
    #: the statement returns rows, else the count.
    returns: ClassVar[Returns | None] = None
    #: Alias in ``pgbg_databases``. None: ``pgbg_dsn``.
    database: ClassVar[str | None] = None
    #: Role to run as; the connection's role must be a member. None: the connection's role.
    role: ClassVar[str | None] = None
    #: Configuration parameters of PostgreSQL for this task's statement only.
    settings: ClassVar[Mapping[str, Any] | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Keep the body under its own name: what Celery calls ``run`` runs the statement."""
        super().__init_subclass__(**kwargs)
        body = inspect.getattr_static(cls, "run")
        if body is not Task.run and not hasattr(body, "runs_statement"):
            cls.body = body
            cls.body_signature = inspect.signature(body.__func__ if isinstance(body, staticmethod) else body)
            cls.run = _running(body)
        if "atomic" in cls.__dict__ and not cls.atomic:
            _default(cls, acks_late=False, reject_on_worker_lost=False)
        options = TaskOptions.of(cls)
        options.check(f"task {cls.__dict__.get('name') or cls.__name__}")

    # Safe, because a redelivery never runs a statement twice; see the defaults of atomic=False above.
    acks_late = True
    reject_on_worker_lost = True

    body: Callable[..., Any]
    body_signature: ClassVar[inspect.Signature]

    def run_statement(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the statement that the body makes of these arguments, and wait for its outcome."""
        order = self.make_order(args, kwargs)
        if self.wraps_its_call and self._is_sent and hasattr(self.backend, "hide_outcomes"):
            self.backend.hide_outcomes(self.request.id)
        task_run = current_run(self.request.id)
        watch = Watch(order.attempt, on_accepted=partial(self._accepted, task_run))
        if task_run:
            task_run.follow(watch)
        try:
            with borrowed_runner(self.app, self.database) as runner:
                ending = runner.run(order, watch)
        except BindingError as exc:
            raise BindingError(f"{self.name}: {exc}") from exc
        return self._conclude(ending, watch, task_run)

    def _accepted(self, task_run: TaskRun | None, pid: int) -> None:
        """Tell the request and, where the start is tracked, the result backend which process runs the task."""
        if task_run:
            task_run.accept(pid)
        if self.track_started and self._is_sent and not self._ignores_result:
            started = {"pid": pid, "hostname": self.request.hostname}
            self.backend.store_result(self.request.id, started, states.STARTED, request=self.request)

    @property
    def wraps_its_call(self) -> bool:
        """Whether it has a ``__call__`` of its own, which may return something else than its statement did."""
        return bool(type(self).__call__ is not Task.__call__)

    @property
    def _is_sent(self) -> bool:
        """Whether a message made it run: not a direct call, not ``apply``."""
        return not (self.request.called_directly or self.request.is_eager)

    @property
    def _ignores_result(self) -> bool:
        # Not its attribute, whose default hides that nothing was said.
        asked = vars(self.request).get("ignore_result")
        return bool(self.ignore_result if asked is None else asked)

    def start_strategy(self, app: Any, consumer: Any, **kwargs: Any) -> Any:
        """Called by each Celery worker; a request class of the task's own is put on top of ours."""
        from celery_pgbg.request import with_our_ends

        type(self).Request = with_our_ends(symbol_by_name(self.Request))
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
        """Call the body, and put its statement together with the arguments and the options.

        Raises:
            TaskDefinitionError: the body returned something that is no statement.
            TypeError: the arguments do not fit the body's parameters.
        """
        query, params = to_query(self.name, self._call_body(args, kwargs), self._arguments(args, kwargs))
        configured = settings_of(self.app)
        options = TaskOptions.of(type(self))
        return Order(
            attempt=self._attempt(),
            task_name=self.name,
            nodename=self.request.hostname or socket.gethostname(),
            query=query,
            params=params,
            returns=options.returns,
            atomic=options.atomic,
            reuse=options.reuse,
            role=options.role,
            settings=options.normalised_settings(),
            max_result_bytes=configured.max_result_bytes,
            notify=configured.notify,
            ignore_result=self._ignores_result,
        )

    def _call_body(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return self.body(*args, **kwargs)
        except SystemExit as exc:
            if isinstance(exc.code, int) and exc.code < 0:
                # Not the body's: billiard's, for a signal that ends this process of prefork.
                raise
            # Celery would take it for the death of a process, and run the task again and again.
            raise TaskDefinitionError(f"{self.name}: the body called for an exit, {exc!r}") from exc

    def _attempt(self) -> Attempt:
        if self.request.called_directly or not self.request.id:
            return Attempt(f"direct-{uuid.uuid4()}")
        return Attempt(self.request.id, self.request.retries or 0)

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
            case Raised(report) if report.message == REVOKED and report.sqlstate == "57014":
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
                    task_run.tell_timeout(soft=True)
                error = SoftTimeLimitExceeded(f"{self.name}: its statement was cancelled")
            case Interruption.HARD_TIME_LIMIT:
                # The request stores the failure itself.
                if task_run:
                    task_run.tell_timeout(soft=False)
                error = Ignore()
            case Interruption.SHUTDOWN:
                error = StatementLeft("cancelled by the shutdown of the Celery worker")
            case _:
                error = StatementRevoked()
        return error


def _running(body: Any) -> Callable[..., Any]:
    """Make the ``run`` of a task class; Celery looks at its signature for a ``retry`` with other arguments."""

    def run(self: SQLTask, *args: Any, **kwargs: Any) -> Any:
        return self.run_statement(args, kwargs)

    function = body.__func__ if isinstance(body, staticmethod) else body
    signature = inspect.signature(function)
    if isinstance(body, staticmethod):
        itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        # A parameter that may be given by position only must come first.
        signature = signature.replace(parameters=[itself, *signature.parameters.values()])
    run = wraps(function)(run)
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.runs_statement = True  # type: ignore[attr-defined]
    return run


def _default(cls: type[SQLTask], **values: Any) -> None:
    """Set what the class does not say itself."""
    for name, value in values.items():
        if name not in cls.__dict__:
            setattr(cls, name, value)


#: What mends a statement that cannot run where it did, by ``atomic`` and SQLSTATE.
_HINTS = {
    (True, "25001"): "Give the task atomic=False: its statement cannot run inside a transaction block.",
    (True, "2D000"): "Give the task atomic=False, and the procedure may COMMIT.",
    (True, "25006"): "The outcome is written in the same transaction: default_transaction_read_only must be off, "
    "and with a standby, pgbg_dsn needs target_session_attrs=read-write.",
    (False, "25001"): "A task with atomic=False takes one statement alone.",
}


def _exception(report: ErrorReport, task: SQLTask) -> Exception:
    if report.sqlstate == "54000" and report.fields.get("table_name") == "celery_pgbg.outcome":
        return ResultTooLarge(f"{task.name}: {report.message}. {report.fields.get('message_hint', '')}")
    hint = _HINTS.get((task.atomic, report.sqlstate))
    if hint and "message_hint" not in report.fields:
        report = replace(report, fields={**report.fields, "message_hint": hint})
    return to_exception(report)


def sql_task(*args: Any, **options: Any) -> Any:
    """Make a function into a SQL task of whatever app is current: ``shared_task`` with our base.

    Usable as ``@sql_task`` and as ``@sql_task(returns="value", ...)``; takes the options of
    ``SQLTask`` and every option of Celery's tasks.
    """
    options.setdefault("base", SQLTask)
    if not issubclass(options["base"], SQLTask):
        raise TaskDefinitionError(f"sql_task: base must be a subclass of SQLTask, got {options['base'].__name__}")
    return shared_task(*args, **options)
