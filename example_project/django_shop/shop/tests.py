"""How SQL tasks are tested with Django's own test cases."""

from datetime import date
from decimal import Decimal

from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase

from celery_pgbg.runners import close_runners
from celery_pgbg.testing import inline
from shop.models import MonthlyTotal, Sale
from shop.sales import sell
from shop.tasks import close_month, sales_of, vacuum_sales

JANUARY = date(2026, 1, 1)


def sent_tasks():
    """What was sent in the test's transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT envelope::json -> 'headers' ->> 'task' FROM celery_pgbg.message")
        return [name for (name,) in cursor.fetchall()]


class CloseMonthTest(TestCase):
    """In the test's own transaction."""

    def test_a_month_is_added_up(self):
        Sale.objects.create(sold_on=date(2026, 1, 31), product="tea", amount="3.50")
        Sale.objects.create(sold_on=date(2026, 1, 2), product="tea", amount="1.50")
        Sale.objects.create(sold_on=date(2026, 2, 1), product="tea", amount="9")
        with inline(connection):
            self.assertEqual(close_month(JANUARY), 1)
        self.assertEqual(MonthlyTotal.objects.get().amount, Decimal("5.00"))

    def test_a_sale_sends_in_its_transaction(self):
        with transaction.atomic():
            sell("tea", Decimal("3.50"), date(2026, 1, 17))
            transaction.set_rollback(True)
        self.assertEqual(sent_tasks(), [])
        sell("tea", Decimal("3.50"), date(2026, 1, 17))
        self.assertEqual(sent_tasks(), [close_month.name])


class VacuumTest(TransactionTestCase):
    """In a background worker."""

    @classmethod
    def tearDownClass(cls):
        """End the sessions that run SQL tasks, else the test database cannot be dropped."""
        close_runners()
        super().tearDownClass()

    def test_the_table_is_vacuumed(self):
        self.assertEqual(vacuum_sales(), "VACUUM")

    def test_a_background_worker_sees_what_is_committed(self):
        Sale.objects.create(sold_on=date(2026, 1, 31), product="100% tea", amount="3.50")
        Sale.objects.create(sold_on=date(2026, 1, 31), product="rice", amount="1.50")
        self.assertEqual(sales_of("100% tea"), [{"sold_on": date(2026, 1, 31), "amount": Decimal("3.50")}])
