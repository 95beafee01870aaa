"""A history told by hand, for the tests of the checker: one line says what one client did and what came of it.

Owns short words for the records. Bodies are named like their messages, unless one is given; sessions are named
`bot/number`. What is not said to be answered stays open until `answer`, or for ever.
"""

from __future__ import annotations

from typing import Any

from .checker import check
from .history import (
    Action,
    Checkpoint,
    Commit,
    Deliver,
    Delivery,
    Event,
    Fail,
    Final,
    Gap,
    Hello,
    Invoke,
    Mark,
    Ok,
    Publish,
    ReadRun,
    Retry,
    RunState,
    Sent,
    Settle,
    Stored,
    Subscribe,
    Unknown,
    Unsubscribe,
)
from .verdict import Rules, Verdict

__all__ = ["Story"]


class Story:
    """Each event is a tenth of a second after the one before, unless `wait` says more."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules
        self.events: list[Event] = []
        self.stored: list[Stored] = []
        self.subscriptions: dict[str, tuple[str, ...]] = {}
        self.dead_letters: dict[str, dict[int, str]] = {}
        self.backlogs: dict[str, int] = {}
        self.runs: dict[str, RunState] = {}
        self._at = 0.0
        self._calls = 0
        self._incarnation = 1
        self._sent: dict[str, tuple[str, str | None]] = {}
        self._to: dict[str, str | None] = {}
        self._processes: dict[str, str] = {}

    def verdict(self) -> Verdict:
        """Judge it."""
        final = Final(tuple(self.stored), self.subscriptions, self.dead_letters, self.backlogs, self.runs)
        return check(self.events, final, self.rules)

    # ── What clients do ──────────────────────────────────────────────────────────────────────────────────

    def invoke(self, bot: str, action: Action) -> int:
        self._calls += 1
        self._add(Invoke(call=self._calls, action=action, **self._when(bot)))
        return self._calls

    def answer(self, call: int, outcome: str = "ok", **values: Any) -> None:
        when = self._when("")
        match outcome:
            case "ok":
                self._add(Ok(call=call, **values, **when))
            case "fail":
                self._add(Fail(call=call, **when))
            case _:
                self._add(Unknown(call=call, **when))

    def send(self, bot: str, *ids: str, to: str | None = None, channel: str | None = None, **fields: Any) -> int:
        """Begin to publish, by default on `news`."""
        channel = "news" if to is None and channel is None else channel
        name = bot.split("/")[0]
        self._sent.update(dict.fromkeys(ids, (name, channel)))
        self._to.update(dict.fromkeys(ids, to))
        return self.invoke(bot, Publish(name, tuple(Sent(id, id, to, channel, **fields) for id in ids)))

    def publish(
        self, bot: str, *ids: str, seqs: tuple[int | None, ...] = (), duplicates: tuple[int, ...] = (), **where: Any
    ) -> None:
        """Publish, and be answered."""
        self.answer(self.send(bot, *ids, **where), seqs=seqs, duplicates=duplicates)

    def keep(self, *messages: tuple[int, str], **changed: Any) -> None:
        """Let the log have messages at the end, as they were sent."""
        for seq, id in messages:
            sender, channel = self._sent.get(id, ("nobody", "news"))
            fields = {"body": id, "sender": sender, "to": self._to.get(id), "channel": channel, **changed}
            self.stored.append(Stored(seq, id, **fields))

    def hello(
        self, bot: str, session: str, last_seq: int | None = None, *, fence: int | None = None, **fields: Any
    ) -> None:
        hello = Hello(bot.split("/")[0], client=bot, **fields)
        self._processes[session] = bot
        self.answer(self.invoke(bot, hello), session=session, last_seq=last_seq)
        if fence is not None:
            self.mark("led", f"{session} {fence}")

    def subscribe(self, bot: str, outcome: str = "ok", *, start: Any = "new", **values: Any) -> None:
        echo, group = values.pop("echo", False), values.pop("group", None)
        call = self.invoke(bot, Subscribe(bot, "news", start, echo, group))
        self.answer(call, outcome, **({"start_seq": 0, "created": True, **values} if outcome == "ok" else {}))

    def unsubscribe(self, bot: str, outcome: str = "ok", *, removed: bool = True) -> None:
        call = self.invoke(bot, Unsubscribe(bot, "news"))
        self.answer(call, outcome, **({"removed": removed} if outcome == "ok" else {}))

    def deliver(self, session: str, seq: int, id: str, attempt: int = 1, **changed: Any) -> None:
        bot = session.split("/")[0]
        sender, channel = self._sent.get(id, ("nobody", "news"))
        fields = {"body": id, "sender": sender, "channel": channel, **changed}
        message = Delivery(seq, id, attempt=attempt, **fields)
        self._add(Deliver(bot=bot, session=session, messages=(message,), **self._when(bot)))

    def ack(self, session: str, *seqs: int, outcome: str | None = "ok", how: Any = "ack", **values: Any) -> None:
        """Settle; None is without confirmation."""
        bot, delay = session.split("/")[0], values.pop("delay", 0.0)
        process = self._processes.get(session, bot)
        call = self.invoke(process, Settle(bot, session, how, seqs, confirmed=outcome is not None, delay=delay))
        if outcome is not None:
            self.answer(call, outcome, **values)

    def come_back(self, bot: str, session: str, *holds: int, not_held: tuple[int, ...] = ()) -> None:
        """Open another session as the same client."""
        self._processes[session] = bot
        hello = Hello(bot.split("/")[0], None, bot, holds)
        self.answer(self.invoke(bot, hello), session=session, not_held=not_held)

    def gap(self, session: str, from_seq: int, to_seq: int) -> None:
        """Be told of a gap."""
        bot = session.split("/")[0]
        self._add(Gap(bot=bot, session=session, from_seq=from_seq, to_seq=to_seq, **self._when(bot)))

    def retry(self, mailbox: str, *seqs: int, outcome: str = "ok") -> None:
        """Put dead letters back."""
        call = self.invoke("eve", Retry("eve", mailbox, seqs))
        self.answer(call, outcome, **({"retried": len(seqs)} if outcome == "ok" else {}))

    def take(self, session: str, *messages: tuple[int, str]) -> None:
        """Be handed messages and ack them."""
        for seq, id in messages:
            self.deliver(session, seq, id)
        self.ack(session, *(seq for seq, _ in messages))

    def checkpoint(self, version: int, outcome: str = "ok", *, step: str | None = None) -> None:
        self.answer(self.invoke("worker", Checkpoint("run", version, step)), outcome)

    def read_run(self, version: int, *steps: str) -> None:
        self.answer(self.invoke("worker", ReadRun("run")), run=RunState(version, steps))

    def commit(self, *ids: str, acks: tuple[int, ...] = (), step: str | None = None) -> int:
        """Begin a commit of messages on `news`."""
        self._sent.update(dict.fromkeys(ids, ("worker", "news")))
        messages = tuple(Sent(id, id, channel="news") for id in ids)
        checkpoint = None if step is None else Checkpoint("run", 1, step)
        return self.invoke("worker", Commit("worker", "worker/1", "commit", messages, acks, checkpoint))

    # ── What happens ─────────────────────────────────────────────────────────────────────────────────────

    def kill(self) -> None:
        """Kill the worker and start it again."""
        self._add(Mark(what="killed", **self._when("driver")))
        self._incarnation += 1
        self._add(Mark(what="started", **self._when("driver")))

    def mark(self, what: str, note: str = "") -> None:
        """Let something else happen."""
        self._add(Mark(what=what, note=note, **self._when("driver")))

    def wait(self, seconds: float) -> None:
        self._at += seconds

    def _add(self, event: Event) -> None:
        self.events.append(event)

    def _when(self, process: str) -> dict[str, Any]:
        self._at = round(self._at + 0.1, 3)
        return {"at": self._at, "process": process, "incarnation": self._incarnation}
