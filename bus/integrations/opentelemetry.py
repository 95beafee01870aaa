"""OpenTelemetry for a bot: `bot.use(OpenTelemetry())`. Needs the extra `posthouse[opentelemetry]`.

Owns spans and metrics by OpenTelemetry's conventions for messaging, and the context in the headers of messages:
`traceparent`, `tracestate` and `baggage`, as the program's propagators write them. The conventions are not stable
yet, so their names are written out here.

A message carries the context of the span that sent it, on disk, and its handler's span is the child of that one. So
a trace goes on through replies, commits and runs, and after any restart.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.metrics import Histogram, MeterProvider
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TracerProvider

from ..client.draft import Draft
from ..client.message import Message
from ..client.middleware import ExecuteNext, HandleNext, Middleware
from ..client.sending import Sending, SendNext
from ..client.waiting import Receipt
from ..model.filters import ATTRIBUTE_CHARACTERS_MAX, ATTRIBUTES_MAX
from ..runs.run import Run
from ..wire.frames import is_id

__all__ = ["OpenTelemetry"]

_SCOPE = "posthouse"
_SYSTEM = "posthouse"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""The bounds of durations that the conventions advise."""

_HEADERS_MAX, _HEADER_BYTES_MAX = 32, 1024
"""A worker's limits: what it takes without this context must not be refused because of it."""

Attributes = dict[str, str | int]


