"""A session ends with its connection: what it had in flight is redelivered, and nobody else takes its place."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import time

import pytest
import zmq

from ..integration.wire import TIMEOUT_SECONDS, Session, to_bot
from ..integration.wire_worker import REPOSITORY, Worker
from .conftest import Serve
from .peer import greeting_3, ready

PATIENT = """
[delivery]
ack_wait_seconds = 3600
heartbeat_seconds = 600
session_timeout_seconds = 1800
"""
"""No time of these passes while a test runs: what ends a session is its connection."""


@pytest.fixture
def worker(serve: Serve) -> Worker:
    return serve(PATIENT)


def wait_for_sessions(neighbour: Session, count: int) -> None:
    """Wait until the bot `bot` has so many sessions."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        [found] = [each for each in neighbour.value("bots")["bots"] if each["name"] == "bot"]
        if found["sessions"] == count:
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


def test_what_was_in_flight_goes_to_another_session_at_once(worker: Worker, neighbour: Session) -> None:
    first = worker.session("bot")
    neighbour.publish(to_bot("bot", 1))
    assert first.take_one()["attempt"] == 1
    second = worker.session("bot")
    first.close()
    assert second.take_one()["attempt"] == 2


def test_what_was_in_flight_waits_for_the_next_session(worker: Worker, neighbour: Session) -> None:
    first = worker.session("bot")
    neighbour.publish(to_bot("bot", 1))
    first.take_one()
    first.close()
    wait_for_sessions(neighbour, 0)
    assert worker.session("bot").take_one()["attempt"] == 2


def test_a_connection_that_is_reset_ends_its_session(worker: Worker, neighbour: Session) -> None:
    with worker.plain_connection() as connection:
        hello = json.dumps({"op": "hello", "request": 1, "protocol": 1, "bot": "bot"}).encode()
        received = b""
        for words, answer in (
            (greeting_3(b"NULL"), b"NULL"),
            (ready(), b"READY"),
            (bytes([0, len(hello)]) + hello, b"welcome"),
        ):
            connection.sendall(words)
            while answer not in received:
                part = connection.recv(65536)
                assert part, received
                received += part
        wait_for_sessions(neighbour, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_for_sessions(neighbour, 0)


def test_frames_before_the_break_are_carried_out(worker: Worker, neighbour: Session) -> None:
    for number in range(20):
        bot = worker.session("bot")
        neighbour.publish(to_bot("bot", number))
        seq = bot.take_one()["seq"]
        message = to_bot("neighbour", number)
        bot.send(op="ack", seqs=[seq])
        bot.send(op="publish", request=99, messages=[message])
        bot.close()
        assert neighbour.take_one()["body"] == number
    assert worker.session("bot").waiting_deliveries() == []


def test_a_hello_that_came_before_the_break_leaves_no_session(worker: Worker, neighbour: Session) -> None:
    worker.session("bot").close()
    for _ in range(100):
        bot = worker.session()
        bot.send(op="hello", request=1, protocol=1, bot="bot")
        bot.close()
    neighbour.ping()
    wait_for_sessions(neighbour, 0)


def test_a_client_that_is_back_at_once_keeps_its_new_session(worker: Worker, neighbour: Session) -> None:
    last = worker.session("bot")
    for _ in range(100):
        last.close()
        last = worker.session("bot")
    neighbour.publish(to_bot("bot", 1))
    assert last.take_one()["body"] == 1
    assert last.ping()["op"] == "pong"
    wait_for_sessions(neighbour, 1)


def test_a_second_hello_on_a_connection_ends_with_it_too(worker: Worker, neighbour: Session) -> None:
    bot = worker.session("bot")
    bot.hello("bot")
    neighbour.publish(to_bot("bot", 1))
    bot.take_one()
    bot.close()
    wait_for_sessions(neighbour, 0)


def test_a_peer_that_chooses_its_routing_id_loses_its_session_as_well(worker: Worker, neighbour: Session) -> None:
    peers = [worker.socket(zmq.DEALER) for _ in range(2)]
    for peer in peers:
        peer.setsockopt(zmq.ROUTING_ID, b"chosen")
    answers = []
    for peer, words in zip(
        peers, ({"op": "hello", "request": 1, "protocol": 1, "bot": "bot"}, {"op": "ping"}), strict=True
    ):
        peer.connect(worker.command)
        peer.send(json.dumps(words).encode())
        assert peer.poll(10_000)
        answers.append(json.loads(peer.recv()))
        peer.close()
        wait_for_sessions(neighbour, 0)
    assert answers[0]["op"] == "welcome"
    assert answers[1]["code"] == "unknown_session"


def test_addresses_begin_elsewhere_in_each_worker() -> None:
    script = (
        "import zmq\n"
        "from bus.broker.listening import open_sockets\n"
        "from bus.settings import Listen, Settings\n"
        "with zmq.Context() as context:\n"
        "    sockets = open_sockets(context, Settings(listen=Listen(command='inproc://a', tap='inproc://b')))\n"
        "    with context.socket(zmq.DEALER) as peer:\n"
        "        peer.connect('inproc://a')\n"
        "        peer.send(b'')\n"
        "        while (parts := sockets.command.receive()) is None: pass\n"
        "    print(parts[0].hex())\n"
        "    sockets.close()\n"
    )
    first = {
        subprocess.run(
            [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True
        ).stdout
        for _ in range(3)
    }
    assert len(first) == 3
