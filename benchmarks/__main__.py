"""``python -m benchmarks``: start what is needed, measure, print a table."""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import measures, servers

NAMES = ("launches", "threads", "memory", "latencies")


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--only", choices=NAMES, action="append")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    rounds, number = (2, 200) if options.quick else (5, 500)
    chosen = options.only or NAMES
    lines: list[measures.Line] = []
    console = Console(width=130)
    with servers.database() as dsn, servers.broker() as redis_url, console.status("measuring") as status:
        for name in chosen:
            status.update(f"measuring {name}")
            if name == "launches":
                lines += measures.launches(dsn, redis_url, rounds, number)
            elif name == "threads":
                lines += measures.against_threads(dsn, redis_url, rounds, number)
            elif name == "memory":
                lines += measures.memory(dsn, redis_url)
            else:
                lines += measures.latencies(dsn, redis_url, 50 if options.quick else 200)
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    title = f"median (least - most) of {rounds} interleaved rounds; {machine}"
    table = Table("what", "measured", "wanted", title=title, title_justify="left")
    for line in lines:
        table.add_row(*line)
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps(lines, indent=2))


if __name__ == "__main__":
    main()
