"""Write docs/reference/settings.md from the comments in celery_pgbg/settings.py."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parent.parent
PAGE = PROJECT / "docs" / "reference" / "settings.md"

_HEAD = """# Settings

Set them on the app, `app.conf.pgbg_dsn = ...`, or, with Django's `namespace="CELERY"`, as `CELERY_PGBG_DSN = ...`. An
unknown `pgbg_` setting is an error that suggests the right one. This page is made from `celery_pgbg/settings.py` by
`python docs/make_settings.py`.

"""


def page() -> str:
    """Make the page: a heading for each field, and the comment above it."""
    source = (PROJECT / "celery_pgbg" / "settings.py").read_text()
    body = source[source.index("class Settings:") : source.index("def dsn_of")]
    parts = []
    for comment, name, kind in re.findall(r"((?:    #: .*\n)+)    (\w+): ([^=]+) =", body):
        text = " ".join(line.strip().removeprefix("#:").strip() for line in comment.splitlines())
        text = text.replace("``", "`")
        parts.append(f"## `pgbg_{name}`\n\n`{kind.strip()}`. {text}\n")
    return _HEAD + "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
