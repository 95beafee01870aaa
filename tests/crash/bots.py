"""The bots of the load: what each of them does, at random but by its seed, until it is told to end.

Owns three manners: a publisher, with several frames on their way and repeats of what was not answered; a
subscriber, who settles in every way, comes, goes and vanishes; and a bot at work on runs, whose commits hold a
step, messages and acks. A bot that loses its session opens another one and goes on.
"""

from __future__ import annotations

import random
from collections import deque
from contextlib import suppress
from typing import Any, ClassVar

import msgspec

from ..integration.wire import new_id
from .history import (
    Checkpoint,
    Commit,
    Delivery,
    Publish,
    ReadRun,
    RunState,
    Sent,
    Settle,
    Subscribe,
    Unsubscribe,
    digest,
)
from .link import Ended, Frame, Link, Lost, Refused

__all__ = ["DELAY_SECONDS_MAX", "Bot", "Letters", "Publisher", "Shape", "Subscriber", "Worker", "settle"]


DELAY_SECONDS_MAX = 0.3
"""The longest that a message of the load waits until it is due."""


class Shape(msgspec.Struct, frozen=True):
    """How large the load is, and how it is spread. A bot waits at most `pause_seconds` between two turns."""

    publishers: int = 2
    subscribers: int = 3
    workers: int = 2
    channels: tuple[str, ...] = ("news", "fleeting", "jobs")
    groups: tuple[tuple[str, str], ...] = (("jobs", "crew"),)
    """Channels that are subscribed to in a group, with its name."""
    batch_max: int = 8
    frames_in_flight: int = 4
    body_bytes_max: int = 20_000
    pause_seconds: float = 0.02


class Letters:
    """Makes messages to the bots and channels of a load."""

    def __init__(self, sender: str, targets: tuple[str, ...], shape: Shape, chance: random.Random) -> None:
        self._sender = sender
        self._targets = targets
        self._shape = shape
        self._chance = chance
        self._number = 0

    def some(self) -> list[Frame]:
        """Make a few, each to a target of its own."""
        return [self.one() for _ in range(self._chance.randint(1, self._shape.batch_max))]

    def one(self) -> Frame:
        """Make one: most are short, some are long, and some wait until they are due."""
        chance = self._chance
        self._number += 1
        size = chance.randrange(self._shape.body_bytes_max if chance.random() < 0.05 else 200)
        body = {"from": self._sender, "number": self._number, "fill": "x" * size}
        recipient = {"type": "direct", "bot": chance.choice(self._targets)}
        if chance.random() < 0.6:
            recipient = {"type": "channel", "name": chance.choice(self._shape.channels)}
        message: Frame = {"id": new_id(), "recipient": recipient, "body": body}
        if chance.random() < 0.05:
            message["delay"] = round(chance.uniform(0.01, DELAY_SECONDS_MAX), 3)
        return message


def _sent(messages: list[Frame]) -> tuple[Sent, ...]:
    return tuple(
        Sent(
            message["id"],
            digest(message["body"]),
            to=message["recipient"].get("bot"),
            channel=message["recipient"].get("name"),
        )
        for message in messages
    )


def publish(link: Link, messages: list[Frame]) -> int:
    """Begin to publish."""
    return link.begin(Publish(link.bot, _sent(messages)), _seqs, messages=messages)


def settle(link: Link, how: str, seqs: list[int], **fields: Any) -> int:
    """Begin to settle, and have it confirmed."""
    action = Settle(link.bot, link.session, _how(how), tuple(seqs), confirmed=True)
    return link.begin(action, _nothing, op=how, seqs=seqs, **fields)


def _how(how: str) -> Any:
    return how


def _nothing(_: Any) -> dict[str, Any]:
    return {}


def _seqs(answer: Frame) -> dict[str, Any]:
    lists = {name: tuple(answer.get(name, ())) for name in ("duplicates", "scheduled")}
    return {"seqs": tuple(answer["seqs"]), **lists}


def _committed(answer: Frame) -> dict[str, Any]:
    seqs = tuple(answer["seqs"])
    return {"seqs": seqs, "scheduled": tuple(index for index, seq in enumerate(seqs) if seq is None)}


class Bot:
    """Opens sessions until it is told to end, and takes turns in each."""

    credit: ClassVar[int] = 0

    def __init__(self, link: Link, shape: Shape, chance: random.Random, targets: tuple[str, ...]) -> None:
        self.link = link
        self.shape = shape
        self.chance = chance
        self.letters = Letters(link.bot, targets, shape, chance)
        self.turns = 0
        self.failure: BaseException | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.link.bot} turns={self.turns}>"

    def run(self) -> None:
        """Live, until the load ends. What goes wrong with the bot itself is kept in `failure`."""
        try:
            self._live()
        except Exception as error:
            self.failure = error
        finally:
            self.link.close()

    def _live(self) -> None:
        while not self.link.ended.is_set():
            try:
                self.link.open(self.credit)
                with suppress(Refused):
                    self.begin()
                while not self.link.ended.is_set():
                    with suppress(Refused):
                        self.turn()
                    self.turns += 1
                    self.link.listen(self.chance.uniform(0, self.shape.pause_seconds))
                self.link.goodbye()
            except Lost:
                continue
            except Ended:
                return

    def begin(self) -> None:
        """Do what a new session needs."""

    def turn(self) -> None:
        """Do one thing."""
        raise NotImplementedError


