"""How long calls wait: each for as long as it was told, however many wait beside it, and whatever they wait for."""

from __future__ import annotations

import math
from typing import NoReturn

import anyio
import pytest

import bus
from bus.client.home import Home
from bus.client.waiting import Awaited, Deadlines

from .fake_worker import FakeWorker

pytestmark = pytest.mark.anyio


def here() -> Deadlines:
    home = Home("bot 'a'")
    home.enter()
    return Deadlines(home)


async def test_what_is_done_in_time_is_waited_for_no_longer() -> None:
    deadlines, first, second = here(), Awaited(), Awaited()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(deadlines.run)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(deadlines.wait, first, math.inf)
                waiting.start_soon(deadlines.wait, second, anyio.current_time() + 3600)
                await anyio.wait_all_tasks_blocked()
                first.finish()
                second.finish()
        assert (first.overdue, second.overdue) == (False, False)
        assert repr(deadlines) == "<Deadlines of 0>"
        tasks.cancel_scope.cancel()


async def test_each_is_given_up_at_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the timer sleeps for something that is due much later, and for what is due already."""
    monkeypatch.setattr("bus.client.waiting._LOOK_SECONDS", 3600)
    deadlines, patient = here(), Awaited()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(deadlines.run)
        tasks.start_soon(deadlines.wait, patient, anyio.current_time() + 3600)
        await anyio.wait_all_tasks_blocked()
        for seconds in (0.2, 0.0, -1.0, 0.1):
            begun = anyio.current_time()
            with anyio.fail_after(30), pytest.raises(TimeoutError):
                await deadlines.wait(Awaited(), begun + seconds)
            assert anyio.current_time() >= begun + seconds
        assert not patient.done
        assert repr(deadlines) == "<Deadlines of 1>"
        tasks.cancel_scope.cancel()


async def test_who_is_cancelled_leaves_nothing_behind() -> None:
    deadlines = here()
    with anyio.move_on_after(0.01):
        await deadlines.wait(Awaited(), math.inf)
    assert repr(deadlines) == "<Deadlines of 0>"


@pytest.mark.parametrize("window", [4096, 1])
async def test_a_message_that_nobody_acknowledges_is_given_up(window: int) -> None:
    """Whether it was sent or waits for room behind others; which it was is not known to who sent it."""
    with FakeWorker(f"inproc://silent-{window}") as fake:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: fake.welcome(max_publish_in_flight=window))
            async with bus.connect(fake.url, bot="b", context=fake.context, timeout=0.3) as b:
                with pytest.raises(bus.WorkerUnavailable, match=r"no answer for 3 messages within 0\.3 s"):
                    await b.send_all([bus.Draft(to="c", body=number) for number in range(3)])
                with pytest.raises(bus.WorkerUnavailable, match=r"no answer for the bots within 0\.3 s"):
                    await b.bots()
                tasks.start_soon(fake.farewell)


async def test_who_is_not_connected_is_told_so() -> None:
    bot = bus.connect("inproc://nobody", bot="b", timeout=0.3)
    with pytest.raises(RuntimeError, match="async with"):
        await bot.bots()
    with pytest.raises(RuntimeError, match="async with"):
        await bot.send("c", 1)


async def test_nobody_waits_for_a_connection_that_died(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is shielded from the cancellation that this brings to its bot's context."""

    def give_up(*_: object) -> NoReturn:
        raise OSError("no descriptors")

    async def ask() -> None:
        with anyio.fail_after(30, shield=True), pytest.raises(bus.ClosedError, match="has ended"):
            await b.bots()

    with FakeWorker("inproc://mortal") as fake, pytest.RaisesGroup(OSError, flatten_subgroups=True):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fake.welcome)
            bot = bus.connect(fake.url, bot="b", context=fake.context, timeout=None)
            async with bot as b, anyio.create_task_group() as asking:
                asking.start_soon(ask)
                await fake.receive("bots")
                monkeypatch.setattr("bus.client.endpoint.connect_command", give_up)
                fake.send(op="closing")
