"""Our statements as tools show them that trace each statement of a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from celery_pgbg.database import queries
from tests.doc_blocks import PROJECT

STATEMENTS = sorted((PROJECT / "celery_pgbg").rglob("sql/*.sql"))


@pytest.mark.parametrize("path", STATEMENTS, ids=lambda path: path.stem)
def test_a_statement_begins_with_what_it_does(path: Path) -> None:
    package = ".".join(path.parent.parent.relative_to(PROJECT).parts)
    # OpenTelemetry's instrumentations of database drivers name a span by the statement's first word.
    for sent in (queries.query(path.stem, package).as_string(None), queries.statement(path.stem, package)):
        assert sent.split()[0].strip(";").isalpha(), sent
