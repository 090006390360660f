"""``python -m benchmarks``: start what is needed, measure, print a table."""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import brokers, cpu, lengths, measures, pictures, queues, records, servers

NAMES = ("cpu", "launches", "threads", "memory", "latencies", "lengths", "records", "brokers", "queues")


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--only", choices=NAMES, action="append")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="where `lengths`, `memory` and `records` draw")
    options = parser.parse_args()
    rounds, number = (2, 200) if options.quick else (5, 500)
    chosen = options.only or NAMES
    lines: list[measures.Line] = []
    console = Console(width=130)
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
    with servers.database() as dsn, servers.broker() as redis_url, console.status("measuring") as status:
        for name in chosen:
            status.update(f"measuring {name}")
            if name == "lengths":
                turns, most = (1, 100) if options.quick else (rounds - 2, 300)
                points = lengths.measure(dsn, redis_url, turns, most)
                lines += [
                    (f"{p.way}, {p.seconds * 1000:g} ms", f"{p.rate:.0f} /s, {p.cpu_ms:.1f} ms CPU", "") for p in points
                ]
                if options.pictures:
                    pictures.draw_lengths(points, options.pictures / "bench-lengths.png")
            elif name == "records":
                found = records.measure(dsn)
                lines += records.lines(found)
                if options.pictures:
                    pictures.draw_records(found, options.pictures / "bench-records.png")
            elif name == "cpu":
                lines += cpu.cpu(dsn, redis_url, max(rounds - 2, 2), number)
            elif name == "brokers":
                lines += brokers.brokers(dsn, redis_url, max(rounds - 2, 1), number)
            elif name == "queues":
                # python -m benchmarks.queues does it for ten minutes, with a million.
                lines += queues.queues(dsn, *((5, 500, 20_000, 1000) if options.quick else (60, 500, 200_000, 4000)))
            elif name == "launches":
                lines += measures.launches(dsn, redis_url, rounds, number)
            elif name == "threads":
                lines += measures.against_threads(dsn, redis_url, rounds, number)
            elif name == "memory":
                in_flight: list[tuple[int, float]] = []
                lines += measures.memory(dsn, redis_url, in_flight)
                if options.pictures:
                    pictures.draw_memory(in_flight, options.pictures / "bench-memory.png")
            else:
                lines += measures.latencies(dsn, redis_url, 50 if options.quick else 200)
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    title = f"median (least - most) of {rounds} interleaved rounds; {machine}"
    table = Table("what", "measured", "wanted", title=title, title_justify="left")
    for line in lines:
        table.add_row(*line)
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps(cpu.as_json(lines), indent=2))


if __name__ == "__main__":
    main()
