"""The test app under OpenTelemetry and Sentry, which write to files: ``PGBG_TEST_SPANS``, ``PGBG_TEST_SENTRY``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from sentry_sdk import client
from sentry_sdk.transport import Transport

from tests.apps.shop import make_app
from tests.doc_blocks import PROJECT, python_blocks


class FileTransport(Transport):
    """Writes each event and transaction as a line of JSON."""

    def capture_envelope(self, envelope: Any) -> None:
        with Path(os.environ["PGBG_TEST_SENTRY"]).open("a") as file:
            for item in envelope.items:
                if item.type in ("event", "transaction"):
                    file.write(json.dumps(item.payload.json, default=str) + "\n")


out = Path(os.environ["PGBG_TEST_SPANS"]).open("a")  # noqa: SIM115 - open as long as the process lives
provider = TracerProvider()
exporter = ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\n")
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
os.environ["SENTRY_DSN"] = "http://public@127.0.0.1/1"
client.make_transport = FileTransport

# What starts the two is the code that the documentation shows.
for block in python_blocks(PROJECT / "docs" / "how-to" / "monitor.md"):
    exec(block)

app = make_app(**json.loads(os.environ["PGBG_TEST_APP"]))
