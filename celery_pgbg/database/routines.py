"""Calls of functions and procedures by name; the database's catalog has their arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import errors, sql
from psycopg.rows import class_row

from celery_pgbg.database.queries import query
from celery_pgbg.errors import BindingError


@dataclass(frozen=True)
class RoutineCall:
    """A function or procedure to call.

    Attributes:
        name: its name in SQL, with its schema or found by the search path.
        args, kwargs: arguments in their order and by name.
    """

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def compose(
        self, session: psycopg.Connection[Any], atomic: bool, merge: Callable[[Any, Any], str]
    ) -> tuple[sql.Composable, dict[str, Any]]:
        """Look the function up, and write the statement that calls it. One round trip.

        Args:
            session: a session in the database.
            atomic: whether it runs in our function, where a CALL returns no row.
            merge: writes arguments into a statement.

        Returns:
            The statement and its parameters as psycopg takes them.

        Raises:
            BindingError: no function has that name, or none takes these arguments.
        """
        try:
            with session.transaction(), session.cursor(row_factory=class_row(_Routine)) as cursor:
                routines = cursor.execute(query("find_routines"), {"name": self.name}).fetchall()
        except (errors.InvalidParameterValue, errors.UndefinedFunction) as exc:
            raise BindingError(f"call={self.name!r} is no name: {exc.diag.message_primary}") from exc
        fitting = [routine for routine in routines if routine.takes(len(self.args), self.kwargs)]
        if not fitting:
            known = "; ".join(f"{self.name}({routine.described})" for routine in routines)
            given = ", ".join([*(["..."] * len(self.args)), *(f"{name}=..." for name in self.kwargs)])
            raise BindingError(
                f"{self.name} cannot be called with ({given}); there is {known}"
                if known
                else f"there is no function or procedure {self.name} in this database"
            )
        # If there are several, the server chooses by the values, as for any statement.
        statement, parameters = fitting[0].call(self.args, self.kwargs, casts=len(fitting) == 1)
        results = fitting[0].results
        if not atomic or not results or len(fitting) > 1:
            return statement, parameters
        columns = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind))  # pyright: ignore[reportArgumentType]
            for name, kind in results
        )
        around = sql.SQL("SELECT * FROM celery_pgbg.call_procedure(%(call)s) AS results ({})").format(columns)
        return around, {"call": merge(statement, parameters)}


@dataclass(frozen=True)
class _Routine:
    """One row of ``find_routines.sql``."""

    nspname: str
    proname: str
    is_procedure: bool
    described: str
    names: list[str]
    modes: list[str]
    types: list[str | None]
    defaults: int

    @property
    def inputs(self) -> list[tuple[str, str | None, str]]:
        """Name, type and mode of each argument of a call; an unnamed argument has an empty name."""
        names = self.names or [""] * len(self.modes)
        every = zip(names, self.types, self.modes, strict=True)
        return [argument for argument in every if argument[2] in "ibv"]

    @property
    def results(self) -> list[tuple[str, str]]:
        """Name and type of each result of a procedure; none if a type depends on the call."""
        if not self.is_procedure:
            return []
        every = zip(self.names or [""] * len(self.modes), self.types, self.modes, strict=True)
        found = [(name, kind) for name, kind, mode in every if mode in "ob"]
        named = [(name or f"column{number}", kind) for number, (name, kind) in enumerate(found, start=1)]
        return [(name, kind) for name, kind in named if kind is not None] if all(k for _, k in named) else []

    def takes(self, count: int, names: Mapping[str, Any]) -> bool:
        """Whether a call with so many arguments and these names is possible."""
        inputs = self.inputs
        if count > len(inputs) or any(not name for name in names):
            return False
        left = [name for name, _, _ in inputs[count:]]
        required = inputs[count : len(inputs) - self.defaults]
        return set(names) <= set(left) and all(name in names for name, _, _ in required)

    def call(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], casts: bool
    ) -> tuple[sql.Composable, dict[str, Any]]:
        """Write the statement; the results of a procedure are arguments too."""
        if self.is_procedure and "o" in self.modes and not kwargs and len(args) == len(self.inputs):
            return self._call_in_order(args, casts)
        by_name = {name: kind for name, kind, _ in self.inputs}
        parameters = {f"argument_{number}": value for number, value in enumerate(args, start=1)}
        parts = [
            _placeholder(name, kind if casts else None, is_variadic=mode == "v")
            for name, (_, kind, mode) in zip(parameters, self.inputs, strict=False)
        ]
        for name, value in kwargs.items():
            placeholder = _placeholder(f"named_{len(parts)}", by_name[name] if casts else None)
            parameters[f"named_{len(parts)}"] = value
            parts.append(sql.SQL("{} => {}").format(sql.Identifier(name), placeholder))
        if self.is_procedure:
            results = [name for name, mode in zip(self.names, self.modes, strict=False) if mode == "o"]
            parts += [sql.SQL("{} => NULL").format(sql.Identifier(name)) for name in results]
        form = "CALL {}({})" if self.is_procedure else "SELECT * FROM {}({})"
        routine = sql.Identifier(self.nspname, self.proname)
        return sql.SQL(form).format(routine, sql.SQL(", ").join(parts)), parameters

    def _call_in_order(self, args: tuple[Any, ...], casts: bool) -> tuple[sql.Composable, dict[str, Any]]:
        """Call a procedure with all its arguments; its results may have no names."""
        parameters = {f"argument_{number}": value for number, value in enumerate(args, start=1)}
        names = iter(parameters)
        parts = [
            sql.SQL("NULL")
            if mode == "o"
            else _placeholder(next(names), kind if casts else None, is_variadic=mode == "v")
            for kind, mode in zip(self.types, self.modes, strict=True)
        ]
        routine = sql.Identifier(self.nspname, self.proname)
        return sql.SQL("CALL {}({})").format(routine, sql.SQL(", ").join(parts)), parameters


def _placeholder(name: str, kind: str | None, is_variadic: bool = False) -> sql.Composable:
    placeholder: sql.Composable = sql.Placeholder(name)
    if kind is not None:
        # The catalog's own spelling of a type.
        placeholder = sql.SQL("{}::{}").format(placeholder, sql.SQL(kind))  # pyright: ignore
    return sql.SQL("VARIADIC {}").format(placeholder) if is_variadic else placeholder
