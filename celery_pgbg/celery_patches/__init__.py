"""Every place where Celery is patched or its internals are read, each with the reason and the versions."""
