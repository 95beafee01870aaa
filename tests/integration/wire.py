"""What the wire tests share: a worker as a process of its own, and a client that knows only the wire.

Owns the smallest blocking client that `docs/protocol.md` allows, on plain pyzmq and json. It must not import
`bus`: these tests show that the page is enough. Every wait here has an end.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import zmq

__all__ = [
    "REPOSITORY",
    "TIMEOUT_SECONDS",
    "Frame",
    "Message",
    "Program",
    "Session",
    "TapReader",
    "Worker",
    "check_echo_program",
    "code_block",
    "free_endpoints",
    "new_id",
    "to_bot",
    "to_channel",
]

REPOSITORY = Path(__file__).resolve().parents[2]

TIMEOUT_SECONDS = 30.0
"""The longest that any one answer may take: far more than a loaded machine needs, and an end all the same."""

_SLICE_SECONDS = 0.2
"""How often a wait looks whether the worker still lives."""

_UPKEEP_SECONDS = 4.0
"""A client that waits says `ping` this often; the worker asks for one every five seconds."""

Frame = dict[str, Any]
Message = dict[str, Any]


def free_endpoints(count: int) -> list[str]:
    """Find ports that are free now, all different, by binding them all at once."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"tcp://127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    finally:
        for each in sockets:
            each.close()


def new_id() -> str:
    """Make a UUID of version 7: milliseconds, then randomness."""
    value = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def to_bot(bot: str, body: Any, **fields: Any) -> Message:
    """A message for one bot, by name."""
    return {"id": new_id(), "recipient": {"type": "direct", "bot": bot}, "body": body, **fields}


def to_channel(channel: str, body: Any, **fields: Any) -> Message:
    """A message for a channel."""
    return {"id": new_id(), "recipient": {"type": "channel", "name": channel}, "body": body, **fields}


def code_block(page: Path, language: str) -> str:
    """Give the one complete program that a page shows in a language: the block that names its file."""
    blocks = page.read_text(encoding="utf-8").split(f"```{language}\n")[1:]
    programs = [block.split("\n```")[0] for block in blocks if "echo_bot" in block.split("\n", 1)[0]]
    if len(programs) != 1:
        raise AssertionError(f"{page} shows {len(programs)} programs in {language}, not one")
    return programs[0] + "\n"


