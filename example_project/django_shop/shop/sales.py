"""What the rest of the project does with sales."""

from datetime import date
from decimal import Decimal

from django.db import connection, transaction

from celery_pgbg import sending_in
from shop.models import Sale
from shop.tasks import close_month


@transaction.atomic
def sell(product: str, amount: Decimal, sold_on: date):
    """Record a sale, and with it that its month is to be brought up to date."""
    Sale.objects.create(product=product, amount=amount, sold_on=sold_on)
    with sending_in(connection):
        close_month.delay(sold_on.replace(day=1))
