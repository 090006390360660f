"""Pictures of what was measured, for the docs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import lengths, records


def _new(columns: int) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(1, columns, figsize=(6 * columns, 5), squeeze=False)


def _save(figure: Any, file: Path) -> None:
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def draw_lengths(points: list[lengths.Point], file: Path) -> None:
    """Tasks per second and CPU per task against the length of the statement."""
    figure, [[rates, costs]] = _new(2)
    positions = range(len(lengths.LENGTHS))
    for name in dict.fromkeys(point.way for point in points):
        own = [point for point in points if point.way == name]
        rates.plot(positions, [point.rate for point in own], marker="o", label=name)
        costs.plot(positions, [point.cpu_ms for point in own], marker="o", label=name)
    for axes, title in ((rates, "tasks per second"), (costs, "CPU per task, all processes, ms")):
        axes.set_yscale("log")
        axes.set_title(title)
        axes.set_xticks(positions, [f"{seconds * 1000:g} ms" for seconds in lengths.LENGTHS])
        axes.set_xlabel(f"length of the statement, {lengths.CONCURRENCY} at once")
        axes.grid(visible=True, alpha=0.3)
    costs.legend(fontsize=8)
    _save(figure, file)


def draw_memory(points: Iterable[tuple[int, float]], file: Path) -> None:
    """Memory of the Celery worker against statements in flight."""
    figure, [[axes]] = _new(1)
    numbers, megabytes = zip(*points, strict=True)
    axes.plot(numbers, megabytes, marker="o")
    axes.axhline(120, linestyle="--", color="grey")
    axes.set_ylim(0, 130)
    axes.set_title("memory of the Celery worker, MB")
    axes.set_xlabel("statements in flight")
    axes.grid(visible=True, alpha=0.3)
    _save(figure, file)


def draw_records(points: list[records.Point], file: Path) -> None:
    """What reading takes against the number of outcomes."""
    figure, [[axes]] = _new(1)
    for what in dict.fromkeys(point.what for point in points):
        own = [point for point in points if point.what == what]
        axes.plot([point.outcomes for point in own], [point.milliseconds for point in own], marker="o", label=what)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_title("milliseconds")
    axes.set_xlabel("outcomes in the table")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8)
    _save(figure, file)
