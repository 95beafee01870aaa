"""A greeter and a visitor in one trace, whose spans are printed when they end.

Needs `pip install 'posthouse[opentelemetry]' opentelemetry-sdk`. In a program of yours, exporters of OpenTelemetry
send the spans to Jaeger, Grafana or another service.
"""

import os

import anyio
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

import bus
from bus.integrations.opentelemetry import OpenTelemetry

URL = os.environ.get("POSTHOUSE_URL")

provider = TracerProvider()
provider.add_span_processor(
    SimpleSpanProcessor(ConsoleSpanExporter(formatter=lambda span: f"{span.context.trace_id:032x} {span.name}\n"))
)
trace.set_tracer_provider(provider)

greeter = bus.Bot("traced-greeter", URL)
greeter.use(OpenTelemetry())


@greeter.on_message("visit")
async def greet(message: bus.Message) -> dict[str, str]:
    return {"text": f"hello, {message.body['name']}"}


async def main() -> None:
    async with bus.connect(URL, bot="traced-visitor") as visitor, anyio.create_task_group() as tasks:
        visitor.use(OpenTelemetry())
        await tasks.start(greeter.serve)
        with trace.get_tracer("example").start_as_current_span("visit"):
            reply = await visitor.request("traced-greeter", {"name": "Ada"}, message_type="visit")
        print(reply.sender, "says", reply.body["text"])
        greeter.stop()


anyio.run(main)
