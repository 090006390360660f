"""Finds names in SQL that the search_path decides on: operators, functions, types, relations, collations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import postgast

#: What calls ``=`` or other operators by name and cannot be qualified.
_UNQUALIFIABLE = {
    "AEXPR_DISTINCT", "AEXPR_NOT_DISTINCT", "AEXPR_NULLIF", "AEXPR_IN", "AEXPR_LIKE", "AEXPR_ILIKE", "AEXPR_SIMILAR",
    "AEXPR_BETWEEN", "AEXPR_NOT_BETWEEN", "AEXPR_BETWEEN_SYM", "AEXPR_NOT_BETWEEN_SYM",
}  # fmt: skip

#: psycopg's placeholders, and the names that we format in.
_PLACEHOLDER = re.compile(r"%\(\w+\)s")
_FORMATTED = re.compile(r"\{\w+\}")
_COLUMNS = re.compile(r"\{(?:\w+_)?columns\}")


def as_plain_sql(text: str) -> str:
    """A statement as the server gets it, with something for each parameter and formatted name."""
    text = _COLUMNS.sub("c integer", _PLACEHOLDER.sub("$1", text))
    return _FORMATTED.sub("formatted.name", text).replace("%%", "%")


def unbound_names(text: str) -> list[str]:
    """What in some statements is found by the search_path, as ``kind name``."""
    tree = postgast.parse(text)
    ctes = {node.ctename for node in nodes(tree) if kind_of(node) == "CommonTableExpr"}
    blocks = [node for node in nodes(tree) if kind_of(node) == "DoStmt"]
    within = [found for block in blocks for found in unbound_names_in_function(_as_function(block))]
    return [found for node in nodes(tree) for found in _unbound(node, ctes)] + within


def unbound_names_in_function(definition: str) -> list[str]:
    """The same of what the body of one CREATE FUNCTION or PROCEDURE does when it is called.

    Nothing, where the function has a safe search_path of its own, or its body is bound at its creation.
    """
    [statement] = [node for node in nodes(postgast.parse(definition)) if kind_of(node) == "CreateFunctionStmt"]
    options = {option.def_elem.defname: option.def_elem.arg for option in statement.options if _is_first(option)}
    if statement.HasField("sql_body") or _has_safe_path(statement):
        return []
    language = options["language"].string.sval
    if language != "plpgsql":
        [body] = [node.string.sval for node in options["as"].list.items]
        return unbound_names(body)
    found: list[str] = []
    for query, mode in _expressions(postgast.parse_plpgsql(definition)):
        found += unbound_names(_as_statement(query, mode))
    return found + _declared_types(definition)


def _as_function(block: Any) -> str:
    [body] = [node.def_elem.arg.string.sval for node in block.args if node.def_elem.defname == "as"]
    return f"CREATE FUNCTION block() RETURNS void LANGUAGE plpgsql AS $${body}$$"


def _is_first(option: Any) -> bool:
    return bool(option.def_elem.defname != "set")


def _has_safe_path(statement: Any) -> bool:
    for option in statement.options:
        if option.def_elem.defname == "set":
            setting = option.def_elem.arg.variable_set_stmt
            values = [value.a_const.sval.sval for value in setting.args]
            if setting.name == "search_path" and values == ["pg_catalog", "pg_temp"]:
                return True
    return False


def _expressions(node: Any) -> Iterator[tuple[str, int]]:
    """The SQL in a PL/pgSQL function, each with the mode in which PL/pgSQL parses it."""
    if isinstance(node, list):
        for item in node:
            yield from _expressions(item)
    elif isinstance(node, dict):
        for name, value in node.items():
            if name == "PLpgSQL_expr":
                yield value["query"], value.get("parseMode", 0)
            elif name == "PLpgSQL_stmt_case" and "t_expr" in value:
                yield "CASE x WHEN x THEN x END", 2
            else:
                yield from _expressions(value)


def _as_statement(query: str, mode: int) -> str:
    if mode == 0:
        return query
    if mode == 2:
        return f"SELECT {query}"
    return "SELECT " + re.split(r":=|=", query, maxsplit=1)[1]


#: A variable in a DECLARE section: its type may come after CONSTANT.
_DECLARED = re.compile(r"^\s+(?!BEGIN|DECLARE)(\w+) (?:CONSTANT )?((?:[\w.\"]+)(?:\[\])?)(?:;| :=)", re.MULTILINE)

#: Types that the grammar itself takes from pg_catalog, and PL/pgSQL's own.
_KEYWORD_TYPES = {"boolean", "integer", "bigint", "smallint", "interval", "record"}


def _declared_types(definition: str) -> list[str]:
    body = definition[definition.index("$$") :]
    sections = re.findall(r"DECLARE\n(.*?)\n *BEGIN", body, re.DOTALL)
    found = []
    for section in sections:
        for name, kind in _DECLARED.findall("\n" + section):
            if "." not in kind and kind.removesuffix("[]") not in _KEYWORD_TYPES:
                found.append(f"type {kind} (of variable {name})")
    return found


def nodes(node: Any) -> Iterator[Any]:
    """Every message in a parse tree."""
    yield node
    for field, value in node.ListFields():
        if field.message_type is None:
            continue
        for item in value if field.is_repeated else (value,):
            yield from nodes(item)


def kind_of(node: Any) -> str:
    return str(node.DESCRIPTOR.name)


def names_in(items: Any) -> list[str]:
    return [item.string.sval for item in items]


def _unbound(node: Any, ctes: set[str]) -> Iterator[str]:
    kind = kind_of(node)
    if kind == "A_Expr":
        name = names_in(node.name)
        mode = type(node).DESCRIPTOR.fields_by_name["kind"].enum_type.values_by_number[node.kind].name
        if mode in _UNQUALIFIABLE:
            yield f"operator {name[-1]} ({mode.removeprefix('AEXPR_')})"
        elif len(name) == 1:
            yield f"operator {name[0]}"
    elif kind == "FuncCall" and len(node.funcname) == 1:
        yield f"function {names_in(node.funcname)[0]}"
    elif kind == "TypeName" and len(node.names) == 1:
        yield f"type {names_in(node.names)[0]}"
    elif kind == "CaseExpr" and node.HasField("arg"):
        yield "operator = (CASE x WHEN)"
    elif kind == "JoinExpr" and (node.using_clause or node.is_natural):
        yield "operator = (JOIN USING)"
    elif kind == "SubLink" and len(node.oper_name) < 2 and node.HasField("testexpr"):
        yield "operator = (IN a query)"
    elif kind == "CollateClause" and len(node.collname) == 1:
        yield f"collation {names_in(node.collname)[0]}"
    elif kind == "SortBy" and len(node.use_op) == 1:
        yield f"operator {names_in(node.use_op)[0]} (ORDER BY)"
    elif kind == "RangeVar" and not node.schemaname and node.relname not in ctes:
        yield f"relation {node.relname}"


def shape(text: str) -> Any:
    """What some statements mean, whatever qualifies the names in them."""
    return _shape(postgast.parse(text))


def shape_of_function(definition: str) -> Any:
    """The same of the expressions in a PL/pgSQL function."""
    parsed = postgast.parse_plpgsql(definition)
    return [shape(_as_statement(query, mode)) for query, mode in _expressions(parsed)]


def _shape(node: Any) -> Any:
    if kind_of(node) == "DoStmt":
        return shape_of_function(_as_function(node))
    fields = []
    for field, value in node.ListFields():
        if field.name in ("name", "funcname", "names", "oper_name") and field.is_repeated:
            fields.append((field.name, names_in(value)[-1:]))
        elif field.message_type is not None:
            fields.append((field.name, [_shape(item) for item in (value if field.is_repeated else (value,))]))
        elif "location" not in field.name and not field.name.endswith(("stmt_len", "list_start", "list_end")):
            fields.append((field.name, str(value)))
    return kind_of(node), fields
