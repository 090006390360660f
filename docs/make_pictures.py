"""Make docs/pictures: a recording of a terminal as SVG, Flower's pages by a headless Chromium, a plot of a backfill.

Runs the commands that it shows, on the development server and a Redis of its own: `python docs/make_pictures.py`, or
`python docs/make_pictures.py plot` for the plot alone.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path

import psycopg
from psycopg import conninfo
from rich.console import Console
from rich.text import Text

from celery_pgbg.devserver import DevServer
from celery_pgbg.devserver.brokers import RedisServer
from celery_pgbg.devserver.ports import free_port

PICTURES = Path(__file__).parent / "pictures"
_COLUMNS = 100
_DEADLINE = 60.0

#: Seconds between two lines of the recording, and before the next command.
_LINE, _PAUSE = 0.08, 1.2

_APP = """
import os
from celery import Celery
from celery_pgbg import BatchedSQLTask, SQLTask

dsn = os.environ["PGBG_DSN"]
app = Celery("shop", broker=os.environ["REDIS_URL"], backend=f"pgbg+{dsn}")
app.conf.worker_pool = "celery_pgbg.pool:TaskPool"
app.conf.worker_prefetch_multiplier = 1
app.conf.pgbg_dsn = dsn
app.conf.result_extended = True
app.conf.broker_transport_options = {"visibility_timeout": 3600}


@app.task(base=SQLTask)
def close_month(month: int):
    return "SELECT %(month)s AS month, count(*) AS orders FROM generate_series(1, 5000), pg_sleep(40)"


@app.task(base=SQLTask)
def import_prices(source: str):
    return "SELECT celery_pgbg.report_progress(40, 'loading ' || %(source)s), pg_sleep(600)"


@app.task(base=SQLTask)
def ship_order(order_id: int):
    return "SELECT 1 / (%(order_id)s - %(order_id)s) AS shipped"


@app.task(base=BatchedSQLTask, table="purchase", key="id", batch_seconds=0.1)
def fill_totals():
    return "UPDATE purchase SET total = price * quantity WHERE {batch}"
