"""``manage.py sell tea 3.50 2026-01-17``."""

from datetime import date
from decimal import Decimal

from django.core.management.base import BaseCommand

from shop.sales import sell


class Command(BaseCommand):
    """Record a sale."""

    def add_arguments(self, parser):
        """Take what was sold, for how much, and when."""
        parser.add_argument("product")
        parser.add_argument("amount", type=Decimal)
        parser.add_argument("sold_on", type=date.fromisoformat)

    def handle(self, *, product, amount, sold_on, **options):
        """Record it."""
        sell(product, amount, sold_on)