class Worker:
    """A worker process on a database of its own. Its endpoints stay the same over a restart."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = directory / "posthouse.db"
        self.command, self.tap = free_endpoints(2)
        self._log = directory / "worker.log"
        self._context = zmq.Context()
        self._clients: list[_Client] = []
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Worker {self.command} process={self._process and self._process.pid}>"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the process and wait until it answers a hello."""
        arguments = ["--bind", self.command, "--tap", self.tap, "--database", str(self.database)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "worker", "serve", *arguments],
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        # A hello for a protocol that nobody speaks is answered, and leaves no trace in the database.
        with Session(self) as probe:
            probe.send(op="hello", request=0, protocol=999_999, bot="probe")
            probe.receive()

    def session(self, bot: str | None = None, **fields: Any) -> Session:
        """Connect, and say hello where a bot is named."""
        session = Session(self)
        self._clients.append(session)
        if bot is not None:
            session.hello(bot, **fields)
        return session

    def tap_reader(self, *channels: str) -> TapReader:
        """Connect to the tap."""
        reader = TapReader(self, channels)
        self._clients.append(reader)
        return reader

    def plain_connection(self) -> socket.socket:
        """Connect to the command port without ZeroMQ."""
        host, port = self.command.removeprefix("tcp://").split(":")
        return socket.create_connection((host, int(port)), TIMEOUT_SECONDS)

    def kill(self) -> None:
        """End the process as a power cut would: no handler runs."""
        process = self._running()
        process.kill()
        process.wait(TIMEOUT_SECONDS)

    def signal_termination(self) -> None:
        """Ask the process to end, and return at once."""
        self._running().send_signal(signal.SIGTERM)

    def exit_code(self) -> int:
        """Wait for the process to end by itself."""
        return self._running().wait(TIMEOUT_SECONDS)

    def has_ended(self) -> bool:
        """Tell whether the process is gone, so that nothing more will be answered."""
        return self._running().poll() is not None

    def log_tail(self) -> str:
        """Give the end of what the process wrote."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-4000:]

    def close_clients(self) -> None:
        """Close every socket that was opened through here."""
        while self._clients:
            self._clients.pop().close()

    def close(self) -> None:
        """End the process and everything connected to it."""
        self.close_clients()
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(TIMEOUT_SECONDS)
        self._context.term()

    def socket(self, kind: int) -> zmq.Socket[bytes]:
        """Open a socket that drops what it has left when it is closed."""
        opened: zmq.Socket[bytes] = self._context.socket(kind)
        opened.linger = 0
        return opened

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise AssertionError("the worker was not started")
        return self._process


class _Client:
    """A socket with waits that end."""

    def __init__(self, worker: Worker, kind: int) -> None:
        self._worker = worker
        self._socket = worker.socket(kind)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def _receive(self, timeout_seconds: float) -> list[bytes] | None:
        """Give the next message's frames, or None when the time is over. Fails where the worker is gone."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            ended = self._worker.has_ended()
            left = deadline - time.monotonic()
            if self._socket.poll(int(1000 * max(0.0, min(left, _SLICE_SECONDS)))):
                return self._socket.recv_multipart()
            if ended:
                raise AssertionError(f"the worker has ended; its log:\n{self._worker.log_tail()}")
            if left <= 0:
                return None
            self._keep_up()

    def _keep_up(self) -> None:
        """Do what a wait must not leave undone."""


