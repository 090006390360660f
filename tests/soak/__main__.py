"""``python -m tests.soak [--seconds 120]``: run the load, print a table; exit 1 where something leaks or is wrong."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console
from rich.table import Table

from celery_pgbg.devserver.brokers import RabbitServer
from tests.soak.database import own_database
from tests.soak.run import Report, soak


def main() -> int:
    """Run."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--broker", choices=["amqp", "pgbg"], default="amqp")
    options = parser.parse_args()
    broker = RabbitServer("soak")
    with own_database() as dsn:
        url = broker.find_or_start() if options.broker == "amqp" else f"pgbg+{dsn}"
        report = soak(dsn, url, options.seconds, options.clients, options.seed)
    if options.broker == "amqp":
        broker.purge()
    show(report, options.seconds)
    return 1 if report.wrong or not all(line.is_flat for line in report.lines) else 0


def show(report: Report, seconds: float) -> None:
    """Print it."""
    console = Console(width=110)
    ends = Table("task or accident", "times", title=f"{seconds:.0f} seconds", title_justify="left")
    for what, number in sorted(report.counts.items()):
        ends.add_row(what, str(number))
    flat = Table("what", "warm", "at the end", "most", "", title="medians of the second and last quarter")
    for line in report.lines:
        numbers = (f"{number:,.1f} {line.unit}" for number in (line.warm, line.last, line.most))
        flat.add_row(line.what, *numbers, "flat" if line.is_flat else "GROWS")
    console.print(ends, flat)
    for what in report.wrong[:50]:
        console.print("WRONG:", what)
    console.print(f"{len(report.wrong)} wrong" if report.wrong else "nothing lost, nothing twice, nothing left behind")


if __name__ == "__main__":
    sys.exit(main())
