"""What SQL tasks need in this database, also in the one that Django's test runner makes."""

from django.db import migrations

from celery_pgbg.database.schema import install_script


class Migration(migrations.Migration):
    """The same as ``celery -A shop pgbg install``."""

    dependencies = [("shop", "0001_initial")]
    operations = [migrations.RunSQL(install_script([]), migrations.RunSQL.noop)]
    atomic = False  # the script is a transaction of its own
