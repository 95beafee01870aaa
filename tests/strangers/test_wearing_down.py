"""What a stranger can make a worker hold: its size, and what operators are told of it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import structlog
import zmq

from bus.broker.listening import Sockets, open_sockets
from bus.settings import Listen, Settings

from ..integration.wire import FRAME_BYTES_MAX, Session
from ..integration.wire_worker import Worker
from .peer import greeting_3

ROOM_BYTES = 16 * 1024

CONNECTIONS = 120


@pytest.mark.parametrize(
    ("announced", "closed"), [(FRAME_BYTES_MAX, False), (FRAME_BYTES_MAX + ROOM_BYTES + 1, True)]
)
def test_a_first_command_is_no_larger_than_a_frame(
    worker: Worker, neighbour: Session, announced: int, closed: bool
) -> None:
    with worker.plain_connection() as connection:
        connection.sendall(greeting_3(b"NULL") + b"\x06" + struct.pack(">Q", announced))
        received = b""
        connection.settimeout(2)
        try:
            while part := connection.recv(65536):
                received += part
            was_closed = True
        except ConnectionError:
            was_closed = True
        except TimeoutError:
            was_closed = False
    assert was_closed is closed
    assert neighbour.ping()["op"] == "pong"


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    listen = Listen(command="tcp://127.0.0.1:*", tap="tcp://127.0.0.1:*")
    with zmq.Context() as context:
        sockets = open_sockets(context, Settings(listen=listen))
        yield sockets
        sockets.close()


def test_connections_that_never_say_hello_are_logged(sockets: Sockets) -> None:
    host, _, port = sockets.command.address.removeprefix("tcp://").rpartition(":")
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(socket.create_connection((host, int(port)), 10))
        while len(sockets.watch.connections) < CONNECTIONS:
            sockets.watch.hear(now=0.0)
        with structlog.testing.capture_logs() as logged:
            sockets.watch.look(now=29.0)
            sockets.watch.look(now=30.0)
            sockets.watch.look(now=31.0)
    assert [entry for entry in logged if entry["event"] == "connections_silent"] == [
        {"event": "connections_silent", "connections": CONNECTIONS, "of": CONNECTIONS, "log_level": "warning"}
    ]
    while len(sockets.watch.connections):
        sockets.watch.hear(now=32.0)
