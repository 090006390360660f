"""Tasks without a body: a SQL file, or a function or procedure in the database."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any, Protocol

from celery import shared_task
from celery.local import Proxy

from celery_pgbg.celery_patches.registry import finalized_apps
from celery_pgbg.database.routines import RoutineCall
from celery_pgbg.errors import TaskDefinitionError
from celery_pgbg.tasks.files import SQLFile, find_file


class _Source(Protocol):
    """The source of a task without a body."""

    def signature(self) -> inspect.Signature:
        """The arguments, unless a function's signature declares them."""

    def statement(self, arguments: dict[str, Any]) -> Any:
        """The return value of a body."""


class _Routine:
    """A function or procedure, whose arguments the database knows."""

    def __init__(self, name: str) -> None:
        self._name = name

    def signature(self) -> inspect.Signature:
        kinds = {"args": inspect.Parameter.VAR_POSITIONAL, "kwargs": inspect.Parameter.VAR_KEYWORD}
        return inspect.Signature([inspect.Parameter(name, kind) for name, kind in kinds.items()])

    def statement(self, arguments: dict[str, Any]) -> RoutineCall:
        args, kwargs = arguments.pop("args", ()), arguments.pop("kwargs", {})
        return RoutineCall(self._name, tuple(args), {**arguments, **kwargs})


def declare(file: str | None, call: str | None, reload: bool | None, module: str, options: dict[str, Any]) -> Any:
    """Make a task; it may later be applied to a function, whose signature then declares its arguments.

    Args:
        file: path of a SQL file, relative to the module's.
        call: name of a function or procedure.
        reload: read the file again when it has changed; None: where Django's ``DEBUG`` is on.
        module: name of the module that declares it.
        options: of the task.

    Raises:
        TaskDefinitionError: the file cannot be read, or both are given.
    """
    if (file is None) == (call is None):
        raise TaskDefinitionError("sql_task: give either file= or call=")
    source: _Source
    if file is not None:
        path = find_file(file, module)
        source, name = SQLFile(path, _in_development() if reload is None else reload), path.stem
    else:
        assert call is not None
        source, name = _Routine(call), call.rpartition(".")[2].strip('"')
    function = _body(source, _free_name(name, module), module)
    task = shared_task(function, **options)
    return _Declared(task, partial(_with_signature, task, function, options))


def _free_name(name: str, module: str) -> str:
    """A unique name for the body, because Celery defines a function of that name to check arguments.

    A later function brings its own name, so a module may use one file twice.
    """
    name = re.sub(r"\W|^(?=\d)", "_", name)
    names = (name if number == 1 else f"{name}_{number}" for number in count(1))
    apps = finalized_apps()
    return next(free for free in names if not any(app.gen_task_name(free, module) in app.tasks for app in apps))


def calling_module() -> str:
    """Find the module that declares a task: the nearest caller outside this package."""
    frame = sys._getframe(1)
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] == "celery_pgbg":
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", "__main__"))


class _Declared(Proxy):
    """A task; used as a decorator of a function, it makes the task again with that function's signature."""

    __slots__ = ("_adopt",)

    def __init__(self, task: Any, adopt: Callable[[Any], Any]) -> None:
        super().__init__(task._get_current_object)
        object.__setattr__(self, "_adopt", adopt)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and inspect.isfunction(args[0]):
            return object.__getattribute__(self, "_adopt")(args[0])
        return super().__call__(*args, **kwargs)


def _with_signature(task: Any, body: Any, options: dict[str, Any], function: Any) -> Any:
    """Give a task the name and the signature of a function."""
    # Finalized apps have made the task already; other apps make it later, with the new name.
    apps = finalized_apps()
    for app in apps:
        app.tasks.pop(options.get("name") or app.gen_task_name(body.__name__, body.__module__), None)
    body.__name__ = body.__qualname__ = function.__name__
    body.__module__ = function.__module__
    body.__doc__ = function.__doc__
    body.__signature__ = inspect.signature(function)
    for app in apps:
        app.task(shared=False, **options)(body)
    return task


def _body(source: _Source, name: str, module: str) -> Any:
    """A function that stands for a task's body."""

    def body(*args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(body).bind(*args, **kwargs)
        bound.apply_defaults()
        return source.statement(dict(bound.arguments))

    body.__name__ = body.__qualname__ = name
    body.__module__ = module
    body.__signature__ = source.signature()  # type: ignore[attr-defined]
    return body


def _in_development() -> bool:
    django = sys.modules.get("django.conf")
    return bool(django and django.settings.configured and django.settings.DEBUG)
