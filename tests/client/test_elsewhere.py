"""Several workers that stand in for each other, of which one serves: the client finds it, and follows it."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import Any

import anyio
import pytest

import bus
from bus.client import silence

from .fake_worker import WELCOME, FakeWorker

pytestmark = pytest.mark.anyio

ANYWHERE = "tcp://127.0.0.1:*"


def nobody() -> str:
    """Return an address at which nobody listens."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{taken.getsockname()[1]}"


def send_on(worker: FakeWorker, hello: dict[str, Any], **details: Any) -> None:
    worker.send(
        op="error",
        request=hello["request"],
        code="elsewhere",
        message="this worker stands by",
        retry=True,
        **({"details": details} if details else {}),
    )


async def test_a_worker_that_stands_by_names_the_one_that_serves() -> None:
    with FakeWorker(ANYWHERE) as standing, FakeWorker(ANYWHERE) as serving:

        async def serve() -> None:
            send_on(standing, await standing.receive("hello"), url=serving.url, tap="tcp://127.0.0.1:1")
            await serving.welcome()
            await serving.publish()
            await serving.farewell()

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(serve)
                async with bus.connect(standing.url, bot="b") as bot:
                    assert (bot.url, bot.tap_url) == (serving.url, "tcp://127.0.0.1:1")
                    assert (await bot.send("b", "hello")).seq == 1


async def test_a_session_goes_on_at_the_worker_that_takes_over() -> None:
    """What was not answered is repeated there under its id, by the same client."""
    with FakeWorker(ANYWHERE) as before, FakeWorker(ANYWHERE) as after:

        async def serve() -> None:
            hello = await before.receive("hello")
            before.welcome_to(hello)
            sent = await before.receive("publish")
            send_on(before, sent, url=after.url)
            again = await after.receive("hello")
            assert (again["token"], again["epoch"]) == (hello["token"], WELCOME["epoch"])
            after.welcome_to(again)
            assert await after.publish(7) == [message["id"] for message in sent["messages"]]
            await after.farewell()

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(serve)
                async with bus.connect(before.url, bot="b") as bot:
                    assert (await bot.send("b", "hello")).seq == 7


async def test_of_several_addresses_the_one_that_serves_is_found() -> None:
    with FakeWorker(ANYWHERE) as standing, FakeWorker(ANYWHERE) as serving:

        async def serve() -> None:
            send_on(standing, await standing.receive("hello"))
            await serving.welcome()
            await serving.farewell()

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(serve)
                async with bus.connect([nobody(), standing.url, serving.url], bot="b") as bot:
                    assert bot.url == serving.url


@pytest.mark.parametrize("url", [None, 7, "", "nonsense", "inproc://elsewhere", "tcp://127.0.0.1:99999"])
async def test_an_address_that_is_none_is_not_followed(url: Any) -> None:
    with FakeWorker(ANYWHERE) as worker:

        async def serve() -> None:
            send_on(worker, await worker.receive("hello"), url=url)
            await worker.welcome()
            await worker.farewell()

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(serve)
                async with bus.connect(worker.url, bot="b") as bot:
                    assert bot.url == worker.url


async def test_who_finds_nobody_that_serves_is_told_so() -> None:
    with FakeWorker(ANYWHERE) as worker:

        async def stand_by() -> None:
            while True:
                send_on(worker, await worker.receive("hello", "goodbye"))

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stand_by)
                with pytest.raises(bus.WorkerUnavailable, match="does not serve: this worker stands by"):
                    await bus.connect(worker.url, bot="b", timeout=1.0, wait=0.5).__aenter__()
                tasks.cancel_scope.cancel()


@pytest.mark.parametrize("fraction", [0.0001, -1.0], ids=["after a while", "over while the loop was busy"])
async def test_a_worker_that_is_frozen_is_left_if_another_one_may_lead(
    monkeypatch: pytest.MonkeyPatch, fraction: float
) -> None:
    monkeypatch.setattr(silence, "_UNANSWERED_FRACTION", fraction)
    terms = {"heartbeat": 0.05, "session_timeout": 3600.0}
    with FakeWorker(ANYWHERE) as frozen, FakeWorker(ANYWHERE) as serving:

        async def serve() -> None:
            await frozen.welcome(**terms)
            await frozen.receive("ping")
            await serving.welcome(session_timeout=3_600_000.0, heartbeat=3600.0, ack_wait=3600.0)
            await serving.publish()
            await serving.farewell()

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(serve)
                async with bus.connect([frozen.url, serving.url], bot="b") as bot:
                    assert (await bot.send("b", "hello")).seq == 1
