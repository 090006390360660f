"""The app of a Celery worker process that a test starts: the user's, with the test's configuration."""

from __future__ import annotations

import json
import os

from celery import Celery
from celery.app.utils import find_app

_given = json.loads(os.environ["PGBG_TESTING"])

app: Celery = find_app(_given["app"]) if _given["app"] else Celery(_given["main"], include=_given["include"])
app.conf.update(_given["settings"])
