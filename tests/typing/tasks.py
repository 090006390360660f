"""Tasks as a user writes and calls them, for mypy and pyright. A wrong line says ``# error``, all others are right."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from typing_extensions import assert_type

from celery_pgbg import sql_task


@sql_task
def close_month(month: date, limit: int = 100) -> str:
    return "INSERT INTO totals SELECT %(month)s RETURNING id"


@sql_task(returns="rows", queue="reports", max_retries=3)
def totals(month: date) -> str:
    return "SELECT * FROM totals WHERE month = %(month)s"


@sql_task(returns="row")
def total(key: int) -> tuple[str, dict[str, Any]]:
    return "SELECT * FROM totals WHERE id = %(key)s", {"key": key}


@sql_task(returns="count", settings={"work_mem": "64MB"}, role="writer")
def forget(key: int) -> str:
    return "DELETE FROM totals WHERE id = %(key)s"


@sql_task(returns="count", bind=True)
def forget_bound(self: Any, key: int) -> str:
    return "DELETE FROM totals WHERE id = %(key)s"


@sql_task(returns="value")
def newest() -> str:
    return "SELECT max(month) FROM totals"


@sql_task(atomic=False)
def vacuum(table: str) -> str:
    return "VACUUM totals"


@sql_task(atomic=False, returns="row")
def fill() -> str:
    return "CALL fill()"


@dataclass
class Total:
    id: int
    total: int


@sql_task(rows_as=Total)
def objects(month: date) -> str:
    return "SELECT * FROM totals WHERE month = %(month)s"


@sql_task(rows_as=Total, returns="row", bind=True)
def newest_object(self: Any) -> str:
    return "SELECT * FROM totals ORDER BY month DESC"


roll_up = sql_task(file="rollup.sql")
close = sql_task(call="billing.close_month", returns="value")

assert_type(objects.delay(date.today()).get(), list[Total])
assert_type(newest_object.delay().get(), "Total | None")
assert_type(roll_up.delay(1, year=2026).get(), Any)
assert_type(close.delay(1).get(), Any)
assert_type(close_month.delay(date.today()).get(), "list[dict[str, Any]] | int")
assert_type(totals.delay(month=date.today()).get(timeout=5), "list[dict[str, Any]]")
assert_type(total.delay(1).get(), "dict[str, Any] | None")
assert_type(forget.delay(1).get(), int)
assert_type(forget.apply_async((1,), countdown=3).get(), int)
assert_type(forget.s(1).delay().get(), int)
assert_type(forget.si(1).apply_async().get(), int)
assert_type(forget(1), int)
assert_type(forget_bound.delay(1).get(), int)
assert_type(newest.delay().get(), Any)
assert_type(vacuum.delay("totals").get(), str)
assert_type(fill.delay().get(), "dict[str, Any] | None")
result = forget.delay(1)
print(result.id, result.state, forget.name)
result.revoke(terminate=True)
forget.s()

close_month.delay("May")  # error
totals.delay()  # error
forget.delay(1, 2)  # error
forget.delay(kye=1)  # error
forget.si()  # error
forget_bound.delay()  # error
word: str = forget.delay(1).get()  # error
sql_task(returns="rowz")(newest.body)  # error
