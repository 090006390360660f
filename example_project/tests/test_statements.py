"""What the statements do: each test in a transaction of its own, which is rolled back."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from celery import chord
from flights import tasks

Connection = psycopg.Connection[tuple[Any, ...]]

FLIGHTS = """
    INSERT INTO flight (month, carrier, arr_delay, origin, time_hour) VALUES
        (1, 'AA', 20, 'JFK', '2013-01-01 10:00Z'), (1, 'AA', 0, 'JFK', '2013-01-01 11:00Z'),
        (1, 'UA', -10, 'EWR', '2013-01-01 10:00Z'), (2, 'UA', NULL, 'EWR', '2013-02-01 10:00Z'),
        (2, 'UA', 30, 'EWR', '2013-02-01 10:00Z');
    INSERT INTO weather (origin, time_hour, wind_speed) VALUES ('JFK', '2013-01-01 10:00Z', 12.5)
"""


@pytest.fixture
def db(pgbg_database: str, pgbg_inline: Callable[..., None], celery_app: Any) -> Iterator[Connection]:
    """Five flights, in a transaction that the tasks run in too."""
    with psycopg.connect(pgbg_database) as connection:
        connection.execute(FLIGHTS)
        pgbg_inline(connection, app=celery_app)
        yield connection
        connection.rollback()


def test_a_month_is_rolled_up_by_carrier(db: Connection) -> None:
    assert tasks.roll_up(1) == 2
    rows = db.execute("SELECT carrier, flights, mean_delay::int, late_share::float8 FROM monthly_delay ORDER BY 1")
    assert rows.fetchall() == [("AA", 2, 10, 0.5), ("UA", 1, -10, 0.0)]


def test_rolled_up_again_it_replaces_what_it_wrote(db: Connection) -> None:
    tasks.roll_up(1)
    db.execute("UPDATE flight SET arr_delay = 0")
    assert tasks.roll_up(1) == 2
    assert db.execute("SELECT sum(abs(mean_delay)) FROM monthly_delay").fetchone() == (0,)


def test_the_year_is_summed_up_when_its_months_are_done(db: Connection) -> None:
    year = chord((tasks.roll_up.s(month) for month in (1, 2)), tasks.summarise_year.s()).delay().get()
    assert year["rows_by_month"] == [2, 1]
    assert (year["flights"], year["latest_carrier"]) == (5, "AA")


def test_flights_get_the_wind_at_their_departure(db: Connection) -> None:
    assert tasks.backfill_weather() == 1
    assert db.execute("SELECT wind_speed FROM flight WHERE wind_speed IS NOT NULL").fetchall() == [(12.5,)]


def test_a_mistake_is_psycopgs_error(db: Connection) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable, match="flights"):
        tasks.plane("N14228")
