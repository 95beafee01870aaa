"""What cannot work is refused where it is written: names, addresses, handlers."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Callable
from typing import Any

import anyio
import pytest

import bus
from bus.testing import Worker
from bus.wire.keys import public_text
from tests.engines import sqlite_only


def test_the_version_is_that_of_the_package() -> None:
    assert bus.__version__ == importlib.metadata.version("posthouse")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"name": "a b"}, bus.InvalidValue, "bot: 'a b' is not a name: a name has 1 to 128 characters"),
        ({"name": ""}, bus.InvalidValue, "'' is not a name"),
        ({"name": 5}, TypeError, "bot must be a name, a str, not 5"),
        ({"name": None}, TypeError, "needs a name, or credentials"),
        ({"bot_id": "5"}, bus.InvalidValue, "bot_id: '5' is not an id: an id is a UUID in lower case"),
        ({"max_in_flight": -1}, bus.InvalidValue, "max_in_flight: it must be 0 to 1000, not -1"),
        ({"max_in_flight": 1001}, bus.InvalidValue, "not 1001"),
        ({"url": "localhost:7710"}, bus.AddressError, "use an address like tcp://127.0.0.1:7710"),
        ({"url": ["tcp://a:1", "tcp://b:99999"]}, bus.AddressError, "99999 is not a port"),
        ({"tap_url": "nonsense"}, bus.AddressError, "cannot connect to 'nonsense'"),
    ],
)
def test_a_bot_is_refused_when_it_is_described(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        bus.Bot(**({"name": "a"} | arguments))


@pytest.mark.anyio
async def test_a_key_that_would_never_end_by_mistake_is_refused(worker: Worker) -> None:
    async with worker.connect(bot="a") as bot:
        for seconds in (float("nan"), float("inf")):  # JSON has null for them, which is no end
            with pytest.raises(bus.InvalidValue, match="expires_seconds: must be a number of seconds"):
                await bot.keys.add("b", public_text(bytes(32)), expires_seconds=seconds)


@pytest.mark.anyio
@pytest.mark.parametrize("timeout", [float("nan"), -1.0])
async def test_a_time_that_nobody_can_wait_for_is_refused_before_anything_is_sent(
    worker: Worker, timeout: float
) -> None:
    async with worker.connect(bot="a") as bot:
        with pytest.raises(ValueError, match="timeout must be a number of seconds, 0 or more"):
            await bot.request("a", 1, timeout=timeout)
        bot.timeout = timeout
        with pytest.raises(ValueError, match="timeout must be a number of seconds, 0 or more"):
            await bot.publish("news", 1)
        bot.timeout = None
        assert (await bot.status()).last_seq == 0


DECORATORS: dict[str, Callable[[bus.Bot], Callable[[Any], Any]]] = {
    "a message": lambda bot: bot.on_message(),
    "a run": lambda bot: bot.on_run("digest"),
}


async def takes_nothing() -> None: ...


async def takes_two(one: object, two: object) -> None: ...


async def needs_a_name(one: object, *, name: str) -> None: ...


def is_not_async(one: object) -> None: ...


@pytest.mark.parametrize("takes", list(DECORATORS))
@pytest.mark.parametrize("function", [takes_nothing, takes_two, needs_a_name, is_not_async])
def test_a_handler_is_checked_when_it_is_registered(takes: str, function: Callable[..., Any]) -> None:
    bot = bus.Bot("a")
    with pytest.raises(TypeError, match=f"must be an async function that takes {takes}.*{function.__name__}"):
        DECORATORS[takes](bot)(function)


async def takes_one(one: object, two: object = None, *rest: object, **named: object) -> None: ...


class Handles:
    async def method(self, message: bus.Message) -> None: ...

    async def __call__(self, message: bus.Message) -> None: ...


@functools.wraps(takes_nothing)
async def wrapped(*args: object) -> None: ...


@pytest.mark.parametrize(
    "function",
    [takes_one, Handles().method, Handles(), functools.partial(takes_two, 1), wrapped],
    ids=["function", "method", "object", "partial", "wrapped"],
)
def test_what_takes_one_argument_is_registered(function: Callable[..., Any]) -> None:
    for decorator in DECORATORS.values():
        assert decorator(bus.Bot("a"))(function) is function


@pytest.mark.parametrize(
    ("channel", "group", "what"), [("a b", None, "channel"), ("news", "our team", "group"), ("", None, "channel")]
)
def test_a_channel_and_a_group_are_checked_when_a_handler_is_registered(
    channel: str, group: str | None, what: str
) -> None:
    with pytest.raises(bus.InvalidValue, match=f"{what}: .* is not a name"):
        bus.Bot("a").on_channel(channel, group=group)


@sqlite_only("the client alone decides when it has waited enough")
@pytest.mark.anyio
async def test_receive_waits_for_so_many_seconds(worker: Worker) -> None:
    async with worker.connect(bot="a") as bot:
        with anyio.fail_after(30):
            with pytest.raises(TimeoutError):
                await bot.receive(timeout=0.01)
            await bot.send("a", 1)
            message = await bot.receive(timeout=30)
            assert message.body == 1
            await message.ack()
            with pytest.raises(TimeoutError):
                await bot.receive(timeout=0)
