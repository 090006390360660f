"""The result backend ``pgbg+postgresql://``: any Celery result, kept in PostgreSQL."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any, TypeVar

import psycopg
from celery import states
from celery.backends import base
from celery.exceptions import ImproperlyConfigured
from celery.result import ResultSet, result_from_tuple
from celery.utils.time import get_exponential_backoff_interval

from celery_pgbg.backend.arrivals import Arrivals
from celery_pgbg.backend.chords import Chords
from celery_pgbg.backend.parents import Parents, parents_of
from celery_pgbg.backend.task_metas import EarlyMeta, TaskMeta, TaskMetas
from celery_pgbg.backend.urls import ResultURL
from celery_pgbg.configuration import settings_of
from celery_pgbg.database.result_rows import Reference
from celery_pgbg.database.results import ResultStore, store_of
from celery_pgbg.errors import SessionLost
from celery_pgbg.orders import Identity
from celery_pgbg.tasks.results import says_its_outcome
from celery_pgbg.tasks.task import SQLTask

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: How often a call is repeated while a caller may be waiting, such as the saving of a group.
_BRIEF_RETRIES = 10


class PostgresBackend(base.BaseBackend):
    """Keeps task meta, groups and chords in the schema ``celery_pgbg``.

    If a SQL task ran in the same database, its value is not stored a second time: the outcome is the value, readable
    as soon as the statement commits, with or without a Celery worker.

    Args:
        app: the Celery app.
        url: ``postgresql://...`` or ``pgbg://...``; without an address, ``pgbg_dsn`` is used.
    """

    persistent = True
    supports_autoexpire = False
    supports_native_join = True
    supports_result_compression = True
    supports_failure_expires = True

    def __init__(self, app: Any, url: str | None = None, **options: Any) -> None:
        super().__init__(app, url=url, **options)
        # All threads of a process share the few sessions of its store.
        self.thread_safe = True
        self._url = ResultURL.parse(url)
        self.metas = TaskMetas(self)
        self._chords = Chords(self)

    def as_uri(self, include_password: bool = False) -> str:
        """The URL, for people to read."""
        dsn = self._url.dsn or settings_of(self.app).dsn
        return ResultURL.describe(dsn, include_password)

    def __reduce__(self, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        return super().__reduce__(args, {**(kwargs or {}), "url": self.url, "expires": self.expires})

    # --- the store and its failures --------------------------------------------------------------------

    @property
    def store(self) -> ResultStore:
        """This process's store.

        Raises:
            ConfigurationError: the URL has no address and there is no ``pgbg_dsn``, or a setting is wrong.
        """
        settings = settings_of(self.app)
        dsn = self._url.dsn or settings.dsn_of(None)
        notify = settings.notify if self._url.notify is None else self._url.notify
        return store_of(dsn, settings.connect_timeout, notify)

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Whether an error is the server's and temporary. A value too large for the server is not."""
        if isinstance(exc, psycopg.errors.ProgramLimitExceeded):
            return False
        return isinstance(exc, (SessionLost, psycopg.OperationalError))

    def patiently(self, operation: Callable[..., T], *args: Any, limit: float | None = None) -> T:
        """Do something that must not get lost: repeat it with back-off while the server cannot be reached.

        ``result_backend_max_retries`` and the settings of the pauses are Celery's; ``limit`` may be fewer.
        """
        limit = self.max_retries if limit is None else min(limit, self.max_retries)
        retries = 0
        while True:
            try:
                return operation(*args)
            except Exception as exc:
                if not self.exception_safe_to_retry(exc) or retries >= limit:
                    raise
                logger.log(logging.DEBUG if retries % 10 else logging.WARNING, "still trying to store: %s", exc)
            retries += 1
            pause_ms = get_exponential_backoff_interval(
                self.base_sleep_between_retries_ms, retries, self.max_sleep_between_retries_ms, True
            )
            self._sleep(pause_ms / 1000)

    def briefly(self, operation: Callable[..., T], *args: Any) -> T:
        """Do something that a caller may be waiting for: repeat it for some seconds."""
        return self.patiently(operation, *args, limit=_BRIEF_RETRIES)

    def is_in(self, identity: Identity) -> bool:
        """Whether this backend keeps its results in that database. Connects at the first call.

        Raises:
            SessionLost, ConfigurationError: the server cannot be reached.
        """
        return self.store.where() == identity

    def reads_outcomes_of(self, dsn: str) -> bool:
        """Whether outcomes of statements that run at this address are readable as results.

        Another address of the same database may have another role, which sees other rows.
        """
        return dsn == (self._url.dsn or settings_of(self.app).dsn_of(None))

    # --- storing -------------------------------------------------------------------------------------------

    def reference_of(self, state: str, request: Any) -> Reference | None:
        """Whether a task's value may be the outcome of its statement: the task is a SQL task."""
        if state != states.SUCCESS or not request:
            return None
        task = self.app.tasks.get(getattr(request, "task", None))
        if not isinstance(task, SQLTask) or task.wraps_its_call:
            return None
        return Reference(task.name, request.retries or 0)

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        # With result_backend_always_retry, Celery repeats this whole call.
        call = _at_once if self.always_retry else self.patiently
        meta = self._get_result_meta(result=None, state=state, traceback=traceback, request=request, format_date=False)
        reference = self.reference_of(state, request)
        if reference and says_its_outcome(request, meta):
            return result
        row = self.metas.row_of(_text(task_id), meta, getattr(request, "retries", None))
        if reference and call(self.store.store_reference, row, self.metas.no_value(), reference):
            return result
        call(self.store.store, row, self.metas.encoded(result))
        return result

    def mark_as_revoked(self, task_id: str, reason: str = "", request: Any = None, **options: Any) -> Any:
        """Store REVOKED, unless the statement runs: the process that stops the statement reports its end.

        From Celery 5.7 on, each Celery worker that receives a revoke for an unknown task calls this method, without a
        request. The Celery worker with the task may find that the statement has just succeeded.
        """
        if request is None and self.briefly(self.store.is_running, _text(task_id)):
            return None
        return super().mark_as_revoked(task_id, reason, request=request, **options)

    def hide_outcomes(self, task_id: str) -> None:
        """Called before the launch by a task whose result may differ from its statement's outcome."""
        self.briefly(self.store.hide_outcomes, _text(task_id))

    def _forget(self, task_id: str) -> None:
        self.briefly(self.store.forget, _text(task_id))

    # --- reading -------------------------------------------------------------------------------------------

    def get_task_meta(self, task_id: str, cache: bool = True) -> TaskMeta:
        """Read a task's meta.

        The meta of a success is kept in memory, unless only the outcome exists: then Celery's part, such as the
        children, is still to come.
        """
        meta: TaskMeta = super().get_task_meta(task_id, cache)
        if "children" not in meta:
            self._cache.pop(task_id, None)
        return meta

    def meta_from_decoded(self, meta: TaskMeta) -> TaskMeta:
        """Called with a meta that an ``AsyncResult`` keeps."""
        meta = super().meta_from_decoded(meta)
        if "children" in meta:
            return meta
        return EarlyMeta(meta, partial(self._read_again, meta["task_id"]))

    def _read_again(self, task_id: str) -> TaskMeta:
        """Read a meta as an ``AsyncResult`` keeps it; None while only the outcome exists."""
        meta = self.get_task_meta(task_id)
        if "children" not in meta:
            return {}
        return {**meta, "children": [result_from_tuple(child, self.app) for child in meta["children"] or ()]}

    def _get_task_meta_for(self, task_id: str) -> TaskMeta:
        return self._read_metas([_text(task_id)])[_text(task_id)]

    def _read_metas(self, task_ids: Collection[str]) -> dict[str, TaskMeta]:
        try:
            return {row.task_id: self.metas.meta_of(row) for row in self.store.read(task_ids)}
        except psycopg.DataError as exc:
            # A result that another program has written wrongly must not prevent others from being read.
            if len(task_ids) > 1:
                return {name: meta for task_id in task_ids for name, meta in self._read_metas([task_id]).items()}
            [task_id] = task_ids
            error = psycopg.DataError(f"the result of {task_id} cannot be read: {exc}")
            return {task_id: {"task_id": task_id, "status": states.FAILURE, "result": error, "traceback": None}}

    # --- waiting -------------------------------------------------------------------------------------------

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float | None = 0.5,
        no_ack: bool = True,
        on_interval: Callable[[], Any] | None = None,
        parents: Parents | None = None,
        arrivals: Arrivals | None = None,
    ) -> TaskMeta:
        """Wait for one task.

        Raises:
            celery.exceptions.TimeoutError: it did not end in time.
            Exception: a parent has failed with this error.
        """
        self._ensure_not_eager()
        arrivals = arrivals or self._arrivals()
        parents = parents or Parents((), arrivals.read, lambda: None)
        meta = next(arrivals([_text(task_id)], timeout, interval or 0.5, on_interval, parents.pending, parents.look))
        if meta["status"] in states.PROPAGATE_STATES:
            parents.look()
        return meta

    def wait_for_pending(
        self,
        result: Any,
        timeout: float | None = None,
        interval: float | None = 0.5,
        no_ack: bool = True,
        on_message: Any = None,
        on_interval: Callable[[], Any] | None = None,
        callback: Any = None,
        propagate: bool = True,
    ) -> Any:
        """Wait for an ``AsyncResult``, or for one of its parents to fail."""
        if on_message is not None:
            raise ImproperlyConfigured("Backend does not support on_message callback")
        arrivals = self._arrivals()
        parents = Parents(result._parents(), arrivals.read, on_interval or (lambda: None))
        meta = self.wait_for(result.id, timeout, interval, no_ack, parents.tick, parents, arrivals)
        result._maybe_set_cache(meta)
        return result.maybe_throw(propagate=propagate, callback=callback)

    def get_many(
        self,
        task_ids: Collection[str],
        timeout: float | None = None,
        interval: float | None = 0.5,
        no_ack: bool = True,
        on_message: Callable[[TaskMeta], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        max_iterations: int | None = None,
    ) -> Iterator[tuple[str, TaskMeta]]:
        """Yield ids and metas of tasks as they end; with ``max_iterations``, only of tasks that have ended."""
        only_now = max_iterations is not None
        wanted = {_text(task_id) for task_id in task_ids}
        arrivals = self._arrivals()(wanted, timeout, interval or 0.5, on_interval, only_now=only_now)
        return self._noted(arrivals, on_message)

    def iter_native(
        self,
        result: Any,
        timeout: float | None = None,
        interval: float | None = 0.5,
        no_ack: bool = True,
        on_message: Callable[[TaskMeta], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """Yield ids and metas of a group's members as they end, or wait for one of its parents to fail.

        Raises:
            Exception: a parent has failed with this error, so the members will never run.
        """
        self._ensure_not_eager()
        yield from ((each.id, each.results) for each in result.results if isinstance(each, ResultSet))
        wanted = {each.id for each in result.results if not isinstance(each, ResultSet)}
        if not wanted:
            return
        ancestors = list(parents_of(result))
        for each in reversed(ancestors):
            # Known metas are not read again below.
            if getattr(each, "_cache", None):
                each.maybe_throw()
        arrivals = self._arrivals()
        parents = Parents(ancestors, arrivals.read, lambda: [each.maybe_throw() for each in reversed(ancestors)])
        metas = arrivals(wanted, timeout, interval or 0.5, on_interval, parents.pending, parents.look)
        yield from self._noted(metas, on_message)

    def _noted(
        self, arrivals: Iterator[TaskMeta], on_message: Callable[[TaskMeta], Any] | None
    ) -> Iterator[tuple[str, TaskMeta]]:
        for meta in arrivals:
            if "children" in meta:
                self._cache[meta["task_id"]] = meta
            if on_message is not None:
                on_message(meta)
            yield meta["task_id"], meta

    def _arrivals(self) -> Arrivals:
        poll_interval = settings_of(self.app).poll_interval
        notifications = self.store.notifications
        return Arrivals(self._known_metas, self.exception_safe_to_retry, self.max_retries, notifications, poll_interval)

    def _known_metas(self, task_ids: Collection[str]) -> dict[str, TaskMeta]:
        """Read metas; metas of ended tasks come from memory."""
        known = {task_id: meta for task_id in task_ids if (meta := self._cache.get(task_id)) is not None}
        rest = [task_id for task_id in task_ids if task_id not in known]
        return known | (self._read_metas(rest) if rest else {})

    # --- groups and chords ------------------------------------------------------------------------------------

    def _save_group(self, group_id: str, result: Any) -> Any:
        self.briefly(self.store.store_group, _text(group_id), self.metas.encoded({"result": result.as_tuple()}))
        return result

    def _restore_group(self, group_id: str) -> TaskMeta | None:
        found = self.store.read_group(_text(group_id))
        if found is None or found.value is None:
            return None
        saved = self.metas.decoded(found.value, found.content_type, found.content_encoding)
        return {"task_id": group_id, "result": result_from_tuple(saved["result"], self.app)}

    def _delete_group(self, group_id: str) -> None:
        self.briefly(self.store.delete_group, _text(group_id))

    def apply_chord(self, header_result_args: tuple[Any, ...], body: Any, **kwargs: Any) -> None:
        """Called before a chord's header is sent."""
        self.ensure_chords_allowed()
        self._chords.apply(header_result_args)

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Called before the last member of a chord's header is sent."""
        self.briefly(self.store.set_chord_size, _text(group_id), chord_size)

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """Called when a running member adds another."""
        self.briefly(self.store.add_chord_member, _text(chord_id), _text(result.id))

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """Called when a member of a chord's header has ended."""
        self._chords.on_part_return(request, state, result)

    # --- expiry ---------------------------------------------------------------------------------------------------

    def cleanup(self) -> None:
        """Delete results older than ``result_expires``; called by the task ``celery.backend_cleanup``."""
        conf = self.app.conf
        # Both came with Celery 5.7.
        given = conf.get("result_failure_expires"), conf.get("result_chord_expires")
        failure, chord = (self.prepare_expires(self.expires if age is None else age) for age in given)
        self.briefly(self.store.delete_expired, self.expires or None, failure or None, chord or None)


def _at_once(operation: Callable[..., T], *args: Any) -> T:
    return operation(*args)


def _text(name: Any) -> str:
    """Celery takes ids as text, bytes and UUID."""
    return name.decode() if isinstance(name, bytes) else str(name)
