"""The tasks, found by ``autodiscover_tasks``."""

from datetime import date

from celery import shared_task

from celery_pgbg import sql_task
from shop.models import MonthlyTotal, Sale


@sql_task(returns="count")
def close_month(month: date):
    """Add up a month's sales; run again, it replaces what it wrote."""
    return f"""
        INSERT INTO {MonthlyTotal._meta.db_table} (month, product, amount)
        SELECT %(month)s::date, product, sum(amount)
        FROM {Sale._meta.db_table}
        WHERE sold_on >= %(month)s AND sold_on < %(month)s::date + interval '1 month'
        GROUP BY product
        ON CONFLICT (month, product) DO UPDATE SET amount = excluded.amount
    """


@sql_task
def sales_of(product: str):
    """A queryset that selects can be the statement."""
    return Sale.objects.filter(product=product).order_by("sold_on").values("sold_on", "amount").query.sql_with_params()


@sql_task(atomic=False)
def vacuum_sales():
    """Stands alone, outside a transaction block; the periodic task of the example."""
    return f"VACUUM (ANALYZE) {Sale._meta.db_table}"


@shared_task
def best_product(month: date):
    """A task in Python, with Django's ORM, on the same Celery worker."""
    return MonthlyTotal.objects.filter(month=month).order_by("-amount").first().product
