"""One bot on plain sockets that writes down what it does: for scenarios in which everything has its place.

Owns the translation between frames and the history's records. A call that the worker did not live to answer is
written down as unknown, and ends the scenario with `Gone`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..integration.wire import Frame, Message, Session
from ..integration.wire_worker import Worker
from .history import Checkpoint, Commit, Delivery, Hello, Publish, Sent, Settle, Subscribe, Unsubscribe, digest
from .recorder import Recorder

__all__ = ["Gone", "Player", "Refused"]


_SETTLES = ("ack", "nak", "term")


class Gone(Exception):
    """The worker has ended, and what was asked of it has no answer."""


class Refused(Exception):
    """The worker refused a call; `code` says why."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class Player:
    """See the module. One that was not told of a session's end has to say hello again."""

    def __init__(self, worker: Worker, recorder: Recorder, bot: str) -> None:
        self._worker = worker
        self._recorder = recorder
        self.bot = bot
        self._session: Session | None = None
        self._session_id = ""

    def __repr__(self) -> str:
        return f"<Player {self.bot} session={self._session_id}>"

    # ── calls ────────────────────────────────────────────────────────────────────────────────────────────

    def hello(self, max_in_flight: int = 100) -> None:
        """Open a session."""
        self._session = self._worker.session()
        fields = {"protocol": 1, "bot": self.bot, "max_in_flight": max_in_flight}
        call = self._recorder.invoke(self.bot, Hello(self.bot))
        welcome = self._ask(call, "hello", answer="welcome", **fields)
        self._session_id = welcome["session"]
        self._recorder.ok(call, session=self._session_id, last_seq=welcome["last_seq"])

    def publish(self, *messages: Message) -> list[int | None]:
        """Send messages, and give their seqs; one that was refused has none."""
        call = self._recorder.invoke(self.bot, Publish(self.bot, _sent(messages)))
        frame = self._ask(call, "publish", answer="published", messages=list(messages))
        self._recorder.ok(call, seqs=tuple(frame["seqs"]))
        return list(frame["seqs"])

    def subscribe(self, channel: str) -> None:
        """Subscribe from now on."""
        call = self._recorder.invoke(self.bot, Subscribe(self.bot, channel))
        value = self._ask(call, "subscribe", channel=channel)["value"]
        self._recorder.ok(call, start_seq=value["start_seq"], created=value["created"])

    def unsubscribe(self, channel: str) -> None:
        """End a subscription."""
        call = self._recorder.invoke(self.bot, Unsubscribe(self.bot, channel))
        value = self._ask(call, "unsubscribe", channel=channel)["value"]
        self._recorder.ok(call, removed=value["removed"])

    def settle(self, how: Any, *seqs: int, **fields: Any) -> None:
        """Settle what was delivered, and wait until that is on disk."""
        action = Settle(self.bot, self._session_id, how, seqs, confirmed=True)
        call = self._recorder.invoke(self.bot, action)
        self._ask(call, how, seqs=list(seqs), **fields)
        self._recorder.ok(call)

    def commit(self, commit_id: str, *, run: Checkpoint, fence: int, **fields: Any) -> None:
        """Record a step and the version, send `messages` and settle `acks`, in one transaction."""
        messages, acks = fields.get("messages", []), fields.get("acks", [])
        step = {"id": f"{run.run_id}-{run.step}", "run_id": run.run_id, "step_id": run.step, "step_name": run.step}
        action = Commit(self.bot, self._session_id, commit_id, _sent(messages), tuple(acks), run)
        call = self._recorder.invoke(self.bot, action)
        content: dict[str, Any] = {"run_id": run.run_id, "fence": fence, "context": {"version": run.version}}
        steps = [{**step, "status": "completed"}]
        value = self._ask(call, "commit", id=commit_id, **content, steps=steps, **fields)["value"]
        self._recorder.ok(call, seqs=tuple(value["seqs"]))

    def workflow(self, call: str, **arguments: Any) -> Any:
        """Call a method of the workflows that the history has no record for."""
        return self._ask(None, "workflow", call=call, arguments=arguments)["value"]

    def history(self, channel: str) -> list[Message]:
        """Read a channel back."""
        return list(self._ask(None, "history", channel=channel)["value"]["messages"])

    # ── deliveries ───────────────────────────────────────────────────────────────────────────────────────

    def take(self, count: int) -> list[Message]:
        """Wait for deliveries, and write them down."""
        try:
            messages = self._open().take(count)
        except AssertionError as error:
            raise self._gone(None, error) from error
        self._note(messages)
        return messages

    def take_waiting(self, patience_seconds: float = 0.0) -> list[Message]:
        """Take what was delivered until now; where there is nothing, what comes first within that time."""
        session = self._open()
        try:
            messages = session.waiting_deliveries()
            if not messages and patience_seconds:
                frame = session.poll(patience_seconds)
                messages = frame["messages"] if frame is not None and frame["op"] == "deliver" else []
        except AssertionError as error:
            raise self._gone(None, error) from error
        self._note(messages)
        return messages

    def _note(self, messages: Sequence[Message]) -> None:
        deliveries = [_delivery(message) for message in messages]
        if deliveries:
            self._recorder.deliver(self.bot, bot=self.bot, session=self._session_id, messages=deliveries)

    # ── the session ──────────────────────────────────────────────────────────────────────────────────────

    def _open(self) -> Session:
        if self._session is None:
            raise AssertionError(f"{self.bot} did not say hello")
        return self._session

    def _ask(self, number: int | None, op: str, /, *, answer: str = "ok", **fields: Any) -> Frame:
        try:
            frame = self._open().ask(op, answer=answer, **fields)
        except AssertionError as error:
            raise self._gone(number, error) from error
        if frame["op"] == "error":
            if number is not None and op in _SETTLES:
                # It is not on disk; in memory it stands, and is saved as soon as that can be.
                self._recorder.unknown(number, frame["code"])
            elif number is not None:
                self._recorder.fail(number, frame["code"])
            raise Refused(frame["code"], frame["message"])
        return frame

    def _gone(self, call: int | None, error: AssertionError) -> Exception:
        if call is not None:
            self._recorder.unknown(call, "the worker is gone")
        return Gone() if self._worker.has_ended() else error


def _sent(messages: Sequence[Message]) -> tuple[Sent, ...]:
    return tuple(
        Sent(
            message["id"],
            digest(message["body"]),
            to=message["recipient"].get("bot"),
            channel=message["recipient"].get("name"),
        )
        for message in messages
    )


def _delivery(message: Message) -> Delivery:
    return Delivery(
        message["seq"],
        message["id"],
        digest(message["body"]),
        message["attempt"],
        message["sender_bot_name"],
        message["recipient"].get("name"),
    )
