"""The tables of the example."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """As ``makemigrations`` wrote it."""

    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Sale",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("sold_on", models.DateField()),
                ("product", models.TextField()),
                ("amount", models.DecimalField(decimal_places=2, max_digits=12)),
            ],
        ),
        migrations.CreateModel(
            name="MonthlyTotal",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("month", models.DateField()),
                ("product", models.TextField()),
                ("amount", models.DecimalField(decimal_places=2, max_digits=14)),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("month", "product"), name="one_total_each")],
            },
        ),
    ]
