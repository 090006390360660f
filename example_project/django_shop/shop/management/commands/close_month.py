"""``manage.py close_month 2026-01-01``."""

from datetime import date

from celery import chain
from django.core.management.base import BaseCommand

from shop.tasks import best_product, close_month


class Command(BaseCommand):
    """Close a month, and tell how many products were sold in it and which sold best."""

    def add_arguments(self, parser):
        """Take the month's first day."""
        parser.add_argument("month", type=date.fromisoformat)

    def handle(self, *, month, **options):
        """Send a chain of a SQL task and a Python task, and wait for its result."""
        best = chain(close_month.si(month), best_product.si(month)).delay()
        self.stdout.write(f"{best.get(timeout=60)} sold best of {best.parent.get(timeout=60)} products")
