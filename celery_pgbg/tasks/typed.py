"""Types of SQL tasks for mypy and pyright; nothing in this module is used at run time.

The type of ``get()`` follows from ``returns`` and ``atomic``. The arguments of ``delay``, ``si`` and a direct call are
those of the body. The arguments of ``s`` are not checked, because a chain adds more; those of ``apply_async`` are not
checked, because they come in a tuple and a dict. Everything else is Celery's, and typed if ``celery-types`` is
installed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeAlias, TypeVar, overload

from celery.canvas import Signature
from celery.result import AsyncResult

from celery_pgbg.tasks.task import SQLTask

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)

#: The value of a task without ``returns``.
RowsOrCount: TypeAlias = "list[dict[str, Any]] | int"

_Rows: TypeAlias = "list[dict[str, Any]]"
_Row: TypeAlias = "dict[str, Any] | None"


class SQLResult(AsyncResult, Generic[R]):
    """Celery's ``AsyncResult`` of a SQL task."""

    def get(self, timeout: float | None = None, **options: Any) -> R:
        """Wait for the task, and return its statement's value."""
        raise NotImplementedError


class SQLSignature(Signature, Generic[R]):
    """Celery's ``Signature`` of a SQL task."""

    def delay(self, *args: Any, **kwargs: Any) -> SQLResult[R]:
        """Send it."""
        raise NotImplementedError

    def apply_async(self, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> SQLResult[R]:
        """Send it with options."""
        raise NotImplementedError


class TypedSQLTask(SQLTask, Generic[P, R]):
    """What ``@sql_task`` makes of a function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the statement, and wait for its value."""
        raise NotImplementedError

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> SQLResult[R]:
        """Send the task."""
        raise NotImplementedError

    def apply_async(self, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> SQLResult[R]:
        """Send the task with options."""
        raise NotImplementedError

    def s(self, *args: Any, **kwargs: Any) -> SQLSignature[R]:
        """Make a signature; a chain may add arguments."""
        raise NotImplementedError

    def si(self, *args: P.args, **kwargs: P.kwargs) -> SQLSignature[R]:
        """Make a signature that takes no further arguments."""
        raise NotImplementedError


class _Decorate(Protocol[R_co]):
    """A decorator that makes a task of a function."""

    def __call__(self, body: Callable[P, Any], /) -> TypedSQLTask[P, R_co]: ...


class _DecorateBound(Protocol[R_co]):
    """The same with ``bind=True``: the body takes the task itself first."""

    def __call__(self, body: Callable[Concatenate[Any, P], Any], /) -> TypedSQLTask[P, R_co]: ...


_Settings: TypeAlias = "Mapping[str, Any] | None"
_PerCall: TypeAlias = "Mapping[str, Collection[str] | bool]"


class SQLTaskDecorator(Protocol):
    """``sql_task``: usable with and without options."""

    __name__: str
    __qualname__: str

    @overload
    def __call__(self, body: Callable[P, Any], /) -> TypedSQLTask[P, RowsOrCount]: ...

    @overload
    def __call__(self, *, file: str, reload: bool | None = None, **options: Any) -> TypedSQLTask[..., Any]: ...

    @overload
    def __call__(self, *, call: str, **options: Any) -> TypedSQLTask[..., Any]: ...

    @overload
    def __call__(
        self, *, bind: Literal[True], rows_as: type[T], returns: Literal["rows"] | None = None, **options: Any
    ) -> _DecorateBound[list[T]]: ...

    @overload
    def __call__(
        self, *, bind: Literal[True], rows_as: type[T], returns: Literal["row"], **options: Any
    ) -> _DecorateBound[T | None]: ...

    @overload
    def __call__(
        self, *, bind: Literal[False] = False, rows_as: type[T], returns: Literal["rows"] | None = None, **options: Any
    ) -> _Decorate[list[T]]: ...

    @overload
    def __call__(
        self, *, bind: Literal[False] = False, rows_as: type[T], returns: Literal["row"], **options: Any
    ) -> _Decorate[T | None]: ...

    @overload
    def __call__(
        self,
        *,
        bind: Literal[True],
        returns: Literal["rows"],
        atomic: bool = True,
        reuse: bool = False,
        database: str | None = None,
        role: str | None = None,
        settings: _Settings = None,
        per_call: _PerCall = ...,
        **options: Any,
    ) -> _DecorateBound[_Rows]: ...

    @overload
    def __call__(
        self,
        *,
        bind: Literal[True],
        returns: Literal["row"],
        atomic: bool = True,
        reuse: bool = False,
        database: str | None = None,
        role: str | None = None,
        settings: _Settings = None,
        per_call: _PerCall = ...,
        **options: Any,
    ) -> _DecorateBound[_Row]: ...

    @overload
    def __call__(
        self,
        *,
        bind: Literal[True],
        returns: Literal["value"],
        atomic: bool = True,
        reuse: bool = False,
        database: str | None = None,
        role: str | None = None,
        settings: _Settings = None,
        per_call: _PerCall = ...,
        **options: Any,
    ) -> _DecorateBound[Any]: ...

    @overload
    def __call__(
        self,
        *,
        bind: Literal[True],
        returns: Literal["count"],
        atomic: bool = True,
        reuse: bool = False,
        database: str | None = None,
        role: str | None = None,
        settings: _Settings = None,
        per_call: _PerCall = ...,
        **options: Any,
    ) -> _DecorateBound[int]: ...

    @overload
    def __call__(
        self,
        *,
        bind: Literal[True],
        atomic: Literal[False],
        returns: None = None,
        reuse: bool = False,
        database: str | None = None,
        role: str | None = None,
        settings: _Settings = None,
        per_call: _PerCall = ...,
        **options: Any,
    ) -> _DecorateBound[str]: ...

    @overload
    def __call__(
        self,
        *,
        bind: Literal[True],
        atomic: Literal[True] = True,
        returns: None = None,
        reuse: bool = False,
        database: str | None = None,
        role: str | None = None,
        settings: _Settings = None,
        per_call: _PerCall = ...,
        **options: Any,
    ) -> _DecorateBound[RowsOrCount]: ...

    @overload
    def __call__(
        self,
        *,
        bind: Literal[False] = False,
        returns: Literal["rows"],
        atomic: bool = True,
        reuse: bool = False,
        database: str | None = None,
        role: str | None = None,
        settings: _Settings = None,
        per_call: _PerCall = ...,
        **options: Any,
    ) -> _Decorate[_Rows]: ...

    @overload
    def __call__(
        self,
        *,
        bind: Literal[False] = False,
        returns: Literal["row"],
        atomic: bool = True,
        reuse: bool = False,
        database: str | None = None,
        role: str | None = None,
        settings: _Settings = None,
        per_call: _PerCall = ...,
        **options: Any,
    ) -> _Decorate[_Row]: ...

    @overload
    def __call__(
        self,
        *,
        bind: Literal[False] = False,
        returns: Literal["value"],
        atomic: bool = True,
        reuse: bool = False,
        database: str | None = None,
        role: str | None = None,
        settings: _Settings = None,
        per_call: _PerCall = ...,
        **options: Any,
    ) -> _Decorate[Any]: ...

    @overload
    def __call__(
        self,
        *,
        bind: Literal[False] = False,
        returns: Literal["count"],
        atomic: bool = True,
        reuse: bool = False,
        database: str | None = None,
        role: str | None = None,
        settings: _Settings = None,
        per_call: _PerCall = ...,
        **options: Any,
    ) -> _Decorate[int]: ...

    @overload
    def __call__(
        self,
        *,
        bind: Literal[False] = False,
        atomic: Literal[False],
        returns: None = None,
        reuse: bool = False,
        database: str | None = None,
        role: str | None = None,
        settings: _Settings = None,
        per_call: _PerCall = ...,
        **options: Any,
    ) -> _Decorate[str]: ...

    @overload
    def __call__(
        self,
        *,
        bind: Literal[False] = False,
        atomic: Literal[True] = True,
        returns: None = None,
        reuse: bool = False,
        database: str | None = None,
        role: str | None = None,
        settings: _Settings = None,
        per_call: _PerCall = ...,
        **options: Any,
    ) -> _Decorate[RowsOrCount]: ...
