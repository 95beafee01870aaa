"""Answers that are not read, and questions that are hard to answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
import zmq

from bus.broker.answering import Answering
from bus.broker.outgoing import Outgoing
from bus.broker.queries import Queries
from bus.core.core import Core
from bus.core.effects import Ask, Effect, Moment, Send
from bus.model.repository import AddBot, FindRequest, MessageLog
from bus.settings import Limits, Settings
from bus.transport import Port
from bus.wire.answers import HistoryPage
from bus.wire.frames import History
from store import open_store

from ..contract.store.samples import add, bot, direct
from ..integration.wire import Session, new_id, to_channel
from ..integration.wire_worker import Worker
from .conftest import Serve
from .neighbour import is_served, mebibytes

MUCH = "x" * 250_000
"""Four of these fit into a frame."""


class Deaf(Session):
    """A session that reads nothing: its connection takes one frame, and what the system holds."""

    def __init__(self, worker: Worker, name: str) -> None:
        super().__init__(worker)
        self._socket.close()
        self._socket = worker.socket(zmq.DEALER)
        self._socket.rcvhwm = 1
        self._socket.rcvbuf = 4096
        self._socket.connect(worker.command)
        self.hello(name)


def test_answers_that_are_not_read_cost_no_memory(worker: Worker) -> None:
    sender = worker.session("sender")
    for _ in range(4):
        sender.publish(to_channel("news", MUCH))
    with Deaf(worker, "deaf") as deaf:
        before = mebibytes(worker)
        for request in range(1000, 1600):
            deaf.send(op="history", request=request, channel="news", limit=4)
        for _ in range(20):
            assert is_served(worker)
        assert mebibytes(worker) - before < 40
    assert is_served(worker)


def test_a_session_that_reads_its_answers_late_gets_them_all(serve: Serve) -> None:
    worker = serve("[limits]\nanswers_bytes_max = 1_000_000\n")
    worker.session("sender").publish(to_channel("news", MUCH))
    with Deaf(worker, "late") as late:
        for request in range(1000, 1040):
            late.send(op="history", request=request, channel="news")
        assert is_served(worker)
        answered = [late.receive_until("ok", request)["request"] for request in range(1000, 1040)]
    assert answered == list(range(1000, 1040))


def test_a_session_that_reads_nothing_of_what_it_publishes_ends(serve: Serve) -> None:
    worker = serve("[limits]\nunread_bytes_max = 2_000_000\n")
    wrong = [{"id": new_id(), "recipient": {"type": "direct", "bot": "n" * 120}, "body": 1} for _ in range(1000)]
    with Deaf(worker, "deaf") as deaf:
        before = mebibytes(worker)
        for request in range(200):
            deaf.send(op="publish", request=request, messages=wrong)
        asker = worker.session("asker")
        while any(bot["name"] == "deaf" and bot["online"] for bot in asker.value("bots")["bots"]):
            deaf.send(op="publish", request=9999, messages=wrong)
        assert mebibytes(worker) - before < 40
    assert is_served(worker)


def test_workflow_calls_are_busy_while_their_answers_are_not_read(serve: Serve) -> None:
    worker = serve("[limits]\nanswers_bytes_max = 1_000_000\n")
    definition = {"id": "w", "name": "w", "owner": {"type": "global"}, "metadata": {"much": MUCH}}
    with Deaf(worker, "deaf") as deaf:
        other = worker.session("other")
        other.value("workflow", call="save_definition", arguments={"definition": definition})
        for request in range(1000, 1100):
            deaf.send(op="workflow", request=request, call="get_definition", arguments={"definition_id": "w"})
            assert request % 10 or is_served(worker)
        codes = [deaf.receive().get("code") for _ in range(100)]
    assert set(codes) == {None, "busy"}


class Watched:
    """A log that counts how often a thread is computed, and never ends computing the thread of "endless"."""

    def __init__(self, log: MessageLog) -> None:
        self._log = log
        self.threads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def thread(self, request: FindRequest, *, before_seq: int | None, limit: int) -> list[int]:
        self.threads += 1
        if request.id == "endless":
            await anyio.sleep_forever()
        return await self._log.thread(request, before_seq=before_seq, limit=limit)


def moment() -> Moment:
    return Moment(0.0, "2026-01-01T00:00:00.000000Z")


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Watched]:
    async with open_store(str(tmp_path / "posthouse.db")) as store:
        await store.log.apply([AddBot(bot("ann"))])
        await add(store.log, *(direct(f"m{number}", "ann", "bob", reply_to="m0") for number in range(300)))
        yield Watched(store.log)


async def queries(log: Watched) -> tuple[Core, Queries]:
    core = Core(await log.load(), Settings(), worker="w", new_id=new_id)
    options: dict[str, Any] = {"versions": {}, "frame_bytes_max": 2**20, "peer": lambda address: None}
    return core, Queries(core, cast(MessageLog, log), moment=moment, **options)


@pytest.mark.anyio
async def test_a_thread_is_computed_once_for_all_portions_of_an_answer(log: Watched) -> None:
    _, asked = await queries(log)
    question = History(request=1, thread="m0", limit=280)
    page = await asked.answer(Ask(b"a", "ann", question), question, 0.0)
    assert isinstance(page, HistoryPage)
    assert (len(page.messages), page.more, log.threads) == (280, True, 1)


class Nowhere:
    """A socket whose frames are not sent."""

    def send(self, parts: Sequence[bytes]) -> bool:
        return True


@pytest.mark.anyio
async def test_a_question_that_takes_too_long_is_interrupted_and_the_next_one_is_answered(log: Watched) -> None:
    core, asked = await queries(log)
    limits = Limits(query_seconds_max=0.05)
    outgoing = Outgoing(cast(Port, Nowhere()), limits)
    answering = Answering(
        core, cast(MessageLog, log), queries=asked, outgoing=outgoing, limits=limits, moment=moment
    )
    frames: list[dict[str, Any]] = []
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:

            def carry_out(effects: Sequence[Effect]) -> None:
                frames.extend(json.loads(effect.frame) for effect in effects if isinstance(effect, Send))
                if len(frames) == 2:
                    tasks.cancel_scope.cancel()

            assert answering.add(Ask(b"a", "ann", History(request=1, thread="endless"))) == []
            assert answering.add(Ask(b"a", "ann", History(request=2, thread="m0"))) == []
            tasks.start_soon(answering.run, carry_out)
    assert [(frame["request"], frame["op"], frame.get("code")) for frame in frames] == [
        (1, "error", "busy"),
        (2, "ok", None),
    ]


def test_one_bots_questions_do_not_make_the_others_busy(serve: Serve) -> None:
    worker = serve("[limits]\nqueries_per_bot_max = 4\n")
    with Deaf(worker, "deaf") as deaf:
        worker.session("sender").publish(to_channel("news", MUCH))
        for request in range(1000, 1300):
            deaf.send(op="history", request=request, channel="news")
        assert is_served(worker)
        codes = [deaf.receive().get("code") for _ in range(300)]
    assert set(codes) == {None, "busy"}
