"""Bodies of types: what a handler takes, what does not fit, what is sent, and what mypy says of it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypedDict, assert_type

import anyio
import msgspec
import pydantic
import pytest

import bus
from bus.testing import Worker
from tests.engines import sqlite_only

from .test_application import Handled, serving

pytestmark = [pytest.mark.anyio, sqlite_only("the client alone reads bodies")]


@pytest.fixture
def anyio_backend() -> str:
    """One event loop: nothing here waits for anything but messages."""
    return "asyncio"


class Step(msgspec.Struct):
    text: str
    hours: int = 1


class Goal(msgspec.Struct):
    text: str
    steps: list[Step] = []
    until: datetime | None = None


@dataclasses.dataclass
class Plan:
    text: str
    steps: list[Step]


class Note(TypedDict):
    text: str
    likes: int


class Order(pydantic.BaseModel):
    text: str
    count: int = pydantic.Field(gt=0)


NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)

VALUES: list[tuple[Any, Any]] = [
    (Goal, Goal("a", [Step("b", 2)], NOON)),
    (Plan, Plan("a", [Step("b")])),
    (Note, Note(text="a", likes=3)),
    (Order, Order(text="a", count=3)),
    (list[Order], [Order(text="a", count=3)]),
    (dict[int, Goal], {5: Goal("a")}),
    (Goal | None, Goal("a")),
]


@pytest.mark.parametrize(("kind", "value"), VALUES, ids=[str(kind) for kind, _ in VALUES])
async def test_what_is_sent_is_taken_as_it_was(worker: Worker, kind: Any, value: Any) -> None:
    bot, handled = worker.connect(bot="planner"), Handled()

    async def direct(message: bus.Message) -> Any:
        handled.note("direct", message.body)
        return message.body

    async def published(message: bus.Message) -> None:
        handled.note("published", message.body)

    bot.on_message("goal", body=kind)(direct)
    bot.on_channel("goals", body=kind)(published)
    async with worker.connect(bot="a") as a, serving(bot):
        reply = await a.request("planner", value, message_type="goal")
        assert reply.body_as(kind) == value
        await a.publish("goals", value)
        await handled.wait_for(2)
    assert sorted(handled.seen) == [("direct", value), ("published", value)]
    assert isinstance(handled.seen[0][1], type(value))


async def test_the_annotation_of_a_handler_says_it_too(worker: Worker) -> None:
    bot, handled = worker.connect(bot="planner"), Handled()

    @bot.on_message("goal")
    async def goal(message: bus.Message[Goal]) -> None:
        handled.note("goal", message.body)

    @bot.on_message("any")
    async def anything(message: bus.Message[Any]) -> None:
        handled.note("any", message.body)

    @bot.on_message("plain")
    async def plain(message: bus.Message) -> None:
        handled.note("plain", message.body)

    async with worker.connect(bot="a") as a, serving(bot, concurrency=1):
        for message_type in ("goal", "any", "plain"):
            await a.send("planner", Goal("a"), message_type=message_type)
        await handled.wait_for(3)
    raw = msgspec.to_builtins(Goal("a"))
    assert handled.seen == [("goal", Goal("a")), ("any", raw), ("plain", raw)]


UNFIT: list[tuple[Any, Any, str]] = [
    (Goal, {"text": 5}, "the body does not fit Goal: Expected `str`, got `int` - at `$.text`"),
    (
        Goal,
        {"text": "a", "steps": [{"text": "b"}, {"text": "c", "hours": "soon"}]},
        "the body does not fit Goal: Expected `int`, got `str` - at `$.steps[1].hours`",
    ),
    (Plan, ["a"], "the body does not fit Plan: Expected `object`, got `array`"),
    (Note, {"text": "a"}, "the body does not fit Note: Object missing required field `likes`"),
    (Order, {"text": 5, "count": 0}, "Input should be a valid string - at `text`; Input should be greater than 0"),
    (list[Order], [{"text": "a"}], "Field required - at `count` - at `$[0]`"),
]


@pytest.mark.parametrize(("kind", "body", "reason"), UNFIT)
async def test_a_body_that_does_not_fit_is_a_dead_letter_that_says_where(
    impatient_worker: Worker, kind: Any, body: Any, reason: str
) -> None:
    bot, handled = impatient_worker.connect(bot="planner"), Handled()

    async def direct(message: bus.Message) -> None:
        handled.note("direct", message.body)

    bot.on_message(body=kind)(direct)
    async with impatient_worker.connect(bot="a") as a, serving(bot):
        await a.send("planner", body)
        with anyio.fail_after(30):
            while not (dead := await a.dead_letters(bot="planner")):
                await anyio.sleep(0.01)
    assert handled.seen == []
    assert reason in (dead[0].reason or "")
    assert dead[0].message is not None
    assert dead[0].message.body == body


async def test_a_body_of_another_bot_is_no_fault_of_the_message(impatient_worker: Worker) -> None:
    """A reply that does not fit is an error of the handler like any other; its own message may succeed later."""
    bot, handled = impatient_worker.connect(bot="planner"), Handled()

    @bot.on_message("goal")
    async def goal(message: bus.Message) -> None:
        handled.note("goal", message.attempt)
        if message.attempt == 1:
            reply = await bot.request("planner", None, message_type="ask")
            reply.body_as(Goal)

    @bot.on_message("ask")
    async def ask(message: bus.Message) -> Any:
        return "no goal"

    async with impatient_worker.connect(bot="a") as a, serving(bot):
        await a.send("planner", 1, message_type="goal")
        await handled.wait_for(2)
    assert handled.seen == [("goal", 1), ("goal", 2)]


async def test_in_a_loop_of_ones_own(worker: Worker) -> None:
    async def take(bot: bus.Bot) -> Goal:
        async with await bot.receive(timeout=30) as message:
            return message.body_as(Goal)

    async with worker.connect(bot="a") as a:
        await a.send_all([bus.Draft(to="a", body=Goal("a")), bus.Draft(to="a", body=1)])
        assert await take(a) == Goal("a")
        with pytest.raises(bus.UnfitBody, match="does not fit Goal: Expected `object`, got `int`") as unfit:
            await take(a)
        assert (unfit.value.type_name, unfit.value.fault) == ("Goal", "Expected `object`, got `int`")
        with anyio.fail_after(30):
            while not await a.dead_letters():
                await anyio.sleep(0.01)


async def test_a_reply_has_a_type_and_headers(worker: Worker) -> None:
    bot = worker.connect(bot="planner")

    @bot.on_message("goal")
    async def goal(message: bus.Message) -> bus.Reply:
        return bus.Reply(Plan("a", []), message_type="plan", headers={"lang": "en"})

    @bot.on_message("empty")
    async def empty(message: bus.Message) -> bus.Reply:
        return bus.Reply(None)

    async with worker.connect(bot="a") as a, serving(bot):
        reply = await a.request("planner", Goal("a"), message_type="goal")
        assert (reply.body, reply.message_type, reply.headers) == (
            {"text": "a", "steps": []},
            "plan",
            {"lang": "en"},
        )
        assert (await a.request("planner", 1, message_type="empty")).body is None


async def takes_any(message: bus.Message) -> None: ...


def test_a_type_that_cannot_be_read_is_refused_when_it_is_registered() -> None:
    bot = bus.Bot("a")
    for kind in (anyio.Event, list[anyio.Event]):
        with pytest.raises(TypeError, match="values of type Event cannot be read back from JSON"):
            bot.on_message(body=kind)(takes_any)

    def unknown() -> Callable[..., Any]:
        async def handler(message: bus.Message[Nowhere]) -> None: ...  # type: ignore[name-defined]  # noqa: F821

        return handler

    with pytest.raises(TypeError, match="'Nowhere' is not defined; define the type before, or pass body="):
        bot.on_message("goal")(unknown())


def test_mypy_knows_the_types() -> None:
    bot = bus.Bot("a")

    @bot.on_message("one", body=Goal)
    async def one(message: bus.Message[Goal]) -> Plan:
        assert_type(message.body, Goal)
        return Plan(message.body.text, [])

    @bot.on_channel("news", body=Note)
    async def two(message: bus.Message[Note]) -> None:
        assert_type(message.body["likes"], int)

    @bot.on_message("three", body=Goal | None)
    async def three(message: bus.Message[Goal | None]) -> None:
        assert_type(message.body, Goal | None)

    @bot.on_message("four", body=Goal)
    async def four(message: bus.Message) -> None:
        assert_type(message.body, Any)

    async def five(message: bus.Message[Plan]) -> None: ...

    bot.on_message("five", body=Goal)(five)  # type: ignore[arg-type]  # of another type

    async def six(message: bus.Message) -> None:
        assert_type(message.body_as(Goal), Goal)


def test_pydantic_is_imported_by_those_who_use_it() -> None:
    script = (
        "import sys, bus, msgspec\n"
        "class Goal(msgspec.Struct):\n    text: str\n"
        "bus.Bot('a').on_message(body=Goal)\n"
        "sys.exit(any(name.partition('.')[0] == 'pydantic' for name in sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
