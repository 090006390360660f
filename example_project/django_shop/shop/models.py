"""Sales come in; a task adds them up by month."""

from django.db import models


class Sale(models.Model):
    """One sale."""

    sold_on = models.DateField()
    product = models.TextField()
    amount = models.DecimalField(max_digits=12, decimal_places=2)


class MonthlyTotal(models.Model):
    """What was sold of a product in a month; written by ``close_month``."""

    month = models.DateField()
    product = models.TextField()
    amount = models.DecimalField(max_digits=14, decimal_places=2)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["month", "product"], name="one_total_each")]
