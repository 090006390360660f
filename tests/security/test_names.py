"""No name in our SQL means anything but what PostgreSQL made, whatever ``search_path`` is set."""

from __future__ import annotations

from pathlib import Path

import pytest

from celery_pgbg.database import queries
from tests.doc_blocks import PROJECT
from tests.security.names import as_plain_sql, shape, unbound_names, unbound_names_in_function

_PACKAGE = PROJECT / "celery_pgbg"

#: They are part of the installation, which sets its own search_path first.
_INSTALLATION = {"safe_names", "usual_names"} | {name for name in queries.names("sql") if name.startswith("install_")}


def statements() -> list[Path]:
    """Every statement of ours that is no part of the installation."""
    found = (path for path in _PACKAGE.rglob("sql/*.sql") if path.stem not in _INSTALLATION)
    return sorted(found)


@pytest.mark.parametrize("path", statements(), ids=lambda path: path.stem)
def test_a_statement_means_the_same_under_any_search_path(path: Path) -> None:
    package = ".".join(path.parent.parent.relative_to(PROJECT).parts)
    sent = as_plain_sql(queries.query(path.stem, package).as_string(None))
    assert unbound_names(sent) == []
    assert shape(sent) == shape(as_plain_sql(path.read_text())), "one operator within another needs parentheses"


@pytest.mark.parametrize("path", sorted(_PACKAGE.rglob("functions/*.sql")), ids=lambda path: path.stem)
def test_a_function_means_the_same_under_any_search_path(path: Path) -> None:
    assert unbound_names_in_function(path.read_text()) == []
