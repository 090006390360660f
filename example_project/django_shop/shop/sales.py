"""What the rest of the project does with sales."""

from datetime import date
from decimal import Decimal

from django.db import transaction

from shop.models import Sale
from shop.tasks import close_month


@transaction.atomic
def sell(product: str, amount: Decimal, sold_on: date):
    """Record a sale, and bring its month up to date once it is committed."""
    Sale.objects.create(product=product, amount=amount, sold_on=sold_on)
    close_month.delay_on_commit(sold_on.replace(day=1))