class Session(_Client):
    """One connection to the command socket, and the session on it once `hello` was said.

    What arrives while something else is waited for is kept: deliveries in `delivered`, gaps and the like in
    `others`. Nothing is acknowledged by itself.
    """

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker, zmq.DEALER)
        self._socket.connect(worker.command)
        self._request = 0
        self._sent_at = time.monotonic()
        self._open = False
        self._unasked_pongs = 0
        self.delivered: deque[Message] = deque()
        self.others: list[Frame] = []
        self.bot_id = ""
        self.raw = b""
        """The bytes of the last frame that was received."""

    # ── frames ───────────────────────────────────────────────────────────────────────────────────────────

    def send(self, **frame: Any) -> None:
        """Send one frame."""
        self.send_raw(json.dumps(frame).encode())

    def send_raw(self, *frames: bytes) -> None:
        """Send these bytes as they are."""
        if not self._socket.poll(int(1000 * TIMEOUT_SECONDS), zmq.POLLOUT):
            raise AssertionError(f"nothing can be sent to {self._worker}")
        self._sent_at = time.monotonic()
        self._socket.send_multipart(frames)

    def receive(self, timeout_seconds: float = TIMEOUT_SECONDS) -> Frame:
        """Give the next frame, whatever it is, but for the pongs of the upkeep."""
        frame = self.poll(timeout_seconds)
        if frame is None:
            raise AssertionError(
                f"nothing came for {timeout_seconds} s; the worker's log:\n{self._worker.log_tail()}"
            )
        return frame

    def poll(self, timeout_seconds: float) -> Frame | None:
        """Give the next frame, or None when the time is over."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            received = self._receive(deadline - time.monotonic())
            if received is None:
                return None
            if len(received) != 1:
                raise AssertionError(f"the worker sent {len(received)} frames in one message")
            self.raw = received[0]
            frame = json.loads(self.raw)
            if not isinstance(frame, dict) or "op" not in frame:
                raise AssertionError(f"the worker sent {frame!r}, which is no object with an op")
            if frame["op"] == "pong" and self._unasked_pongs:
                self._unasked_pongs -= 1
                continue
            return frame

    def _keep_up(self) -> None:
        if self._open and time.monotonic() - self._sent_at > _UPKEEP_SECONDS:
            self._unasked_pongs += 1
            self.send(op="ping")

    def receive_until(self, op: str, request: int | None = None) -> Frame:
        """Give the next frame with this op, or the error that came for it; what comes before it is kept.

        An error without a request is taken as the answer: a frame that could not be parsed gets such a one.
        """
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            frame = self.receive(max(0.0, deadline - time.monotonic()))
            ours = request is None or frame.get("request") == request
            if (frame["op"] == op and ours) or (frame["op"] == "error" and (ours or "request" not in frame)):
                return frame
            self._keep(frame)

    def _keep(self, frame: Frame) -> None:
        if frame["op"] == "deliver":
            self.delivered.extend(frame["messages"])
        else:
            self.others.append(frame)

    # ── requests ─────────────────────────────────────────────────────────────────────────────────────────

    def request_number(self) -> int:
        """Give a number that this connection has not used."""
        self._request += 1
        return self._request

    def ask(self, op: str, *, answer: str = "ok", **fields: Any) -> Frame:
        """Send a request and give its answer, which may be an error."""
        request = self.request_number()
        self.send(op=op, request=request, **fields)
        return self.receive_until(answer, request)

    def value(self, op: str, **fields: Any) -> Any:
        """Send a request that has to succeed, and give the answer's value."""
        frame = self.ask(op, **fields)
        if frame["op"] != "ok":
            raise AssertionError(f"{op} {fields} was answered {frame}")
        return frame.get("value")

    def code(self, op: str, **fields: Any) -> str:
        """Send a request that has to be refused, and give the error's code."""
        frame = self.ask(op, **fields)
        if frame["op"] != "error":
            raise AssertionError(f"{op} {fields} was answered {frame}")
        return str(frame["code"])

    def hello(self, bot: str, **fields: Any) -> Frame:
        """Open a session that has to be welcome."""
        frame = self.ask("hello", answer="welcome", **{"protocol": 1, "bot": bot, "max_in_flight": 100, **fields})
        if frame["op"] != "welcome":
            raise AssertionError(f"hello as {bot!r} was answered {frame}")
        self.bot_id = frame["bot_id"]
        self._open = True
        return frame

    def goodbye(self) -> None:
        """End the session in order."""
        self.value("goodbye")
        self._open = False

    def ping(self) -> Frame:
        """Make a round trip; what came before the answer is kept."""
        self.send(op="ping")
        return self.receive_until("pong")

    def try_publish(self, *messages: Message) -> Frame:
        """Publish, and give the answer, whatever it is."""
        return self.ask("publish", answer="published", messages=list(messages))

    def publish(self, *messages: Message) -> list[int]:
        """Publish messages that all have to be stored, and give their seqs."""
        frame = self.try_publish(*messages)
        if frame["op"] != "published" or "errors" in frame or None in frame["seqs"]:
            raise AssertionError(f"publish was answered {frame}")
        return [int(seq) for seq in frame["seqs"]]

    def subscribe(self, channel: str, **fields: Any) -> Any:
        """Subscribe, and give the answer's value."""
        return self.value("subscribe", channel=channel, **fields)

    def history(self, **fields: Any) -> list[Message]:
        """Read a conversation back, newest first."""
        return list(self.value("history", **fields)["messages"])

    # ── deliveries ───────────────────────────────────────────────────────────────────────────────────────

    def take(self, count: int) -> list[Message]:
        """Wait for this many deliveries and give them."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while len(self.delivered) < count:
            self._keep(self.receive(max(0.0, deadline - time.monotonic())))
        return [self.delivered.popleft() for _ in range(count)]

    def take_one(self) -> Message:
        """Wait for a delivery and give it."""
        return self.take(1)[0]

    def settle(self, op: str, *seqs: int, **fields: Any) -> None:
        """Settle deliveries and wait until that is on disk."""
        self.value(op, seqs=list(seqs), **fields)

    def waiting_deliveries(self) -> list[Message]:
        """Give what was delivered before the worker answered a ping that is sent now."""
        self.ping()
        found = list(self.delivered)
        self.delivered.clear()
        return found


class TapReader(_Client):
    """A plain SUB on the tap."""

    def __init__(self, worker: Worker, channels: Sequence[str]) -> None:
        super().__init__(worker, zmq.SUB)
        self._socket.connect(worker.tap)
        for channel in channels:
            self._socket.subscribe(f"channel/{channel}\0".encode())

    def poll(self, timeout_seconds: float) -> tuple[bytes, Message] | None:
        """Give the next topic and message, or None when the time is over."""
        received = self._receive(timeout_seconds)
        if received is None:
            return None
        if len(received) != 2:
            raise AssertionError(f"the tap sent {len(received)} frames in one message")
        return received[0], json.loads(received[1])

    def receive(self) -> tuple[bytes, Message]:
        """Give the next topic and message."""
        received = self.poll(TIMEOUT_SECONDS)
        if received is None:
            raise AssertionError(f"the tap was silent for {TIMEOUT_SECONDS} s")
        return received

    def wait_until_connected(self, sender: Session, channel: str) -> None:
        """Publish on a channel of its own until the tap shows it: no SUB can ask whether it is connected."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            last = sender.publish(to_channel(channel, None))[-1]
            received = self.poll(_SLICE_SECONDS)
            while received is not None:
                if received[1]["seq"] == last:
                    return
                received = self.poll(_SLICE_SECONDS)
        raise AssertionError(f"the tap showed nothing of {channel!r} for {TIMEOUT_SECONDS} s")


