"""Every place where Celery is changed or its inside is read, each with the reason and the versions."""
