"""Spans and metrics of what bots send and handle, and a trace that goes on through everything that is stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import bus
from bus.integrations.opentelemetry import OpenTelemetry
from bus.model.records import GlobalOwner, WorkflowDefinition
from bus.settings import Delivery, Settings
from bus.testing import Worker

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 60

DIGEST = WorkflowDefinition(id="digest", name="digest", owner=GlobalOwner())


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    delivery = Delivery(backoff_seconds=(0.05,), max_deliver=3)
    with Worker(tmp_path / "posthouse.db", Settings(delivery=delivery)) as running:
        yield running


class Telemetry:
    """What was exported, in memory."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self._meters = MeterProvider(metric_readers=[self._reader])
        self.middleware = OpenTelemetry(tracer_provider=self.tracers, meter_provider=self._meters)

    def used_by(self, bot: bus.Bot) -> bus.Bot:
        bot.use(self.middleware)
        return bot

    @contextmanager
    def began(self, name: str = "begin") -> Iterator[int]:
        """Open a span of the program's own, and give the id of its trace."""
        with self.tracers.get_tracer("test").start_as_current_span(name) as span:
            yield span.get_span_context().trace_id

    @property
    def spans(self) -> list[ReadableSpan]:
        """The spans that have ended, by their beginnings."""
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def of(self, trace_id: int) -> list[str]:
        """Return the names of a trace's spans, by their beginnings."""
        return [span.name for span in self.spans if context_of(span).trace_id == trace_id]

    async def has(self, name: str, count: int = 1) -> list[ReadableSpan]:
        """Wait until so many spans with a name have ended, and return them."""
        with anyio.fail_after(BOUND_SECONDS):
            while len(found := [span for span in self.spans if span.name == name]) < count:
                await anyio.sleep(0.01)
        return found

    @property
    def metrics(self) -> dict[str, list[tuple[dict[str, Any], Any]]]:
        """The points of each metric: its attributes, and how often it was recorded, or its sum."""
        data = self._reader.get_metrics_data()
        return {
            metric.name: [
                (dict(point.attributes or {}), vars(point).get("count", vars(point).get("value")))
                for point in metric.data.data_points
            ]
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


def context_of(span: ReadableSpan) -> trace.SpanContext:
    found: trace.SpanContext | None = span.context
    assert found is not None
    return found


def parents(spans: list[ReadableSpan]) -> dict[str, str | None]:
    """Return the name of each span's parent."""
    names = {context_of(span).span_id: span.name for span in spans}
    return {span.name: names.get(span.parent.span_id) if span.parent else None for span in spans}


async def test_a_request_and_its_reply_are_one_trace(worker: Worker, telemetry: Telemetry) -> None:
    bot = telemetry.used_by(worker.connect(bot="oracle"))

    @bot.on_message("question")
    async def answer(message: bus.Message) -> bus.Reply:
        await bot.publish("news", "asked")
        return bus.Reply("it depends", message_type="answer")

    @bot.on_channel("news", echo=True, group="team")
    async def read(message: bus.Message) -> None: ...

    async with worker.serve(bot), telemetry.used_by(worker.connect(bot="asker")) as asker:
        with telemetry.began() as trace_id:
            reply = await asker.request("oracle", "why?", message_type="question")
        await telemetry.has("process news")
        await telemetry.has("process oracle")
    assert sorted(telemetry.of(trace_id)) == [
        "begin",
        "process news",
        "process oracle",
        "publish news",
        "reply",
        "request oracle",
    ]
    found = {span.name: span for span in telemetry.spans}
    assert parents(telemetry.spans) == {
        "begin": None,
        "request oracle": "begin",
        "process oracle": "request oracle",
        "publish news": "process oracle",
        "process news": "publish news",
        "reply": "process oracle",
    }
    asked, handled, read_ = found["request oracle"], found["process oracle"], found["process news"]
    assert (asked.kind, handled.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert asked.attributes == {
        "messaging.system": "posthouse",
        "messaging.operation.name": "request",
        "messaging.operation.type": "send",
        "messaging.destination.name": "oracle",
        "messaging.client.id": "asker",
        "messaging.message.id": reply.reply_to,
        "messaging.message.conversation_id": reply.reply_to,
        "posthouse.message.type": "question",
    }
    assert handled.attributes == {
        "messaging.system": "posthouse",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "oracle",
        "messaging.client.id": "oracle",
        "messaging.message.id": reply.reply_to,
        "messaging.message.conversation_id": reply.reply_to,
        "posthouse.message.type": "question",
        "posthouse.message.sender": "asker",
        "posthouse.message.seq": 1,
        "posthouse.message.attempt": 1,
    }
    assert (read_.attributes or {})["messaging.consumer.group.name"] == "team"
    [link] = handled.links
    assert (link.context.trace_id, link.context.span_id) == (trace_id, context_of(asked).span_id)
    assert reply.headers["traceparent"].split("-")[1] == f"{trace_id:032x}"


async def test_errors_are_of_the_spans_and_of_the_metrics(worker: Worker, telemetry: Telemetry) -> None:
    bot = telemetry.used_by(worker.connect(bot="clumsy"))

    @bot.on_message()
    async def drop(message: bus.Message) -> None:
        if message.attempt == 1:
            raise ZeroDivisionError("dropped it")

    async with worker.serve(bot):
        with pytest.raises(bus.UnknownBot):
            await bot.send("nobody", 1)
        await bot.send("clumsy", 1)
        await telemetry.has("process clumsy", 2)
    [refused] = await telemetry.has("send nobody")
    assert (refused.status.status_code, (refused.attributes or {})["error.type"]) == (
        StatusCode.ERROR,
        "bus.errors.UnknownBot",
    )
    first, second = await telemetry.has("process clumsy", 2)
    assert (first.status.status_code, first.status.description) == (StatusCode.ERROR, "dropped it")
    assert [event.name for event in first.events] == ["exception"]
    assert (second.status.status_code, (second.attributes or {})["posthouse.message.attempt"]) == (
        StatusCode.UNSET,
        2,
    )
    assert first.parent == second.parent, "each attempt is a child of the span that sent the message"
    sent = {
        "messaging.system": "posthouse",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
    }
    ours = {"messaging.destination.name": "clumsy"}
    theirs = {"messaging.destination.name": "nobody", "error.type": "bus.errors.UnknownBot"}
    processed = {**sent, **ours, "messaging.operation.name": "process", "messaging.operation.type": "process"}
    assert telemetry.metrics == {
        "messaging.client.sent.messages": [({**sent, **theirs}, 1), ({**sent, **ours}, 1)],
        "messaging.client.operation.duration": [({**sent, **theirs}, 1), ({**sent, **ours}, 1)],
        "messaging.client.consumed.messages": [(processed, 2)],
        "messaging.process.duration": [({**processed, "error.type": "ZeroDivisionError"}, 1), (processed, 1)],
    }


async def test_a_trace_goes_on_after_restarts_of_bot_and_worker(worker: Worker, telemetry: Telemetry) -> None:
    """The handler is gone while it works; another process of the bot handles the message, and its run goes on."""
    began = anyio.Event()

    def planner(*, stays: bool) -> bus.Bot:
        bot = telemetry.used_by(worker.connect(bot="planner"))

        @bot.on_message("goal")
        async def plan(message: bus.Message) -> None:
            async with bot.workflows.run("digest", id=message.id, definition=DIGEST) as run:
                await run.step("tell", bot.publish, "news", "one")
                if not stays:
                    began.set()
                    await anyio.sleep_forever()
                async with run.commit("done") as tx:
                    tx.publish("news", "two")
                    tx.ack(message)

        return bot

    async with telemetry.used_by(worker.connect(bot="asker")) as asker:
        async with worker.connect(bot="planner"):
            pass
        with telemetry.began() as trace_id:
            sent = await asker.send("planner", 1, message_type="goal")
        first = planner(stays=False)
        with anyio.fail_after(BOUND_SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(first.serve, stop_timeout=0.1))
                await began.wait()
                tasks.cancel_scope.cancel()
        worker.kill()
        worker.start()
        async with anyio.create_task_group() as tasks:
            second = planner(stays=True)
            await tasks.start(second.serve)
            await telemetry.has("commit news")
            await telemetry.has("process planner", 2)
            second.stop()
        public = await asker.history(channel="news")
        run = await asker.workflows.get_run(sent.id)
    assert telemetry.of(trace_id) == [
        "begin",
        "send planner",
        "process planner",
        "publish news",
        "process planner",
        "commit news",
    ]
    assert {stored.headers["traceparent"].split("-")[1] for stored in public} == {f"{trace_id:032x}"}
    assert run is not None
    assert run.attributes["traceparent"].split("-")[1] == f"{trace_id:032x}"


async def test_a_run_that_is_started_for_another_bot_belongs_to_the_trace(
    worker: Worker, telemetry: Telemetry
) -> None:
    bot = telemetry.used_by(worker.connect(bot="digester"))
    page = WorkflowDefinition(id="page", name="page", owner=GlobalOwner())

    @bot.on_run("digest", definition=DIGEST)
    async def digest(run: bus.Run) -> Any:
        return await run.call("page", "a")

    @bot.workflow("page", definition=page)
    async def fetch(run: bus.Run, name: str) -> str:
        async with run.commit("tell") as tx:
            tx.publish("news", name)
        return name

    async with worker.serve(bot), telemetry.used_by(worker.connect(bot="asker")) as asker:
        with telemetry.began() as trace_id:
            handle = await asker.workflows.start("digest", id="one", attributes={"tenant": "acme"})
        assert await handle.result(timeout=BOUND_SECONDS) == "a"
        again = await asker.workflows.start("digest", id="one")
        assert await again.result(timeout=BOUND_SECONDS) == "a"
        await telemetry.has("run digest")
        run = await asker.workflows.get_run("one")
    assert telemetry.of(trace_id) == ["begin", "run digest", "run page", "commit news"]
    [span] = await telemetry.has("run digest")
    assert (span.attributes or {})["posthouse.run.id"] == "one"
    assert run is not None
    assert run.attributes.keys() == {"tenant", "traceparent"}


async def test_several_messages_of_one_call_are_one_span(worker: Worker, telemetry: Telemetry) -> None:
    async with telemetry.used_by(worker.connect(bot="a")) as bot:
        await bot.send_all([bus.Draft(channel="news", body=1), bus.Draft(channel="other", body=2)])
        [span] = telemetry.spans
        messages = [*await bot.history(channel="news"), *await bot.history(channel="other")]
    assert span.name == "send_all"
    assert (span.attributes or {})["messaging.batch.message_count"] == 2
    carried = {message.headers["traceparent"].split("-")[2] for message in messages}
    assert carried == {f"{context_of(span).span_id:016x}"}


async def test_a_message_is_not_refused_for_its_context(worker: Worker, telemetry: Telemetry) -> None:
    async with telemetry.used_by(worker.connect(bot="a")) as bot:
        token = context.attach(baggage.set_baggage("tenant", "x" * 2000))
        try:
            await bot.publish("news", 1)
        finally:
            context.detach(token)
        await bot.publish("news", 2, headers={f"h{number}": "x" for number in range(32)})
        full, large = await bot.history(channel="news")
    assert large.headers.keys() == {"traceparent"}
    assert len(full.headers) == 32


async def test_in_a_loop_of_ones_own(worker: Worker, telemetry: Telemetry) -> None:
    async def work(message: bus.Message) -> str:
        return f"{trace.get_current_span().get_span_context().trace_id:032x}"

    async with telemetry.used_by(worker.connect(bot="a")) as bot:
        await bot.send("a", 1)
        async with await bot.receive(timeout=BOUND_SECONDS) as message:
            trace_id = await telemetry.middleware.process(message, work)
    assert message.headers["traceparent"].split("-")[1] == trace_id
    assert [span.name for span in telemetry.spans] == ["send a", "process a"]


async def test_it_leaves_no_context_behind(worker: Worker, telemetry: Telemetry) -> None:
    """A task handles one message after another, and each begins with nothing of those before."""
    bot, seen = telemetry.used_by(worker.connect(bot="a")), []

    @bot.on_message()
    async def note(message: bus.Message) -> None:
        seen.append(trace.get_current_span().get_span_context().trace_id)

    async with worker.connect(bot="b") as b, worker.serve(bot, concurrency=1):
        for _ in range(3):
            await b.send("a", 1)
        await telemetry.has("process a", 3)
    assert len(set(seen)) == 3, "messages without a context begin traces of their own"
    assert {span.parent for span in telemetry.spans} == {None}
