"""Calls a function when a module of kombu has been imported. Not every process imports it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


def when_imported(name: str, action: Callable[[], None]) -> None:
    """Act now if the module is already imported, else right after its import."""
    if name in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, _Finder(name, action))


class _Finder(MetaPathFinder):
    """Finds one module like the other finders, once, and has its loader act afterwards."""

    def __init__(self, name: str, action: Callable[[], None]) -> None:
        self._name = name
        self._action = action

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the awaited module, and no other."""
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        # Not ``importlib.util.find_spec``: it would import the package first, and with it perhaps this module.
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                self._action()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
