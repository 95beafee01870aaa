"""Clients that behave badly with a whole worker: they harm themselves at most, and their neighbours are served."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import zmq

from ..engines import sqlite_only
from .forked_worker import forked_worker
from .wire import TIMEOUT_SECONDS, Message, Session, seqs_of, to_bot, to_channel
from .wire_worker import Worker

pytestmark = sqlite_only("they are hard on the worker, and not on its engine")

MEBIBYTE = 1024 * 1024


class Neighbours:
    """Two bots that talk to each other all the time, in a thread of their own."""

    def __init__(self, worker: Worker) -> None:
        self.rounds = 0
        self.failure: BaseException | None = None
        self._worker = worker
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="neighbours")

    def _run(self) -> None:
        try:
            one, other = self._worker.session("neighbour-one"), self._worker.session("neighbour-other")
            while not self._stopping.is_set():
                one.publish(to_bot("neighbour-other", self.rounds))
                delivery = other.take_one()
                assert (delivery["body"], delivery["attempt"]) == (self.rounds, 1)
                other.settle("ack", delivery["seq"])
                self.rounds += 1
        except BaseException as error:  # told to the test, which fails with it
            self.failure = error

    def start(self) -> None:
        self._thread.start()
        self.wait_for(1)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(TIMEOUT_SECONDS)

    def wait_for(self, rounds: int) -> None:
        """Wait until they have exchanged so many messages since the beginning."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while self.rounds < rounds:
            if self.failure is not None:
                raise self.failure
            assert time.monotonic() < deadline, f"the neighbours are at {self.rounds}, and not served any more"
            time.sleep(0.01)


@contextmanager
def neighbours(worker: Worker) -> Iterator[Neighbours]:
    """Let two bots talk beside a block; they must get on during it, and after it."""
    talking = Neighbours(worker)
    talking.start()
    try:
        yield talking
        talking.wait_for(talking.rounds + 3)
    finally:
        talking.stop()
    if talking.failure is not None:
        raise talking.failure


def status(session: Session) -> Any:
    return session.value("status")


