"""One table at the end of a run: what was skipped, how often, and why."""

from __future__ import annotations

from collections import Counter
from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print it; nothing where nothing was skipped."""
    reasons = Counter(
        (_reason(report.longrepr), report.nodeid.partition("::")[0])
        for report in terminalreporter.stats.get("skipped", [])
    )
    if not reasons:
        return
    terminalreporter.section("skipped, and why")
    width = max(len(reason) for reason, _ in reasons)
    for (reason, file), number in sorted(reasons.items()):
        terminalreporter.write_line(f"{number:4}  {reason:{width}}  {file}")


def _reason(longrepr: Any) -> str:
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return " ".join(text.removeprefix("Skipped: ").split())
