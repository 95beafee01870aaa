"""The client without async, whose event loop runs in a thread."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import msgspec
import pytest
import trio

import bus
from bus.testing import Worker
from tests.engines import sqlite_only

pytestmark = sqlite_only("its calls are those of the other client")

BOUND_SECONDS = 30


class Connects:
    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def __call__(self, name: str) -> bus.sync.SyncBot:
        worker = self._worker
        return bus.sync.connect(worker.url, bot=name, context=worker.context, tap_url=worker.tap_url)


@pytest.fixture
def connect(worker: Worker) -> Connects:
    return Connects(worker)


def test_two_bots_talk(connect: Connects) -> None:
    with connect("ada") as ada, connect("ben") as ben:
        assert (ada.name, "ada" in repr(ada)) == ("ada", True)
        ben.subscribe("news", group="team")
        assert ada.send("ben", {"n": 1}, message_type="note").seq == 1
        ada.publish("news", 2)
        assert [receipt.seq for receipt in ada.send_all(bus.Draft(to="ben", body=n) for n in (3, 4))] == [3, 4]
        received = []
        for message in ben.messages(timeout=BOUND_SECONDS):
            with message:
                received.append((message.seq, message.sender, message.channel, message.body))
            if message.seq == 4:
                break
        assert received == [
            (1, "ada", None, {"n": 1}),
            (2, "ada", "news", 2),
            (3, "ada", None, 3),
            (4, "ada", None, 4),
        ]
        assert list(ben.messages(timeout=0.01)) == []
        with pytest.raises(TimeoutError):
            ben.receive(timeout=0.01)
        assert [stored.body for stored in ada.history(between=("ada", "ben"))] == [4, 3, {"n": 1}]
        assert ada.find(1).message.body == {"n": 1}
        assert [each.name for each in ada.bots()] == ["ada", "ben"]
        assert [each.name for each in ada.channels()] == ["news"]
        assert ben.unsubscribe("news")
        assert ada.status().last_seq == 4


class Goal(msgspec.Struct):
    text: str


def test_a_message_is_settled_in_each_way(connect: Connects) -> None:
    with connect("ada") as ada:
        ada.send_all(bus.Draft(to="ada", body=Goal(str(n)), headers={"n": str(n)}) for n in range(5))
        first, second, third, fourth, fifth = [ada.receive(timeout=BOUND_SECONDS) for _ in range(5)]
        assert (first.body_as(Goal), first.headers, first.attempt) == (Goal("0"), {"n": "0"}, 1)
        assert (first.id, first.reply_to, first.message_type) == (first.stored.id, None, "message")
        first.ack(confirm=True)
        second.nak(0, confirm=True)
        third.release(confirm=True)
        fourth.term("no", confirm=True)
        again = [ada.receive(timeout=BOUND_SECONDS) for _ in range(2)]
        assert sorted((message.seq, message.attempt) for message in again) == [(2, 2), (3, 2)]
        assert [dead.reason for dead in ada.dead_letters()] == ["no"]

        def fails() -> None:
            with fifth:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fails()
        for message in again:
            message.ack()


def test_a_question_is_answered(connect: Connects) -> None:
    with connect("asker") as asker, connect("oracle") as oracle, ThreadPoolExecutor(1) as pool:

        def answer() -> None:
            with oracle.receive(timeout=BOUND_SECONDS) as message:
                message.reply(message.body * 2, message_type="answer")

        answered = pool.submit(answer)
        reply = asker.request("oracle", 21, timeout=BOUND_SECONDS)
        assert (reply.body, reply.message_type) == (42, "answer")
        answered.result(BOUND_SECONDS)


def test_keyed_stores_and_everything_else(connect: Connects) -> None:
    with connect("ada") as ada:
        store = ada.kv("settings")
        revision = store.put("tone", "dry", expected=0)
        found = store.get("tone")
        assert found is not None
        assert (found.value, found.revision) == ("dry", revision)
        with pytest.raises(bus.RevisionConflict):
            store.put("tone", "warm", expected=0)
        assert [value.key for value in store.list("to")] == ["tone"]
        assert store.delete("tone") > revision
        assert store.get("tone") is None

        async def workflows(bot: bus.Bot) -> int:
            return len(await bot.workflows.list_definitions())

        assert ada.call(workflows) == 0


def test_last_values_and_many_requests(connect: Connects) -> None:
    with connect("ada") as ada, connect("twice") as twice, ThreadPoolExecutor(1) as pool:
        ada.publish("prices", {"tea": 3}, retain=True)
        found = ada.retained("prices")
        assert found is not None
        assert found.body == {"tea": 3}

        def answer() -> None:
            for _ in range(2):
                with twice.receive(timeout=BOUND_SECONDS) as message:
                    message.reply(message.body * 2)

        answered = pool.submit(answer)
        questions = [bus.Inquiry(to="twice", body=number, timeout=BOUND_SECONDS) for number in (1, 2)]
        answers = ada.gather([*questions, bus.Inquiry(to="stranger", body=3)])
        assert [each.message().body for each in answers[:2]] == [2, 4]
        assert isinstance(answers[2].error, bus.UnknownBot)
        answered.result(BOUND_SECONDS)


def test_threads_share_a_bot(connect: Connects) -> None:
    with connect("ada") as ada, ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(lambda n: ada.send("ada", n), range(50)))
        assert sorted(receipt.seq for receipt in receipts) == list(range(1, 51))


def test_a_closed_bot_says_so(connect: Connects) -> None:
    ada = connect("ada")
    waiting: list[BaseException] = []

    def wait() -> None:
        try:
            ada.receive()
        except bus.ClosedError as error:
            waiting.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    ada.send("ada", 1)  # the other thread may have this one, and then waits no more
    ada.close()
    ada.close()
    thread.join(BOUND_SECONDS)
    assert not thread.is_alive()
    with pytest.raises(bus.ClosedError, match="bot 'ada' was closed"):
        ada.send("ada", 1)


def test_what_was_not_settled_is_returned(connect: Connects) -> None:
    with connect("ada") as ada:
        ada.send("ada", 1)
        ada.receive(timeout=BOUND_SECONDS)
    with connect("ada") as again:
        assert again.receive(timeout=BOUND_SECONDS).body == 1


def test_errors_of_connecting_are_raised(worker: Worker) -> None:
    before = threading.active_count()
    with pytest.raises(bus.WorkerUnavailable):
        bus.sync.connect("inproc://nobody", bot="ada", context=worker.context, wait=0.01)
    with pytest.raises(bus.AddressError):
        bus.sync.connect("nonsense", bot="ada")
    with pytest.raises(bus.InvalidValue):
        bus.sync.connect(bot="a b")
    assert threading.active_count() == before


@pytest.fixture
def in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))


def test_it_is_refused_where_it_would_stop_a_loop(connect: Connects, in_a_notebook: Callable[[], None]) -> None:
    async def sends(bot: bus.sync.SyncBot) -> int:
        return bot.send("ada", 1).seq

    async def connects() -> None:
        connect("ben")

    with connect("ada") as ada:
        for call in (sends(ada), connects()):
            with pytest.raises(RuntimeError, match=r"runs an event loop.*use bus\.connect and await"):
                asyncio.run(call)

        async def calls_itself(bot: bus.Bot) -> None:
            ada.send("ada", 1)

        with pytest.raises(RuntimeError, match="runs an event loop"):
            ada.call(calls_itself)
        in_a_notebook()
        assert asyncio.run(sends(ada)) == 1


def test_it_is_refused_where_it_would_stop_a_loop_of_trio(
    connect: Connects, in_a_notebook: Callable[[], None]
) -> None:
    with connect("ada") as ada:

        async def send() -> None:
            with pytest.raises(RuntimeError, match=r"runs an event loop.*use bus\.connect and await"):
                ada.send("ada", 1)
            with pytest.raises(RuntimeError, match="runs an event loop"):
                connect("ben")
            await trio.to_thread.run_sync(ada.send, "ada", "from a thread beside it")

        async def again() -> None:
            ada.send("ada", 1)

        trio.run(send)
        in_a_notebook()  # its loop, which runs all the time, is one of asyncio
        with pytest.raises(RuntimeError, match="runs an event loop"):
            trio.run(again)
        assert [stored.body for stored in ada.history(between=("ada", "ada"))] == ["from a thread beside it"]


def test_a_message_says_what_is_left_of_its_thread(connect: Connects) -> None:
    with connect("ada") as ada:
        ada.send("ada", 1, hops=1, deadline=60)
        with ada.receive(timeout=BOUND_SECONDS) as question:
            assert question.hops == 1
            assert question.deadline is not None
            question.reply(2)
        with ada.receive(timeout=BOUND_SECONDS) as answer:
            assert (answer.hops, answer.deadline) == (0, question.deadline)
            with pytest.raises(bus.BudgetSpent):
                answer.reply(3)


def test_a_subscription_that_is_removed_is_raised_and_the_iteration_goes_on(connect: Connects) -> None:
    with connect("ada") as ada, connect("operator") as operator:
        ada.subscribe("news")
        messages = ada.messages(timeout=BOUND_SECONDS)
        operator.call(lambda bot: bot.remove_subscription("ada", "news"))
        with pytest.raises(bus.SubscriptionRemoved, match="'news' was removed"):
            next(messages)
        operator.send("ada", "still there")
        with next(messages) as message:
            assert message.body == "still there"
