"""What a bot makes of its worker's answers: structs, or an error that says what is wrong with one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

import bus

from .fake_worker import FakeWorker

pytestmark = pytest.mark.anyio

Question = Callable[[bus.Bot], Awaitable[Any]]


async def answered(ask: Question, value: bytes) -> Any:
    """Return what a bot makes of a worker that answers with this value; what it raises is returned, too."""
    outcome: list[Any] = []

    async def question(bot: bus.Bot) -> None:
        try:
            outcome.append(await ask(bot))
        except bus.BusError as error:
            outcome.append(error)

    with FakeWorker("inproc://answers") as worker:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.welcome)
            async with bus.connect(worker.url, bot="b", context=worker.context) as bot:
                async with anyio.create_task_group() as asking:
                    asking.start_soon(question, bot)
                    while "request" not in (frame := await worker.next_frame()):
                        pass
                    worker.send_raw(b'{"op":"ok","request":%d,"value":%b}' % (frame["request"], value))
                tasks.start_soon(worker.farewell)
    return outcome[0]


@pytest.mark.parametrize(
    ("ask", "value", "text"),
    [
        (lambda bot: bot.status(), b"{}", "the answer for the status violates the protocol: "),
        (lambda bot: bot.status(), b'"fine"', "the answer for the status violates the protocol: "),
        (lambda bot: bot.bots(), b'{"bots":[{"id":"x"}]}', "the field 'name' is missing in"),
        (lambda bot: bot.channels(), b'{"channels":null}', "'channels' must be a list"),
        (lambda bot: bot.subscriptions(), b'{"subscriptions":{}}', "'subscriptions' must be a list"),
        (lambda bot: bot.dead_letters(), b'{"dead_letters":[1]}', "must be an object"),
        (lambda bot: bot.find("01900000-0000-7000-8000-000000000001"), b"null", "must be an object"),
        (lambda bot: bot.history(channel="news"), b'{"messages":[{}],"more":false}', "is missing in"),
        (lambda bot: bot.history(channel="news"), b'{"messages":[]}', "the field 'more' is missing"),
        (lambda bot: bot.retry_dead_letters([1]), b'{"retried":"all"}', "'retried' must be an integer"),
        (lambda bot: bot.subscribe("news"), b'{"channel":"news"}', "the field 'start_seq' is missing"),
        (lambda bot: bot.unsubscribe("news"), b"[]", "must be an object"),
    ],
)
async def test_an_answer_that_the_protocol_does_not_know_is_an_error(
    ask: Question, value: bytes, text: str
) -> None:
    error = await answered(ask, value)
    assert isinstance(error, bus.MalformedAnswer)
    assert text in str(error)


async def test_an_answer_of_a_newer_worker_is_read() -> None:
    value = b'{"messages":[],"more":false,"of_a_later_version":{"n":1}}'
    assert await answered(lambda bot: bot.history(channel="news"), value) == []


async def test_a_refusal_that_nobody_waits_for_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    refusal = {"op": "error", "code": "fenced", "message": "run 'r' is completed", "retry": False}
    with FakeWorker("inproc://refusals") as worker:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.welcome)
            async with bus.connect(worker.url, bot="b", context=worker.context) as bot:
                async with anyio.create_task_group() as asking:
                    asking.start_soon(bot.workflows.renew_run, "r", 1)
                    renewal = await worker.receive("workflow")
                    asking.cancel_scope.cancel()
                caplog.clear()
                worker.send(**refusal, request=renewal["request"])
                worker.send(**refusal, request=None)  # of a frame without a number
                tasks.start_soon(worker.farewell)
    assert [record.getMessage() for record in caplog.records] == [
        "the worker refused a frame: run 'r' is completed [fenced]"
    ]