class Publisher(Bot):
    """Publishes, with a window of frames that are not answered yet."""

    def __init__(self, link: Link, shape: Shape, chance: random.Random, targets: tuple[str, ...]) -> None:
        super().__init__(link, shape, chance, targets)
        self._open: deque[tuple[int, list[Frame]]] = deque()
        self._again: list[list[Frame]] = []

    def begin(self) -> None:
        # What was not answered is repeated with its ids, in its order; now and then a sender forgets.
        self._again = [messages for _, messages in self._open if self.chance.random() < 0.85] + self._again
        self._open.clear()

    def turn(self) -> None:
        if self._again:
            messages = self._again.pop(0)
        else:
            messages = self.letters.some()
            if self.chance.random() < 0.03:
                self._again.append(messages)  # a repeat of what is known: it gets its first seqs
        try:
            request = publish(self.link, messages)
        except Lost:
            self._again.insert(0, messages)
            raise
        self._open.append((request, messages))
        while len(self._open) >= self.chance.randint(1, self.shape.frames_in_flight):
            with suppress(Refused):
                self.link.finish(self._open[0][0])
            self._open.popleft()


class Subscriber(Bot):
    """Takes its mail, settles it in every way there is, and changes its subscriptions."""

    credit = 40

    def __init__(self, link: Link, shape: Shape, chance: random.Random, targets: tuple[str, ...]) -> None:
        super().__init__(link, shape, chance, targets)
        self._confirming: list[int] = []
        self._standing: set[str] = set()

    def begin(self) -> None:
        self._confirming.clear()
        # Also where it stands: then that is what the worker has to say.
        self._subscribe(self.shape.channels[0])
        if not self._standing.intersection(dict(self.shape.groups)):
            self._subscribe(self.shape.channels[-1])

    def turn(self) -> None:
        chance = self.chance.random()
        if self.link.mail and chance < 0.9:
            self._settle()
        elif chance < 0.92:
            self._change()
        elif chance < 0.925:
            self.link.goodbye()
            raise Lost("it said goodbye")
        elif chance < 0.928:
            self.link.close()
            raise Lost("it vanished")
        if len(self._confirming) > self.chance.randint(0, 6):
            self._finish()

    def _finish(self) -> None:
        while self._confirming:
            try:
                self.link.finish(self._confirming.pop())
            except Refused:
                continue

    def _settle(self) -> None:
        count = self.chance.randint(1, len(self.link.mail))
        taken = [self.link.mail.popleft()[1] for _ in range(count)]
        chance = self.chance.random()
        if chance < 0.5:
            self._confirming.append(settle(self.link, "ack", [message.seq for message in taken]))
        elif chance < 0.8:
            self._ack(taken)
        elif chance < 0.82:
            request = settle(self.link, "term", [taken[0].seq], reason="on purpose")
            self._confirming.append(request)
            self._ack(taken[1:])
        else:
            failed = [message for message in taken if message.attempt < 3 and self.chance.random() < 0.5]
            if failed:
                delay = round(self.chance.uniform(0, 0.05), 3)
                request = settle(self.link, "nak", [message.seq for message in failed], delay=delay)
                self._confirming.append(request)
            self._ack([message for message in taken if message not in failed])

    def _ack(self, messages: list[Delivery]) -> None:
        seqs = [message.seq for message in messages]
        if seqs:
            self.link.tell(Settle(self.link.bot, self.link.session, "ack", tuple(seqs)), op="ack", seqs=seqs)

    def _change(self) -> None:
        channel = self.chance.choice(self.shape.channels[1:])
        if channel in self._standing or self.chance.random() < 0.2:
            unsubscribe = Unsubscribe(self.link.bot, channel)
            self.link.call(unsubscribe, lambda value: {"removed": value["removed"]}, channel=channel)
            self._standing.discard(channel)
        else:
            self._subscribe(channel)

    def _subscribe(self, channel: str) -> None:
        start: Any = self.chance.choices(["new", "all", "seq"], [17, 1, 2])[0]
        if start == "seq":
            start = self.chance.randint(1, 200)
        group = dict(self.shape.groups).get(channel)
        subscribe = Subscribe(self.link.bot, channel, start, group=group)
        wire: dict[str, Any] = {"channel": channel, "start": {"seq": start} if isinstance(start, int) else start}
        if group is not None:
            wire["group"] = group
        self.link.call(subscribe, subscribed, **wire)
        self._standing.add(channel)


