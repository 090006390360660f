"""``manage.py schedule_vacuum``."""

import zoneinfo

from django.core.management.base import BaseCommand
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask

from shop.tasks import vacuum_sales


class Command(BaseCommand):
    """Let django-celery-beat send ``vacuum_sales`` every night, or every so many seconds to see it work."""

    def add_arguments(self, parser):
        """Take the seconds."""
        parser.add_argument("--every", type=int, metavar="SECONDS")

    def handle(self, *, every, **options):
        """Create the periodic task, or change it."""
        if every:
            interval, _ = IntervalSchedule.objects.get_or_create(every=every, period=IntervalSchedule.SECONDS)
            schedule = {"interval": interval, "crontab": None}
        else:
            utc = zoneinfo.ZoneInfo("UTC")
            night, _ = CrontabSchedule.objects.get_or_create(minute="30", hour="3", timezone=utc)
            schedule = {"crontab": night, "interval": None}
        PeriodicTask.objects.update_or_create(name="vacuum sales", defaults={"task": vacuum_sales.name, **schedule})
