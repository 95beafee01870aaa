"""One bot's connection to workers that may be killed at any moment, and the record of all that goes through it.

Owns the plain socket, and what is written down when: before a request is sent, when its answer is read, and where
none came. A session is over when the worker was killed, when it does not know the session, or when no answer came
in time; then the socket is closed, so that nothing that lies in it can arrive later, and `Lost` is raised.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from bus.client.route import Route
from bus.model.budgets import budget_in
from bus.model.records import PRESENCE_CHANNEL

from ..integration.wire import new_id
from .history import Action, Delivery, Hello, digest
from .recorder import Recorder

__all__ = ["ANSWER_SECONDS", "Ended", "Frame", "Link", "Lost", "Refused"]

ANSWER_SECONDS = 20.0
"""An answer that took longer does not count, and the session is given up: far more than a loaded machine needs."""

_SLICE_SECONDS = 0.05
"""How often a wait looks whether the worker was killed, or the load is to end."""

_LATE_SECONDS = 0.02
"""How long after a kill something that the worker had sent may still come out of the socket."""

_PING_SECONDS = 0.5

_SILENT_SECONDS = 1.5
"""A client that said nothing for so long may be taken for one that vanished."""

Frame = dict[str, Any]
Values = Callable[[Any], dict[str, Any]]


class Lost(Exception):
    """The session is over, and nobody knows what came of what was not answered."""


class Ended(Exception):
    """The load is to end."""


class Refused(Exception):
    """The worker refused a request."""

    def __init__(self, frame: Frame) -> None:
        super().__init__(f"{frame.get('code')}: {frame.get('message')}")
        self.code = str(frame.get("code"))
        self.elsewhere: str | None = (frame.get("details") or {}).get("url")
        """Where another worker serves, if this one says so."""


class Link:
    """See the module. `mail` has what was delivered and not taken yet; `session` is empty while there is none.

    `process` tells the clients of one bot apart. A client that opens a session after another one returns: what is
    in its mail stays with it, as far as the worker says so.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        commands: Sequence[str],
        recorder: Recorder,
        bot: str,
        process: str = "",
    ) -> None:
        self.bot = bot
        self.process = process or bot
        self.recorder = recorder
        self.session = ""
        self.last_seq = 0
        """The end of the log when the session began."""
        self.mail: deque[tuple[Frame, Delivery]] = deque()
        self.ended = threading.Event()
        self._token = new_id()
        self._epoch: str | None = None
        self._silent_seconds = 0.0
        self._left_at: float | None = None
        """When the last session was left without a goodbye, and the client has not returned."""
        self._context = context
        self._route = Route(commands)
        self._are_several = len(commands) > 1
        self._socket: zmq.Socket[bytes] | None = None
        self._endings = 0
        self._requests = 0
        self._sent_at = 0.0
        self._calls: dict[int, tuple[int, Values]] = {}
        self._answers: dict[int, Frame] = {}

    def __repr__(self) -> str:
        return f"<Link {self.process} session={self.session or None} open={len(self._calls)}>"

    # ── The session ──────────────────────────────────────────────────────────────────────────────────────

    def open(self, max_in_flight: int, *, seconds: float = math.inf) -> None:
        """Say hello until there is a session.

        Raises Ended where the load ends before, and Lost where there is none within so many seconds.
        """
        deadline = time.monotonic() + seconds
        while True:
            if time.monotonic() > deadline:
                raise Lost("nobody answers")
            if self.ended.is_set():
                raise Ended
            self.close()
            if self._left_at is not None and time.monotonic() - self._left_at > _SILENT_SECONDS:
                self._gone()
            self._endings = len(self.recorder.endings)
            self._socket = self._context.socket(zmq.DEALER)
            self._socket.linger = 0
            self._socket.setsockopt(zmq.RECONNECT_IVL, 10)
            self._socket.connect(self._route.url)
            try:
                self._hello(max_in_flight)
                return
            except Refused as refused:
                self._route.hear(refused.elsewhere)
            except Lost:
                pass
            self._next(opened=False)

    def _next(self, *, opened: bool) -> None:
        """Choose the worker of the next attempt, where there are several."""
        pause = self._route.go_on(opened=opened)
        if not opened and self._are_several:
            self.ended.wait(pause)

    def _hello(self, max_in_flight: int) -> None:
        holds = [delivery.seq for _, delivery in self.mail]
        groups: dict[str, list[int]] = {}
        for _, delivery in self.mail:
            if delivery.group is not None:
                groups.setdefault(delivery.group, []).append(delivery.seq)
        returning = {"token": self._token, "holds": holds, "held_groups": groups, "epoch": self._epoch}
        fields = {"bot": self.bot, "max_in_flight": max_in_flight, **{k: v for k, v in returning.items() if v}}
        hello = Hello(self.bot, max_in_flight, self.process, tuple(holds))
        seconds = self._route.patience_seconds if self._are_several else ANSWER_SECONDS
        welcome = self.finish(self.begin(hello, _session, protocol=1, **fields), seconds)
        if self._left_at is not None:
            self.recorder.mark("broke", process=self.bot)
        self._epoch, self._left_at = welcome["epoch"], None
        if self._are_several:
            fence = self.ask("status")["leads"]["fence"]
            self.recorder.mark("led", f"{self.session} {fence}", process=self.process)
        # What came behind the welcome is in the mail already, and not among what was held.
        lost = set(welcome.get("not_held", ()))
        self.mail = deque(each for each in self.mail if each[1].seq not in lost)

    def forget(self) -> None:
        """Vanish: close the socket, and be another client from now on."""
        self.close()
        self._gone()
        self.mail.clear()
        self._token = new_id()

    def _gone(self) -> None:
        """Note that the worker may have taken its client for one that vanished, unless the worker ended first."""
        if self._left_at is not None:
            ended = self.recorder.endings[self._endings :]
            if not ended or ended[0] - self._left_at > _SILENT_SECONDS:
                self.recorder.mark("vanished", process=self.bot)
        self._left_at = None

    def close(self) -> None:
        """Close the socket, without a word; what is not answered is unknown."""
        if self._socket is not None:
            self._socket.close()
        if self.session:
            self._left_at = self._sent_at if self._silent_seconds < _SILENT_SECONDS else 0.0
            self._next(opened=True)
        self._silent_seconds = 0.0
        self._socket = None
        for call, _ in self._calls.values():
            self.recorder.unknown(call, "the session is over")
        self._calls.clear()
        self._answers.clear()
        self.session = ""

    def goodbye(self) -> None:
        """Wait for what is open, and end the session in order, as far as the worker still answers."""
        deadline = time.monotonic() + ANSWER_SECONDS
        try:
            while self._calls:
                self._receive_by(deadline)
            self.ask("goodbye")
            self.session, self._left_at = "", None
        except (Lost, Refused):
            pass
        self.close()
        self.mail.clear()

    # ── Requests ─────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, action: Action, values: Values, **fields: Any) -> int:
        """Write down a call and send it; give the number by which `finish` waits for it.

        `values` makes of the answer what is written down of it. The op is that of the action, unless named.
        """
        call = self.recorder.invoke(self.process, action)
        self._requests += 1
        request = self._requests
        self._calls[request] = (call, values)
        op = fields.pop("op", None) or type(action).__name__.lower()
        self._send({"op": op, "request": request, **fields})
        return request

    def finish(self, request: int, seconds: float = ANSWER_SECONDS) -> Frame:
        """Wait for an answer and give it; raises Refused where it is an error."""
        deadline = time.monotonic() + seconds
        while request not in self._answers:
            self._receive_by(deadline)
        frame = self._answers.pop(request)
        if frame["op"] == "error":
            raise Refused(frame)
        return frame

    def call(self, action: Action, values: Values, **fields: Any) -> Frame:
        """Write down a call, send it and wait for its answer."""
        return self.finish(self.begin(action, values, **fields))

    def tell(self, action: Action, **frame: Any) -> None:
        """Write down a call that is never answered, and send it."""
        self.recorder.invoke(self.process, action)
        self._send(frame)

    def ask(self, op: str, **fields: Any) -> Any:
        """Ask what changes nothing that is judged, and give the value of the answer."""
        self._requests += 1
        request = self._requests
        self._send({"op": op, "request": request, **fields})
        return self.finish(request).get("value")

    @property
    def open_calls(self) -> int:
        """How many calls wait for an answer."""
        return len(self._calls)

    def listen(self, seconds: float) -> bool:
        """Take what comes within a time; tell whether anything did. A ping keeps the session alive."""
        try:
            self._receive(seconds)
        except TimeoutError:
            return False
        while self._socket is not None and self._socket.poll(0):
            self._take(self._socket.recv())
        return True

    # ── Inside ───────────────────────────────────────────────────────────────────────────────────────────

    def _send(self, frame: Frame) -> None:
        if self._socket is None:
            raise Lost("there is no session")
        try:
            self._socket.send(json.dumps(frame).encode(), zmq.DONTWAIT)
        except zmq.Again:
            self.close()
            raise Lost("nothing can be sent any more") from None
        now = time.monotonic()
        if self.session:
            self._silent_seconds = max(self._silent_seconds, now - self._sent_at)
        self._sent_at = now

    def _ping(self) -> None:
        """Keep the session alive."""
        if self.session and time.monotonic() - self._sent_at > _PING_SECONDS:
            self._send({"op": "ping"})

    def _receive_by(self, deadline: float) -> None:
        try:
            self._receive(deadline - time.monotonic())
        except TimeoutError:
            self.close()
            raise Lost("no answer came in time") from None

    def _receive(self, seconds: float) -> None:
        """Take one frame; TimeoutError where none came in time, Lost where the session is over."""
        deadline = time.monotonic() + seconds
        while True:
            if self._socket is None:
                raise Lost("there is no session")
            self._ping()
            over = len(self.recorder.endings) != self._endings
            left = _LATE_SECONDS if over else min(_SLICE_SECONDS, deadline - time.monotonic())
            if self._socket.poll(int(1000 * max(0.0, left))):
                self._take(self._socket.recv())
                return
            if over:
                self.close()
                raise Lost("the worker was killed")
            if time.monotonic() >= deadline:
                raise TimeoutError
            if self.ended.is_set() and not self.session:
                raise Ended

    def _take(self, raw: bytes) -> None:
        frame = json.loads(raw)
        if frame["op"] == "deliver":
            self._deliver(frame["messages"])
            return
        if frame["op"] == "gap":
            told = {name: frame[name] for name in ("from_seq", "to_seq", "reason")}
            self.recorder.gap(self.process, bot=self.bot, session=self.session, **told)
            return
        if frame["op"] == "closing" and self._are_several:
            self._route.hear(frame.get("url"))
            self.close()
            raise Lost("the worker hands over")
        request = frame.get("request")
        if request is None:
            if frame["op"] == "error":
                self._route.hear(Refused(frame).elsewhere)
                self.close()
                raise Lost(f"the worker answered {frame}")
            return
        self._answers[request] = frame
        if request in self._calls:
            self._note(*self._calls.pop(request), frame)
        if frame["op"] == "error" and frame["code"] == "unknown_session":
            if self.session and self._silent_seconds < _SILENT_SECONDS:
                self.recorder.mark("expelled", self.session, process=self.bot)
            self.close()
            raise Lost("the worker does not know the session")
        if frame["op"] == "error" and frame["code"] == "elsewhere" and self.session:
            self._route.hear(Refused(frame).elsewhere)
            self.close()
            raise Lost("the worker stands by now")

    def _note(self, call: int, values: Values, frame: Frame) -> None:
        if frame["op"] != "error":
            if frame["op"] == "welcome":
                self.session, self.last_seq = frame["session"], frame["last_seq"]
            value = frame.get("value") if frame["op"] == "ok" else frame
            self.recorder.ok(call, **values(value))
        elif frame["code"] == "internal":
            self.recorder.unknown(call, frame["message"])
        else:
            self.recorder.fail(call, f"{frame['code']}: {frame['message']}")

    def _deliver(self, messages: list[Frame]) -> None:
        deliveries = [_delivery(message) for message in messages]
        self.recorder.deliver(self.process, bot=self.bot, session=self.session, messages=deliveries)
        for message in messages:
            if message["recipient"].get("name") == PRESENCE_CHANNEL:
                self._presence(message)
        self.mail.extend(zip(messages, deliveries, strict=True))

    def _presence(self, message: Frame) -> None:
        body = message["body"]
        told = {"seq": message["seq"], "what": message["message_type"], "about": body["bot"], "of": body["session"]}
        who = {"bot": self.bot, "session": self.session}
        self.recorder.presence(self.process, **who, **told, sessions=body["sessions"])

    def look_who_is_there(self) -> list[str]:
        """Ask who is there, and write that down."""
        bots = [bot["name"] for bot in self.ask("bots", online=True)["bots"]]
        self.recorder.present(self.process, bot=self.bot, session=self.session, bots=bots)
        return bots


def _session(frame: Frame) -> dict[str, Any]:
    not_held = tuple(frame.get("not_held", ()))
    return {"session": frame["session"], "last_seq": frame["last_seq"], "not_held": not_held}


def _delivery(message: Frame) -> Delivery:
    recipient = message["recipient"]
    return Delivery(
        message["seq"],
        message["id"],
        digest(message["body"]),
        message["attempt"],
        message["sender_bot_name"],
        recipient["name"] if recipient["type"] == "channel" else None,
        message.get("group"),
        message["reply_to"],
        message.get("priority", "normal"),
        budget_in(message.get("headers", {})).hops,
    )
