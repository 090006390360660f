"""Finds statements that a task must not have, before a background worker is launched; and the settings they make."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from celery_pgbg.database import libpg_query
from celery_pgbg.database.libpg_query import CannotParse, Span
from celery_pgbg.outcomes import ErrorReport

#: Statements that begin with other words need no check.
_WORDS = re.compile(
    rb"(ABORT|ALTER|BEGIN|CLUSTER|COMMIT|COPY|CREATE|DROP|END|PREPARE|REINDEX|RELEASE|ROLLBACK|SAVEPOINT|SET|START"
    rb"|VACUUM)\b",
    re.IGNORECASE,
)

#: Largest statement, in bytes, whose tree is read: on a larger one the library may overflow the stack.
_LONGEST = 4000

_ALONE = "Give the task atomic=False: its statement cannot run inside a transaction block."
_NO_TRANSACTIONS = (
    "A task takes no transaction commands: its statements are one transaction, which commits together with the "
    "outcome. With atomic=False a procedure or a DO block may COMMIT inside."
)
_NO_CLIENT = (
    "No client is connected to a background worker. Give the rows as an argument and read them with "
    "jsonb_to_recordset() or unnest(); COPY from and to a file or a program of the server works."
)


class FoundSetting(NamedTuple):
    """A configuration parameter that one of the statements sets.

    Attributes:
        name: of the parameter; for SET TRANSACTION ``transaction_isolation``, ``transaction_read_only`` and so on.
        value: None if it is not a constant, such as DEFAULT.
        number: of the statement, from 0.
    """

    name: str
    value: str | None
    number: int


class Inspection(NamedTuple):
    """What was found in the statements of a text.

    Attributes:
        refusal: the error of the first statement that cannot run in a task, as the server would report it.
        settings: the parameters that they set, in order.
        setters: the numbers of the statements that only set.
    """

    refusal: ErrorReport | None
    settings: list[FoundSetting]
    setters: set[int]


def inspect_statements(data: bytes, statements: list[Span], atomic: bool) -> Inspection:
    """Check each statement that begins with one of a few words; skip texts that the parser does not know."""
    refusal = None
    settings: list[FoundSetting] = []
    setters: set[int] = set()
    for number, span in enumerate(statements):
        if _WORDS.match(data, span.start) is None or span.end - span.start > _LONGEST:
            continue
        kind, node = _tree(data[span.start : span.end])
        refusal = refusal or _refuse(kind, node, atomic)
        if kind == "VariableSetStmt":
            setters.add(number)
            settings += [FoundSetting(name, value, number) for name, value in _settings(node)]
    return Inspection(refusal, settings, setters)


def _tree(statement: bytes) -> tuple[str, dict[str, Any]]:
    try:
        trees = libpg_query.parse(statement)
    except CannotParse:
        return "", {}
    return next(iter(trees[0].items())) if trees else ("", {})


def _refuse(kind: str, node: dict[str, Any], atomic: bool) -> ErrorReport | None:
    if kind == "TransactionStmt":
        name = node["kind"].removeprefix("TRANS_STMT_")
        name = _TRANSACTION_COMMANDS.get(name) or name.replace("_", " ")
        return ErrorReport("0A000", f"{name} cannot run in a task", {"message_hint": _NO_TRANSACTIONS})
    if kind == "CopyStmt" and "filename" not in node:
        direction = "FROM STDIN" if node.get("is_from") else "TO STDOUT"
        return ErrorReport("0A000", f"COPY {direction} cannot run in a task", {"message_hint": _NO_CLIENT})
    name = _needs_to_be_alone(kind, node) if atomic else ""
    if not name:
        return None
    return ErrorReport("25001", f"{name} cannot run inside a transaction block", {"message_hint": _ALONE})


#: Statements whose names differ from the grammar's words; PREPARE alone is another statement, which may run.
_TRANSACTION_COMMANDS = {
    "START": "START TRANSACTION",
    "PREPARE": "PREPARE TRANSACTION",
    "RELEASE": "RELEASE SAVEPOINT",
    "ROLLBACK_TO": "ROLLBACK TO SAVEPOINT",
}


def _needs_to_be_alone(kind: str, node: dict[str, Any]) -> str:
    """The statement's name as PostgreSQL's error has it, or nothing."""
    match kind, node:
        case "VacuumStmt", {"is_vacuumcmd": True}:
            return "VACUUM"
        case "IndexStmt", {"concurrent": True}:
            return "CREATE INDEX CONCURRENTLY"
        case "DropStmt", {"concurrent": True}:
            return "DROP INDEX CONCURRENTLY"
        case "ReindexStmt", {"kind": "REINDEX_OBJECT_DATABASE" | "REINDEX_OBJECT_SYSTEM" | "REINDEX_OBJECT_SCHEMA"}:
            return f"REINDEX {node['kind'].rpartition('_')[2]}"
        case "ReindexStmt", {"params": options} if _is_on(options, "concurrently"):
            return "REINDEX CONCURRENTLY"
        case "AlterTableStmt", {"cmds": commands} if any(_detaches(command) for command in commands):
            return "ALTER TABLE ... DETACH CONCURRENTLY"
        case "ClusterStmt", _ if "relation" not in node:
            return "CLUSTER"
    return _BY_KIND.get(kind, "")


_BY_KIND = {
    "CreatedbStmt": "CREATE DATABASE",
    "DropdbStmt": "DROP DATABASE",
    "CreateTableSpaceStmt": "CREATE TABLESPACE",
    "DropTableSpaceStmt": "DROP TABLESPACE",
    "AlterSystemStmt": "ALTER SYSTEM",
}


def _detaches(command: dict[str, Any]) -> bool:
    definition = command.get("AlterTableCmd", {}).get("def", {})
    return bool(definition.get("PartitionCmd", {}).get("concurrent"))


def _is_on(options: list[dict[str, Any]], name: str) -> bool:
    """Whether an option is given and not off."""
    for option in options:
        element = option["DefElem"]
        if element["defname"] == name:
            value = str(_constant(element["arg"]) if "arg" in element else "on")
            return value.lower() not in ("off", "false", "no", "0")
    return False


def _settings(node: dict[str, Any]) -> list[tuple[str, str | None]]:
    """The parameters that a SET sets."""
    arguments = node.get("args", [])
    if node["kind"] == "VAR_SET_MULTI":
        if node["name"] != "TRANSACTION":
            return []
        elements = [argument["DefElem"] for argument in arguments]
        return [(element["defname"], _constant(element["arg"])) for element in elements]
    value = _constant(arguments[0]) if node["kind"] == "VAR_SET_VALUE" and len(arguments) == 1 else None
    return [(node["name"].lower(), value)]


def _constant(node: dict[str, Any]) -> str | None:
    """A constant's value as text; None for anything else."""
    match node:
        case {"A_Const": {"sval": {"sval": text}}}:
            return str(text)
        case {"A_Const": {"ival": number}}:
            # The tree leaves out a zero.
            return str(number.get("ival", 0))
        case {"A_Const": {"fval": {"fval": text}}}:
            return str(text)
        case {"A_Const": {"boolval": truth}}:
            return "on" if truth.get("boolval") else "off"
        case {"String": {"sval": text}}:
            return str(text)
        case {"Integer": number}:
            return str(number.get("ival", 0))
    return None
