"""A worker that does only what a test says: for what no real one can be made to do on purpose."""

from __future__ import annotations

from typing import Any, Self

import anyio
import msgspec
import zmq

from bus.transport import Port

__all__ = ["DELIVERY", "WELCOME", "FakeWorker"]

WELCOME = {
    "op": "welcome",
    "protocol": 1,
    "worker": "fake/1",
    "session": "00000000-0000-7000-8000-000000000001",
    "epoch": "00000000-0000-7000-8000-000000000002",
    "bot": "b",
    "bot_id": "00000000-0000-7000-8000-000000000003",
    "max_in_flight": 100,
    "max_publish_in_flight": 4096,
    "heartbeat": 5.0,
    "session_timeout": 15.0,
    "ack_wait": 30.0,
    "max_deliver": 5,
    "max_frame_bytes": 1048576,
    "max_body_bytes": 262144,
    "last_seq": 0,
}

DELIVERY = {
    "seq": 1,
    "id": "01900000-0000-7000-8000-000000000001",
    "sender_bot_id": "01900000-0000-7000-8000-000000000002",
    "sender_bot_name": "s",
    "recipient": {"type": "channel", "name": "news"},
    "message_type": "message",
    "body": 1,
    "reply_to": None,
    "headers": {},
    "timestamp": "2026-01-01T00:00:00.000000Z",
    "attempt": 1,
}


class FakeWorker:
    """A ROUTER whose frames a test reads and answers by hand."""

    def __init__(self, url: str) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = self.context.socket(zmq.ROUTER)
        self.prepare(socket)
        socket.bind(url)
        self._port = Port(socket)
        self.url = url if url.startswith("inproc:") else self._port.address
        self.address = b""

    def prepare(self, socket: zmq.Socket[bytes]) -> None:
        """Set the options of a socket that is to be bound."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._port.close()
        self.context.destroy(linger=0)

    def heard_anything(self) -> bool:
        """Return True if a frame came."""
        return self._port.has_input

    async def receive(self, *ops: str) -> dict[str, Any]:
        """Return the next frame with one of these ops; what comes before it is dropped."""
        with anyio.fail_after(30):
            while (frame := await self.next_frame())["op"] not in ops:
                pass
            return frame

    async def next_frame(self) -> dict[str, Any]:
        """Return the next frame."""
        while (parts := self._port.receive()) is None:
            if not self._port.has_input:
                await self._port.wait()
        self.address = parts[0]
        frame: dict[str, Any] = msgspec.json.decode(parts[1])
        return frame

    def send(self, **frame: Any) -> None:
        """Send a frame to whoever spoke last."""
        self.send_raw(msgspec.json.encode(frame))

    def send_raw(self, frame: bytes) -> None:
        """Send these bytes to whoever spoke last."""
        assert self._port.send((self.address, frame))

    async def welcome(self, **terms: Any) -> None:
        """Take a hello and welcome it under these terms."""
        self.welcome_to(await self.receive("hello"), **terms)

    def welcome_to(self, hello: dict[str, Any], **terms: Any) -> None:
        """Welcome a hello under these terms."""
        self.send(**(WELCOME | terms | {"request": hello["request"]}))

    async def publish(self, first_seq: int = 1) -> list[str]:
        """Take a publish frame and acknowledge it; give the ids in it."""
        frame = await self.receive("publish")
        ids = [message["id"] for message in frame["messages"]]
        self.send(op="published", request=frame["request"], seqs=list(range(first_seq, first_seq + len(ids))))
        return ids

    async def farewell(self) -> None:
        """Take a goodbye."""
        goodbye = await self.receive("goodbye")
        self.send(op="ok", request=goodbye["request"])