class OpenTelemetry(Middleware):
    """Spans and metrics of what a bot sends and handles. One object may serve several bots.

    The providers and the propagator are by default the global ones, at the time when this is created.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        propagator: TextMapPropagator | None = None,
    ) -> None:
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        self._propagator = propagator or propagate.get_global_textmap()
        meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
        self._sent = meter.create_counter(
            "messaging.client.sent.messages", "{message}", "Messages that a bot attempted to send."
        )
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages", "{message}", "Messages that were delivered to a handler."
        )
        self._sending = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "How long it takes until sent messages are on the worker's disk.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._processing = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "How long a handler takes, with its reply.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )

    def __repr__(self) -> str:
        return "<OpenTelemetry>"

    async def send(self, sending: Sending, call_next: SendNext) -> Sequence[Receipt]:
        """Send messages in a producer span, whose context they carry."""
        attributes = _sent_attributes(sending)
        carried: dict[str, str] = {}
        with self._span(attributes, SpanKind.PRODUCER, self._sending) as span:
            for name, value in _of_all(sending).items():
                span.set_attribute(name, value)
            self._propagator.inject(carried)
            try:
                return await call_next(_with(sending, carried))
            except Exception as error:
                attributes = attributes | _failed(error)
                raise
            finally:
                self._sent.add(len(sending.drafts), attributes)

    async def handle(self, message: Message, call_next: HandleNext) -> Any:
        """Handle a message in a consumer span, the child of the one that sent it."""
        return await self.process(message, call_next)

    async def process(self, message: Message, function: Callable[[Message], Awaitable[Any]]) -> Any:
        """Call a function with a message in its consumer span: for a program that receives messages by itself."""
        attributes = _received_attributes(message)
        self._consumed.add(1, attributes)
        sent = self._propagator.extract(message.headers)
        creation = trace.get_current_span(sent).get_span_context()
        links = [Link(creation)] if creation.is_valid else []
        with self._span(attributes, SpanKind.CONSUMER, self._processing, sent, links) as span:
            for name, value in _of_one(message).items():
                span.set_attribute(name, value)
            return await function(message)

    def start(self, attributes: dict[str, str]) -> dict[str, str]:
        """Let a run that is started carry the context, as attributes."""
        carried: dict[str, str] = {}
        self._propagator.inject(carried)
        fitting = {name: value for name, value in carried.items() if len(value) <= ATTRIBUTE_CHARACTERS_MAX}
        return attributes if len({**attributes, **fitting}) > ATTRIBUTES_MAX else {**fitting, **attributes}

    async def execute(self, run: Run, call_next: ExecuteNext) -> Any:
        """Execute a run in a span, the child of the one that started the run; another one each time it goes on."""
        attributes = {
            "messaging.system": _SYSTEM,
            "posthouse.run.id": run.id,
            "posthouse.workflow.name": run.workflow,
        }
        context = self._propagator.extract(run.attributes)
        with self._tracer.start_as_current_span(
            f"run {run.workflow}", context=context, attributes=attributes
        ) as span:
            try:
                return await call_next(run)
            except Exception as error:
                span.set_attributes(_failed(error))
                raise

    @contextmanager
    def _span(
        self,
        attributes: Attributes,
        kind: SpanKind,
        duration: Histogram,
        context: Context | None = None,
        links: Sequence[Link] = (),
    ) -> Iterator[Span]:
        """Open a span, and measure how long it lasts, with these attributes and the type of its error."""
        parts = (attributes["messaging.operation.name"], attributes.get("messaging.destination.name"))
        began = perf_counter()
        measured: Attributes = attributes
        with self._tracer.start_as_current_span(
            " ".join(str(part) for part in parts if part),
            context=context,
            kind=kind,
            attributes=attributes,
            links=links,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except Exception as error:
                measured = attributes | _failed(error)
                span.set_attribute("error.type", measured["error.type"])
                span.record_exception(error)
                span.set_status(Status(StatusCode.ERROR, str(error)))
                raise
            finally:
                duration.record(perf_counter() - began, measured)


def _failed(error: Exception) -> Attributes:
    kind = type(error)
    name = kind.__qualname__
    return {"error.type": name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"}


def _sent_attributes(sending: Sending) -> Attributes:
    """Return the attributes of spans and of metrics: few values each."""
    attributes: Attributes = {
        "messaging.system": _SYSTEM,
        "messaging.operation.name": sending.operation,
        "messaging.operation.type": "send",
    }
    destinations = {_destination(draft) for draft in sending.drafts}
    if len(destinations) == 1 and (name := destinations.pop()):
        attributes["messaging.destination.name"] = name
    return attributes


def _destination(draft: Draft) -> str:
    """Return the name of a channel or a bot. Ids, to which replies are sent, would be too many different names."""
    return draft.channel or ("" if is_id(draft.to or "") else draft.to or "")


def _of_all(sending: Sending) -> Attributes:
    """Return the attributes of the span alone."""
    attributes: Attributes = {"messaging.client.id": sending.sender}
    if sending.operation in ("send_all", "commit"):
        attributes["messaging.batch.message_count"] = len(sending.drafts)
    if len(sending.drafts) == 1:
        [draft] = sending.drafts
        attributes["messaging.message.id"] = draft.id or ""
        attributes["posthouse.message.type"] = draft.message_type
        attributes["messaging.message.conversation_id"] = draft.reply_to or draft.id or ""
    return attributes


def _received_attributes(message: Message) -> Attributes:
    attributes: Attributes = {
        "messaging.system": _SYSTEM,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": message.channel or message.bot,
    }
    if message.group is not None:
        attributes["messaging.consumer.group.name"] = message.group
    return attributes


def _of_one(message: Message) -> Attributes:
    return {
        "messaging.client.id": message.bot,
        "messaging.message.id": message.id,
        "messaging.message.conversation_id": message.reply_to or message.id,
        "posthouse.message.type": message.message_type,
        "posthouse.message.sender": message.sender,
        "posthouse.message.seq": message.seq,
        "posthouse.message.attempt": message.attempt,
    }


def _with(sending: Sending, carried: Mapping[str, str]) -> Sending:
    """Return messages with a context, or without what would not fit into the headers of one of them."""
    fitting = {name: value for name, value in carried.items() if len(value.encode()) <= _HEADER_BYTES_MAX}
    most = max((len({**(draft.headers or {}), **fitting}) for draft in sending.drafts), default=0)
    return sending if most > _HEADERS_MAX else sending.with_headers(fitting)
