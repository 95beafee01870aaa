"""A session's calls are carried out in the order in which they arrived, whichever came to their turn at once."""

from __future__ import annotations

from pathlib import Path

import anyio
import msgspec
import pytest

from bus.broker.rounds import Round
from bus.core.effects import Ask
from bus.model.records import StepStatus, WorkflowStepLog
from bus.wire.frames import Workflow

from .house import House, opened

pytestmark = pytest.mark.anyio

STEP = WorkflowStepLog(id="s", run_id="r", step_id="a", step_name="A", status=StepStatus.RUNNING)


def ask(house: House, name: str, **arguments: object) -> tuple[Ask, Workflow]:
    request = Workflow(request=1, call=name, arguments=msgspec.Raw(msgspec.json.encode(arguments)))
    return Ask(b"ann", house.principal("ann").bot_id, request, None), request


async def test_a_step_ends_after_it_began_although_their_turn_comes_while_they_arrive(tmp_path: Path) -> None:
    """The end's task has not begun when its turn comes, and that of the beginning waits already."""
    async with opened(tmp_path) as house:
        fence = await house.held("ann", "r", "digest")
        answers, frames = house.answers(), []

        async def answer(asked: Ask, request: Workflow, together: Round, waits: bool) -> None:
            frames.append(await answers.answer(asked, request, together, bot_name="ann", waits=waits))

        reading = answers.begin(*ask(house, "get_run", run_id="r"))
        async with anyio.create_task_group() as tasks:
            for name, arguments in (
                ("create_step_log", {"step": STEP, "fence": fence}),
                ("update_step_status", {"step_id": "s", "status": "completed", "fence": fence}),
            ):
                await anyio.wait_all_tasks_blocked()
                asked, request = ask(house, name, **arguments)
                together = answers.begin(asked, request)
                tasks.start_soon(answer, asked, request, together, together.arrive())
            answers._end(b"ann", reading)
        assert [msgspec.json.decode(frame)["op"] for frame in frames] == ["ok", "ok"], frames


async def test_a_call_waits_for_those_that_still_wait() -> None:
    before = Round(writes=False, after=None)
    together = Round(writes=True, after=before)
    assert not before.arrive()
    assert together.arrive()
    before.done.set()
    assert together.arrive(), "the first one's turn has come, and yet it has not gone on"
    await together.wait()
    await together.wait()
    assert not together.arrive()


async def test_the_reads_of_others_come_between_those_of_a_session(tmp_path: Path) -> None:
    async with opened(tmp_path) as house:
        answers, done = house.answers(), list[bytes]()
        store, reading, go_on = answers._framed, list[str](), anyio.Event()
        read = store.get_step_log

        async def get_step_log(step_id: str) -> WorkflowStepLog | None:
            reading.append(step_id)
            if step_id == "large":
                await go_on.wait()
            return await read(step_id)

        store.get_step_log = get_step_log  # type: ignore[method-assign]

        async def answer(address: bytes, step_id: str) -> None:
            asked, request = ask(house, "get_step_log", step_id=step_id)
            asked = asked._replace(address=address)
            together = answers.begin(asked, request)
            done.append(await answers.answer(asked, request, together, bot_name="ann", waits=together.arrive()))

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(answer, b"greedy", "large")
            await anyio.wait_all_tasks_blocked()
            assert reading == ["large"] * 2, "and the others wait"
            await answer(b"neighbour", "small")
            assert len(done) == 1
            go_on.set()
        assert len(done) == 11