def check_echo_program(worker: Worker, command: Sequence[str], directory: Path) -> None:
    """Check a program of the page: it answers each direct message once, also after the worker was killed."""
    session = worker.session("asker")
    with Program(command, directory=directory) as echo:
        assert echo.line() == "ready"
        question = to_bot("echo", {"text": "grüße 😀"})
        session.publish(question)
        reply = session.take_one()
        assert (reply["sender_bot_name"], reply["reply_to"]) == ("echo", question["id"])
        assert reply["body"] == {"text": "grüße 😀"}
        session.settle("ack", reply["seq"])
        worker.kill()
        worker.start()
        session.hello("asker")
        session.publish(*(to_bot("echo", number) for number in range(200)))
        bodies: list[int] = []
        while len(bodies) < 200:
            reply = session.take_one()
            bodies.append(reply["body"])
            session.send(op="ack", seqs=[reply["seq"]])
        assert sorted(bodies) == list(range(200))
        assert echo.line() == "ready"
    assert session.waiting_deliveries() == []


class Program:
    """A process that writes lines; each is read with an end to the wait."""

    def __init__(self, arguments: Sequence[str], *, directory: Path) -> None:
        self._errors = directory / "program.log"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                list(arguments),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._output, selectors.EVENT_READ)
        self._pending = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._selector.close()
        self._output.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(TIMEOUT_SECONDS)

    def line(self) -> str:
        """Give the next line."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while b"\n" not in self._pending:
            if not self._selector.select(max(0.0, deadline - time.monotonic())):
                raise AssertionError(f"no line for {TIMEOUT_SECONDS} s; {self._said()}")
            part = os.read(self._output.fileno(), 65_536)
            if not part:
                raise AssertionError(f"the program ended early; {self._said()}")
            self._pending += part
        line, self._pending = self._pending.split(b"\n", 1)
        return line.decode()

    def exit_code(self) -> int:
        """Wait for the process to end by itself."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(TIMEOUT_SECONDS)
        raise AssertionError(f"the program did not end within {TIMEOUT_SECONDS} s; {self._said()}")

    def _said(self) -> str:
        errors = self._errors.read_text(encoding="utf-8", errors="replace")[-4000:]
        return f"what it wrote: {self._pending!r}, and as errors:\n{errors}"
