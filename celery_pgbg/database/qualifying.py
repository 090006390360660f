"""Qualifies operators, functions and types in our SQL, so that they are PostgreSQL's own under every ``search_path``.

A role that may create in a schema can offer an operator, function or type that fits a call better than
PostgreSQL's.
The files stay readable, ``task_id = 'x'``; the server gets ``task_id OPERATOR(pg_catalog.=) 'x'``. The test
``tests/security/test_names.py`` checks all our SQL with PostgreSQL's parser: no name is left unqualified, and no
meaning has changed. All qualified operators bind alike, so nested operators need parentheses in the file. ``IN``,
``JOIN USING`` and the like cannot be qualified, so they are not used.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|--[^\n]*)
    |(?P<operand>'(?:[^']|'')*'|%\(\w+\)s|\{\w+\}|"[^"]*"|\d+(?:\.\d+)?|[])])
    |(?P<word>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)
    |(?P<sign>::|:=|=>|<<|<=|>=|<>|\|\||->>|->|@>|[=<>+*/|~-])
    |(?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)

#: Words after which a sign has no left operand.
_KEYWORDS = {
    "AND", "BEGIN", "BY", "ELSE", "ELSIF", "IF", "NOT", "ON", "OR", "RETURN", "RETURNING", "SELECT", "THEN", "WHEN",
    "WHERE",
}  # fmt: skip

#: After these a ``name =`` assigns, and after each comma in what they begin.
_ASSIGNING = {"SET", "DIAGNOSTICS", "USING"}

_TYPES = {
    "bytea", "float8", "int8", "json", "jsonb", "name", "oid", "refcursor", "regclass", "regnamespace", "regrole",
    "regtype", "text", "timestamptz", "xid8",
}  # fmt: skip

_FUNCTIONS = {
    "array_agg", "array_append", "array_length", "bool_or", "cardinality", "ceil", "clock_timestamp", "concat_ws",
    "count",
    "current_database", "current_setting", "encode", "format", "format_type", "has_function_privilege",
    "has_schema_privilege", "hashtextextended", "json_object_keys", "jsonb_agg", "jsonb_build_object",
    "jsonb_each_text", "jsonb_object_agg", "left", "max", "min", "now", "octet_length", "oidvectortypes",
    "percentile_cont", "pg_advisory_unlock_all", "pg_advisory_unlock_shared", "pg_advisory_xact_lock",
    "pg_advisory_xact_lock_shared", "pg_backend_pid", "pg_current_xact_id", "pg_get_userbyid", "pg_has_role",
    "pg_is_in_recovery",
    "pg_notify", "pg_size_bytes", "pg_sleep", "pg_stat_get_activity", "pg_terminate_backend",
    "pg_try_advisory_lock_shared", "pg_try_advisory_xact_lock", "quote_ident", "record_send", "row_to_json",
    "set_config", "starts_with", "statement_timestamp", "string_agg", "sum", "unnest",
}  # fmt: skip

#: A variable of a PL/pgSQL function whose type is found by its name.
_DECLARED = re.compile(rf"^( +\w+ (?:CONSTANT )?)({'|'.join(sorted(_TYPES))})(?=(?:\[\])?(?:;| :=))", re.MULTILINE)


def qualified(text: str) -> str:
    """Qualify the operators, functions and types in SQL with ``pg_catalog``; qualified names stay."""
    written: list[str] = []
    before, last = "", ""
    is_operand = False
    depth = assigning_at = 0
    pieces = [(str(found.lastgroup), found[0]) for found in _TOKEN.finditer(_DECLARED.sub(r"\1pg_catalog.\2", text))]
    for place, (kind, piece) in enumerate(pieces):
        if kind == "space":
            written.append(piece)
            continue
        depth += {"(": 1, ")": -1}.get(piece, 0)
        if piece in _ASSIGNING:
            assigning_at = depth
        assigns = piece == "=" and depth == assigning_at and (before in _ASSIGNING or before == ",")
        if kind == "sign" and piece not in ("::", ":=", "=>") and is_operand and not assigns:
            written.append(f"OPERATOR(pg_catalog.{piece})")
        elif kind == "word" and (
            (piece in _TYPES and last == "::") or (piece in _FUNCTIONS and _is_opening(pieces, place + 1))
        ):
            written.append(f"pg_catalog.{piece}")
        else:
            written.append(piece)
        is_operand = kind == "operand" or (kind == "word" and piece.upper() not in _KEYWORDS)
        before, last = last, piece
    return "".join(written)


def _is_opening(pieces: list[tuple[str, str]], place: int) -> bool:
    return place < len(pieces) and pieces[place][1] == "("