"""

_WORKER = "celery -A shop worker -n sql@shop -c 100 -E -l INFO --logfile shop.log --detach"

#: What is typed; ids are those of the tasks that were launched.
_TYPED = (
    _WORKER,
    "celery -A shop call shop.close_month --args '[7]'",
    "celery -A shop call shop.import_prices --args '[\"acme\"]'",
    "celery -A shop pgbg ps",
    "kill -9 $(cat shop.pid)       # the Celery worker is gone, its statements are not",
    "celery -A shop pgbg ps",
    "celery -A shop result {close_month}",
    "celery -A shop pgbg cancel --force {import_prices:.8}",
    f"{_WORKER}     # another one",
    "celery -A shop call shop.ship_order --args '[4711]'",
    "celery -A shop pgbg failed",
)


#: Rows of the table that is filled.
_ROWS = 1_000_000


def main(wanted: list[str]) -> None:
    """Make all pictures, or the plot."""
    PICTURES.mkdir(exist_ok=True)
    server = DevServer().start()
    database = f"pgbg_pictures_{uuid.uuid4().hex[:8]}"
    redis = RedisServer("pictures")
    with psycopg.connect(server, autocommit=True) as session, tempfile.TemporaryDirectory() as folder:
        session.execute(f"CREATE DATABASE {database}".encode())
        try:
            environment = {
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "PGBG_DSN": _url(server, database),
                "REDIS_URL": redis.start(),
                "TERM": "xterm-256color",
            }
            (Path(folder) / "shop.py").write_text(_APP)
            _run("celery -A shop pgbg install", Path(folder), environment)
            if wanted != ["plot"]:
                _record(Path(folder), environment)
            _plot(Path(folder), environment)
        finally:
            for pidfile in Path(folder).glob("*.pid"):
                os.kill(int(pidfile.read_text()), signal.SIGKILL)
            redis.purge()
            session.execute(f"DROP DATABASE {database} WITH (FORCE)".encode())


def _url(server: str, database: str) -> str:
    parts = conninfo.conninfo_to_dict(server, dbname=database)
    return f"postgresql://{parts['user']}@{parts['host']}:{parts['port']}/{database}"


def _record(folder: Path, environment: dict[str, str]) -> None:
    console = Console(record=True, width=_COLUMNS, file=Path(os.devnull).open("w"), force_terminal=True)  # noqa: SIM115
    begins: list[int] = []
    lines = 0
    for typed in _TYPED:
        command = typed.format(**_ids(environment))
        text = Text("$ ", style="bold green") + Text(command, style="bold")
        pidfile = " --pidfile=shop.pid" if command.startswith(_WORKER) else ""
        output = _run(command.partition("#")[0] + pidfile, folder, environment)
        if command.startswith(_WORKER):
            _await("the Celery worker is ready", lambda: "ready" in (folder / "shop.log").read_text())
        if " call " in command:
            task = command.split()[4].partition(".")[2]
            _await("it is launched", lambda task=task: task in _ids(environment))
        begins.append(lines)
        for part in (text, Text.from_ansi(output.rstrip())):
            lines += len(part.wrap(console, _COLUMNS)) if part.plain else 0
            if part.plain:
                console.print(part, soft_wrap=False)
    svg = console.export_svg(title="celery-pgbg", unique_id="recording")
    (PICTURES / "terminal.svg").write_text(_animated(svg, begins))
    _flower(folder, environment)


def _ids(environment: dict[str, str]) -> dict[str, str]:
    """The ids of the tasks that were launched, by the last part of their names."""
    with psycopg.connect(environment["PGBG_DSN"]) as session:
        rows = session.execute("SELECT task_name, task_id FROM celery_pgbg.execution").fetchall()
    return {name.rpartition(".")[2]: task_id for name, task_id in rows}


def _run(command: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a command on a terminal and give what it printed."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 30, _COLUMNS, 0, 0))
    process = subprocess.Popen(
        ["bash", "-c", command], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=its, stderr=its
    )
    os.close(its)
    printed = b""
    try:
        while part := os.read(ours, 65536):
            printed += part
    except OSError:
        pass  # the end of a terminal, on Linux
    os.close(ours)
    process.wait(_DEADLINE)
    return printed.decode().replace("\r\n", "\n")


def _await(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.1)


def _animated(svg: str, begins: list[int]) -> str:
    """Let the lines appear one after the other, with a pause before each command."""
    rules, moment = [], 0.0
    for line in sorted({int(number) for number in re.findall(r"#recording-line-(\d+)\)", svg)}):
        moment += _PAUSE if line in begins and line else _LINE
        rules.append(f'[clip-path="url(#recording-line-{line})"]{{animation:appear .01s {moment:.2f}s both}}')
    style = "@keyframes appear{from{opacity:0}to{opacity:1}}" + "".join(rules)
    calm = f"@media (prefers-reduced-motion:no-preference){{{style}}}"
    # Elsewhere the same font may be called otherwise; none is fetched.
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    return svg.replace("</style>", calm + "</style>", 1)


def _plot(folder: Path, environment: dict[str, str]) -> None:
    """Draw how a backfill goes on while its processes are killed."""
    _run(f"{_WORKER} -n plot@shop --pidfile plot.pid".replace("-n sql@shop ", ""), folder, environment)
    with psycopg.connect(environment["PGBG_DSN"], autocommit=True) as session:
        session.execute("CREATE TABLE purchase (id bigint PRIMARY KEY, price numeric, quantity int, total numeric)")
        session.execute(f"INSERT INTO purchase SELECT n, 3.5, n % 5 FROM generate_series(1, {_ROWS}) AS n".encode())
        _run("celery -A shop call shop.fill_totals", folder, environment)
        samples, kills = _sample(session, folder / "plot.pid")
    _draw(samples, kills)


def _sample(session: psycopg.Connection, pidfile: Path) -> tuple[list[tuple[float, int]], list[tuple[float, str]]]:
    """Look again and again how many rows are done; kill both processes in turn."""
    samples: list[tuple[float, int]] = []
    kills: list[tuple[float, str]] = []
    begin = None
    while not samples or samples[-1][1] < _ROWS:
        row = session.execute("SELECT walked_rows FROM celery_pgbg.walk").fetchone()
        begin = begin or time.monotonic()
        samples.append((time.monotonic() - begin, row[0] if row else 0))
        if len(kills) == 0 and samples[-1][1] > _ROWS / 4:
            kills.append((samples[-1][0], "kill of the background worker"))
            session.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE 'CALL celery_pgbg.walk_v1%'"
            )
        if len(kills) == 1 and samples[-1][1] > _ROWS * 0.6:
            kills.append((samples[-1][0], "kill -9 of the Celery worker"))
            os.kill(int(pidfile.read_text()), signal.SIGKILL)
            pidfile.unlink()
        time.sleep(0.02)
    return samples, kills


def _draw(samples: list[tuple[float, int]], kills: list[tuple[float, str]]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.6), dpi=110)
    axes.step([moment for moment, _ in samples], [rows / 1000 for _, rows in samples], where="post", color="#3949ab")
    for moment, said in kills:
        axes.axvline(moment, color="#c62828", linestyle="--", linewidth=1)
        axes.annotate(said, (moment, 30), xytext=(6, 0), textcoords="offset points", color="#c62828", fontsize=9)
    axes.set_xlabel("seconds")
    axes.set_ylabel("rows done, in thousands")
    axes.set_title("A batched UPDATE of a million rows, in commits of about 0.1 s", fontsize=10)
    axes.set_ylim(0)
    axes.set_xlim(0)
    figure.tight_layout()
    figure.savefig(PICTURES / "backfill.png")


def _flower(folder: Path, environment: dict[str, str]) -> None:
    port = free_port()
    command = ["celery", "-A", "shop", "flower", "--address=127.0.0.1", f"--port={port}"]
    flower = subprocess.Popen(
        command,
        cwd=folder,
        env={**environment, "FLOWER_UNAUTHENTICATED_API": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _await("Flower answers", lambda: _answers(f"{address}/api/workers"))
        _run(
            'python -c "import shop; [shop.close_month.delay(m) for m in range(1, 7)];'
            " shop.ship_order.delay(4711); shop.import_prices.delay('acme')\"",
            folder,
            environment,
        )
        _await("Flower has seen them", lambda: _answers(f"{address}/api/tasks", "shop.ship_order"))
        subprocess.run(
            [
                "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                "--window-size=1400,620",
                "--virtual-time-budget=8000", f"--screenshot={PICTURES / 'flower.png'}", f"{address}/tasks",
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
    finally:
        flower.terminate()
        flower.wait()


def _answers(url: str, holding: str = "") -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return holding in answer.read().decode()
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    main(sys.argv[1:])