def wait_for_sessions(session: Session, most: int) -> None:
    """Wait until there are at most so many."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while status(session)["sessions"] > most:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def memory_bytes(worker: Worker) -> int:
    """Give what a worker's process has in memory."""
    pages = int(Path(f"/proc/{worker.pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


# ── A storm of naks ──────────────────────────────────────────────────────────────────────────────────────


def test_a_bot_that_gives_everything_back_at_once(worker: Worker) -> None:
    storm, messages = worker.session("storm", max_in_flight=200), 600
    with neighbours(worker) as talking:
        storm.publish(*(to_bot("storm", number) for number in range(messages)))
        began = talking.rounds
        attempts: dict[int, int] = {}
        while sum(attempts.values()) < messages * 5:
            [first, *_] = storm.take(1)
            taken = [first, *storm.delivered]
            storm.delivered.clear()
            for delivery in taken:
                attempts[delivery["seq"]] = attempts.get(delivery["seq"], 0) + 1
                assert delivery["attempt"] == attempts[delivery["seq"]]
            if sum(attempts.values()) >= messages * 4:
                talking.wait_for(began + 1)  # they get their turn in the middle of it
            storm.send(op="nak", seqs=seqs_of(taken), delay=0)
    storm.settle("nak", 1)
    assert set(attempts.values()) == {5}
    dead = storm.value("dead_letters", limit=1000)["dead_letters"]
    assert len(dead) == messages
    assert {(each["attempts"], each["reason"]) for each in dead} == {(5, "nak; failed 5 times")}
    assert storm.waiting_deliveries() == []


# ── Connections that come and go ─────────────────────────────────────────────────────────────────────────


def test_a_bot_that_reconnects_in_a_loop(tmp_path: Path) -> None:
    """It never says goodbye, and settles what it gets: it gets everything, and its dead selves are forgotten.

    What goes to a connection before the worker can know that it is gone comes back when its session is over.
    """
    configuration = "[delivery]\nheartbeat_seconds = 2.0\nsession_timeout_seconds = 5.0"
    with forked_worker(tmp_path, configuration) as worker:
        with neighbours(worker):
            for number in range(60):
                session = worker.session("loop", max_in_flight=10)
                session.publish(to_bot("loop", number))
                delivery = session.take_one()
                assert delivery["body"] == number
                session.settle("ack", delivery["seq"])
                session.close()
        auditor = worker.session("auditor")
        assert auditor.value("dead_letters", bot="loop")["dead_letters"] == []
        assert status(auditor)["counters"]["dead"] == 0
        wait_for_sessions(auditor, 1)


def test_what_was_sent_into_dead_connections_never_failed(worker: Worker) -> None:
    """Ten of them, and five failures make a dead letter: but they are gone before anything could be delivered."""
    for _ in range(10):
        worker.session("loop", max_in_flight=100).close()
    sender, live = worker.session("sender"), worker.session("loop", max_in_flight=10)
    wait_for_sessions(sender, 2)
    seqs = sender.publish(*(to_bot("loop", number) for number in range(5)))
    assert sorted(seqs_of(live.take(5))) == seqs
    assert live.value("dead_letters")["dead_letters"] == []


# ── A bot that never reads ───────────────────────────────────────────────────────────────────────────────


def test_a_bot_that_never_reads(worker: Worker) -> None:
    """Its credit runs out, and what there is for it waits on disk: more and more of it takes no more memory."""
    sender = worker.session("sender")
    deaf = Deaf(worker, "deaf")
    body, before, began = "x" * 250_000, 0, 0
    with neighbours(worker) as talking:
        for frame in range(180):
            if frame == 100:  # by now the caches are as large as they get, and the bot's share is spent
                before, began = memory_bytes(worker), talking.rounds
            sender.publish(*(to_bot("deaf", body) for _ in range(4)))
        grown = memory_bytes(worker) - before
        assert talking.rounds > began
    deaf.close()
    wait_for_sessions(sender, 1)
    assert grown < 30 * MEBIBYTE, f"of 80 MiB that nobody reads {grown / MEBIBYTE:.0f} MiB stayed in memory"
    [bot] = [bot for bot in sender.value("bots")["bots"] if bot["name"] == "deaf"]
    assert bot["backlog"] == 4 * 180


class Deaf:
    """A session with the largest credit, which takes one frame off the wire and no more."""

    def __init__(self, worker: Worker, name: str) -> None:
        worker.session(name).goodbye()
        self._socket = worker.socket(zmq.DEALER)
        self._socket.rcvhwm = 1
        self._socket.rcvbuf = 4096
        self._socket.connect(worker.command)
        self.send(op="hello", request=1, protocol=1, bot=name, max_in_flight=1000)

    def send(self, **frame: Any) -> None:
        assert self._socket.poll(int(1000 * TIMEOUT_SECONDS), zmq.POLLOUT)
        self._socket.send_json(frame)

    def close(self) -> None:
        self._socket.close()


# ── A thousand sessions of one bot ───────────────────────────────────────────────────────────────────────


def test_one_bot_with_a_thousand_sessions(worker: Worker) -> None:
    sender, sessions = worker.session("sender"), 1000
    with neighbours(worker), zmq.Context() as context:
        context.max_sockets = 2 * sessions
        many = [Plain(context, worker, "many") for _ in range(sessions)]
        try:
            for each in many:
                each.welcomed()
            assert status(sender)["sessions"] >= sessions
            seqs = sender.publish(*(to_bot("many", number) for number in range(sessions)))
            taken = [each.take_one() for each in many]
            assert sorted(taken) == seqs, "each has one, and no two the same"
            for each, seq in zip(many, taken, strict=True):
                each.send(op="ack", seqs=[seq])
                each.send(op="goodbye", request=2)
            wait_for_sessions(sender, 3)
        finally:
            for each in many:
                each.close()
    [bot] = [bot for bot in sender.value("bots")["bots"] if bot["name"] == "many"]
    assert (bot["online"], bot["backlog"]) == (False, 0)
    assert sender.value("dead_letters", bot="many")["dead_letters"] == []


class Plain:
    """A connection of which there may be a thousand: it waits for one frame at a time."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], worker: Worker, bot: str) -> None:
        self._socket = context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(worker.command)
        self.send(op="hello", request=1, protocol=1, bot=bot, max_in_flight=1)

    def send(self, **frame: Any) -> None:
        self._socket.send_json(frame)

    def _receive(self, op: str) -> Any:
        assert self._socket.poll(int(1000 * TIMEOUT_SECONDS)), f"no {op} came"
        frame = self._socket.recv_json()
        assert isinstance(frame, dict)
        assert frame["op"] == op
        return frame

    def welcomed(self) -> None:
        self._receive("welcome")

    def take_one(self) -> int:
        [message] = self._receive("deliver")["messages"]
        return int(message["seq"])

    def close(self) -> None:
        self._socket.close()


# ── A publisher that ignores its window ──────────────────────────────────────────────────────────────────


def test_a_publisher_that_ignores_its_window(worker: Worker) -> None:
    """Five windows at once, unread: each frame is answered, and what is answered is stored."""
    publisher, requests = worker.session("publisher", max_in_flight=0), count(1000)
    sent: dict[int, list[Message]] = {}
    with neighbours(worker):
        for _ in range(2048):
            request = next(requests)
            sent[request] = [to_channel("news", number) for number in range(10)]
            publisher.send(op="publish", request=request, messages=sent[request])
        stored: dict[str, int] = {}
        busy: list[Message] = []
        for _ in range(len(sent)):
            frame = publisher.receive()
            messages = sent.pop(frame["request"])
            if frame["op"] == "error":
                assert frame["code"] == "busy"
                busy += messages
            else:
                assert set(frame) == {"op", "request", "seqs"}
                stored |= {each["id"]: seq for each, seq in zip(messages, frame["seqs"], strict=True)}
    assert sent == {}
    check_channel(publisher, "news", stored)


FEW_FRAMES = """
[limits]
publishes_in_flight_max = 100
in_flight_max = 100
socket_frames_max = 200
"""
"""Much less than what a test leaves unread, whatever the kernel's buffers take."""


def test_a_publisher_that_never_looks_for_answers_at_all(tmp_path: Path) -> None:
    """So many that the worker cannot keep them, and ends the session: repeated by the rule, each is stored once."""
    with forked_worker(tmp_path, FEW_FRAMES) as worker:
        publish_and_never_look(worker)


def publish_and_never_look(worker: Worker) -> None:
    """Send until the session ends, and then all of it again."""
    deaf = Deaf(worker, "publisher")
    messages = [to_channel("news", number) for number in range(12_000)]
    wrong = [to_bot("nobody-" + "x" * 50, 0) for _ in range(10)]  # makes answers long, which fill the wire
    with neighbours(worker):
        for request, message in enumerate(messages, 1000):
            deaf.send(op="publish", request=request, messages=[message, *wrong])
        publisher = worker.session("auditor", max_in_flight=0)
        wait_for_sessions(publisher, 3)
        deaf.close()
        publisher.hello("publisher", max_in_flight=0)
        stored: dict[str, int] = {}
        repeated = 0
        for start in range(0, len(messages), 1000):
            part = messages[start : start + 1000]
            answer = publisher.try_publish(*part)
            assert "errors" not in answer
            repeated += len(answer.get("duplicates", []))
            stored |= {each["id"]: seq for each, seq in zip(part, answer["seqs"], strict=True)}
    assert 0 < repeated < len(messages), "the session ended in the middle"
    check_channel(publisher, "news", stored)


def check_channel(session: Session, name: str, stored: dict[str, int]) -> None:
    """The channel holds just these messages, in the order in which they were sent."""
    found: dict[str, int] = {}
    page = session.value("history", channel=name, limit=1000)
    while True:
        found |= {message["id"]: message["seq"] for message in page["messages"]}
        if not page["more"]:
            break
        page = session.value("history", channel=name, limit=1000, before_seq=page["messages"][-1]["seq"])
    assert found == stored
    assert list(stored.values()) == sorted(stored.values())
