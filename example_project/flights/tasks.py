"""The SQL tasks."""

from celery_pgbg import sql_task


@sql_task(returns="count")
def roll_up(month: int) -> str:
    """One month's delays by carrier; run again, it replaces what it wrote."""
    return """
        INSERT INTO monthly_delay (month, carrier, flights, mean_delay, late_share)
        SELECT month, carrier, count(*), avg(arr_delay), avg((arr_delay > 15)::int)
        FROM flight
        WHERE month = %(month)s
        GROUP BY month, carrier
        ON CONFLICT (month, carrier) DO UPDATE
        SET flights = excluded.flights, mean_delay = excluded.mean_delay, late_share = excluded.late_share
    """


@sql_task(returns="count", reuse=True)
def audit(what: str) -> str:
    """One line of the audit: short, and many of them, so a background worker takes one after another."""
    return "INSERT INTO audit (what) VALUES (%(what)s)"


@sql_task(returns="row")
def summarise_year(counts: list[int]) -> str:
    """The year out of its months; ``counts`` is what the months returned."""
    return """
        SELECT
            %(counts)s::int[] AS rows_by_month,
            sum(flights)::int AS flights,
            round(sum(flights * mean_delay) / sum(flights), 2) AS mean_delay,
            (SELECT carrier FROM monthly_delay GROUP BY carrier ORDER BY avg(late_share) DESC LIMIT 1) AS latest_carrier
        FROM monthly_delay
    """


@sql_task(returns="count")
def backfill_weather() -> str:
    """Give every flight the wind at its departure, month by month, and tell how far it is."""
    return """
        DO $$
        BEGIN
            FOR m IN 1 .. 12 LOOP
                UPDATE flight SET wind_speed = weather.wind_speed
                FROM weather
                WHERE flight.month = m AND weather.origin = flight.origin AND weather.time_hour = flight.time_hour;
                PERFORM celery_pgbg.report_progress(m * 100 / 12, 'month ' || m);
            END LOOP;
        END $$;
        SELECT FROM flight WHERE wind_speed IS NOT NULL
    """


@sql_task(atomic=False)
def index_by_plane() -> str:
    """Stands alone: CREATE INDEX CONCURRENTLY is not allowed in a transaction block."""
    return "CREATE INDEX CONCURRENTLY IF NOT EXISTS flight_by_plane ON flight (tailnum)"


@sql_task(atomic=False)
def vacuum() -> str:
    """Stands alone too."""
    return "VACUUM (ANALYZE) flight"


@sql_task
def plane(tailnum: str) -> str:
    """A mistake: the table is called flight."""
    return "SELECT * FROM flights WHERE tailnum = %(tailnum)s"


@sql_task(returns="value")
def runaway() -> str:
    """Every flight joined with every flight: 113 billion rows, a few hours."""
    return "SELECT count(*) FROM flight AS a CROSS JOIN flight AS b WHERE a.distance + b.distance = 4711"
