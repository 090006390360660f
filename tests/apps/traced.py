"""The test app under OpenTelemetry and Sentry, which write to files: ``PGBG_TEST_SPANS``, ``PGBG_TEST_SENTRY``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import sentry_sdk
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.transport import Transport

from tests.apps.shop import make_app


class FileTransport(Transport):
    """Writes each event and transaction as a line of JSON."""

    def capture_envelope(self, envelope: Any) -> None:
        with Path(os.environ["PGBG_TEST_SENTRY"]).open("a") as file:
            for item in envelope.items:
                if item.type in ("event", "transaction"):
                    file.write(json.dumps(item.payload.json, default=str) + "\n")


if "PGBG_TEST_SPANS" in os.environ:
    provider = TracerProvider()
    out = Path(os.environ["PGBG_TEST_SPANS"]).open("a")  # noqa: SIM115 - open as long as the process lives
    exporter = ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\n")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    CeleryInstrumentor().instrument(tracer_provider=provider)
    sentry_sdk.init(
        dsn="http://public@127.0.0.1/1",
        transport=FileTransport,
        traces_sample_rate=1.0,
        integrations=[CeleryIntegration()],
    )

app = make_app(**json.loads(os.environ["PGBG_TEST_APP"]))