def subscribed(value: Frame) -> dict[str, Any]:
    return {"start_seq": value["start_seq"], "created": value["created"]}


_VERSIONS_A_RUN = 12


class Worker(Bot):
    """Works on runs, one after the other: checkpoints by call and by commit, which settle its mail and send on."""

    credit = 10

    def __init__(self, link: Link, shape: Shape, chance: random.Random, targets: tuple[str, ...]) -> None:
        super().__init__(link, shape, chance, targets)
        self.runs: list[str] = []
        self._claimed = False
        self._claim_id = new_id()
        self._fence = 0
        self._version = 0
        self._unanswered: tuple[Commit, dict[str, Any]] | None = None

    def begin(self) -> None:
        if self._claimed:
            self._read()  # a trace of a commit that is not answered is seen before it is repeated
        if self._unanswered is not None:
            self._send_commit(*self._unanswered)

    def turn(self) -> None:
        if self._claimed and self._version >= _VERSIONS_A_RUN:
            with suppress(Refused):  # where it was completed before, and nobody had said so
                self._checkpoint("completed")
            self._claimed = False
        if not self._claimed:
            self._begin_run()
        chance = self.chance.random()
        if chance < 0.4:
            self._checkpoint()
        elif chance < 0.9:
            self._commit()
        else:
            self._read()

    def _workflow(self, call: str, **arguments: Any) -> Any:
        return self.link.ask("workflow", call=call, arguments=arguments)

    def _begin_run(self) -> None:
        """Create and claim a run: all of it can be said again."""
        if self._version or not self.runs:
            self.runs.append(f"{self.link.bot}-{new_id()}")
            self._claim_id, self._version = new_id(), 0
        name, run_id = self.link.bot, self.runs[-1]
        self._workflow("save_definition", definition={"id": name, "name": name, "owner": {"type": "global"}})
        run = {"id": run_id, "workflow_id": name, "workflow_name": name, "trigger_type": "manual"}
        self._workflow("create_run", run={**run, "started_at": "2026-01-01T00:00:00.000000Z"})
        claim = self._workflow("claim_run", run_id=run_id, lease_seconds=3600, claim_id=self._claim_id)
        self._fence, self._claimed = claim["fence"], True

    def _checkpoint(self, status: str = "running") -> None:
        self._version += 1
        version, run_id = self._version, self.runs[-1]
        arguments = {
            "run_id": run_id,
            "status": status,
            "context": {"version": version},
            "fence": self._fence,
        }
        checkpoint = Checkpoint(run_id, version)
        self.link.call(checkpoint, _nothing, op="workflow", call="update_run_status", arguments=arguments)

    def _commit(self) -> None:
        self._version += 1
        run_id, name = self.runs[-1], f"step-{self._version}"
        step = {"id": new_id(), "run_id": run_id, "step_id": name, "step_name": name, "status": "completed"}
        messages = [self.letters.one() for _ in range(self.chance.randint(0, 2))]
        count = min(len(self.link.mail), self.chance.choice([0, 1, 2, 5]))
        acks = [self.link.mail.popleft()[1].seq for _ in range(count)]
        fields: dict[str, Any] = {
            "id": new_id(),
            "run_id": run_id,
            "fence": self._fence,
            "steps": [step],
            "context": {"version": self._version},
            "messages": messages,
            "acks": acks,
        }
        commit = Commit(
            self.link.bot,
            self.link.session,
            fields["id"],
            _sent(messages),
            tuple(acks),
            Checkpoint(run_id, self._version, name),
        )
        self._unanswered = (commit, fields)
        self._send_commit(commit, fields)

    def _send_commit(self, commit: Commit, fields: dict[str, Any]) -> None:
        """Send a commit; one whose acks are not in flight any more is refused, and forgotten."""
        with suppress(Refused):
            self.link.call(commit, _committed, **fields)
        self._unanswered = None

    def _read(self) -> None:
        """Read the run, and go on from what it says."""
        run_id = self.runs[-1]
        call = self.link.recorder.invoke(self.link.bot, ReadRun(run_id))
        try:
            state = read_run(self.link, run_id)
        except Lost:
            self.link.recorder.unknown(call)
            raise
        self.link.recorder.ok(call, run=state)
        self._version = max(self._version, state.version)


def read_run(link: Link, run_id: str) -> RunState:
    """Ask for a run's state."""
    run = link.ask("workflow", call="get_run", arguments={"run_id": run_id})
    steps = link.ask("workflow", call="get_completed_step_ids", arguments={"run_id": run_id})
    return RunState(run["context"].get("version", 0), tuple(steps))
