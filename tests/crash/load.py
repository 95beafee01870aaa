"""Several bots, all from one seed, that live through the kills of a worker; and the reading of what is left.

Owns the threads. Whoever breaks the worker marks that in the recorder, starts it again at the same address, and
calls `drain` at the end, when it runs: every mailbox is read until it is empty, and the log, the subscriptions, the
dead letters and the runs are read back from the worker.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import zmq

from ..integration.wire import new_id
from .bots import (
    DELAY_SECONDS_MAX,
    MAX_DELIVER,
    RETAINED,
    Bot,
    Publisher,
    Shape,
    Subscriber,
    acknowledge,
    publish,
    settle,
    subscribed,
)
from .errands import Latecomer, Onlooker, Packer, Reader, Sleeper, Undertaker, Visitor, Watcher
from .history import Final, RunState, Stored, Subscribe, digest
from .link import Frame, Link, Lost
from .recorder import Recorder
from .run_bot import Worker, read_run
from .verdict import Rules

__all__ = ["CONFIGURATION", "DRAIN_SECONDS", "RULES", "SESSION_TIMEOUT_SECONDS", "Load"]

SESSION_TIMEOUT_SECONDS = 2.0

CONFIGURATION = f"""
[delivery]
session_timeout_seconds = {SESSION_TIMEOUT_SECONDS}
heartbeat_seconds = 1.0
max_deliver = {MAX_DELIVER}

[retention]
remove_undelivered = true
sweep_seconds = 0.1
{"".join(f"channels.{name}.messages_max = {most}" + chr(10) for name, most in RETAINED.items())}
[workflows]
sweep_seconds = 0.5
"""
"""For the worker: sessions that vanished give their messages back before a drain has waited for long."""

RULES = Rules(max_deliver=MAX_DELIVER, retained=RETAINED)
"""The same for the checker.

A break that the worker notices before the client is back counts as a failure where it is the last one, or where the
worker is started anew in between.
"""

DRAIN_SECONDS = 60.0
"""The longest that a mailbox may take to become empty."""

_EMPTY_SECONDS = 10.0
"""How long a mailbox is empty until its end is taken for lost: far longer than anything of the load is delayed."""

_CLOSER = "closer"
"""The bot that asks for everything at the end."""

_GHOST = "ghost"
"""The bot that vanishes at the end, where somebody watches who is there."""

_TELLING_SECONDS = 10.0
"""How long nobody is told of that, until it is taken for forgotten: it takes two seconds and a half."""

_PAGE = 1000
_PAUSE_SECONDS = 0.02


class Load:
    """See the module. `commands` are the addresses of workers; bots are named after their manner."""

    def __init__(self, *commands: str, recorder: Recorder, seed: int, shape: Shape | None = None) -> None:
        self.shape = shape or Shape()
        self.recorder = recorder
        self._commands = commands
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._bots: list[Bot] = []
        self._threads: list[threading.Thread] = []
        self._seed = seed
        chance = random.Random(seed)
        self.targets = tuple(name for kind, name, _ in self._manners() if kind.credit)
        for kind, name, sessions in self._manners():
            for number in range(sessions):
                process = f"{name}/{number}" if number else name
                link = Link(self._context, commands, recorder, name, process)
                own = random.Random(chance.randrange(2**63))
                fields = {"leads": number == 0} if kind is Subscriber else {}
                self._bots.append(kind(link, self.shape, own, self.targets, **fields))

    def _manners(self) -> Iterator[tuple[type[Bot], str, int]]:
        """Return the bots: their manner, their name, and how many sessions each has at once."""
        shape = self.shape
        for number, sessions in enumerate(shape.subscribers):
            yield Subscriber, f"subscriber-{number}", sessions
        singles: list[tuple[type[Bot], str, int]] = [
            (Publisher, "publisher", shape.publishers),
            (Reader, "reader", shape.readers),
            (Sleeper, "sleeper", shape.sleepers),
            (Worker, "worker", shape.workers),
            (Visitor, "visitor", shape.visitors),
            (Onlooker, "onlooker", shape.onlookers),
            (Latecomer, "latecomer", shape.latecomers),
            (Watcher, "watcher", shape.watchers),
            (Undertaker, "undertaker", shape.undertakers),
            (Packer, "packer", shape.packers),
        ]
        for kind, name, count in singles:
            for number in range(count):
                yield kind, f"{name}-{number}", 1

    def __repr__(self) -> str:
        return f"<Load seed={self._seed} bots={len(self._bots)} {self.recorder}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._context.term()

    def start(self) -> None:
        """Let the bots live; the worker may be away still."""
        for bot in self._bots:
            thread = threading.Thread(target=bot.run, name=bot.link.bot, daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait(self, events: int, *, seconds: float = 30.0) -> bool:
        """Wait until so many more events were written down; tell whether they were, within the time."""
        wanted, deadline = self.recorder.events + events, time.monotonic() + seconds
        while self.recorder.events < wanted:
            if time.monotonic() >= deadline:
                return False
            self.check_alive()
            time.sleep(0.002)
        return True

    def check_alive(self) -> None:
        """Raise what a bot failed with: that is a fault of the load, not of the worker."""
        for bot in self._bots:
            if bot.failure is not None:
                raise AssertionError(f"{bot} failed") from bot.failure

    @property
    def freed_bytes(self) -> int:
        """How much the worker said that it gave back to the system."""
        return sum(bot.freed_bytes for bot in self._bots if isinstance(bot, Packer))

    def stop(self) -> None:
        """Let the bots say goodbye, as far as there is a worker, and end."""
        for bot in self._bots:
            bot.link.ended.set()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    # ── The end ──────────────────────────────────────────────────────────────────────────────────────────

    def drain(self) -> Final:
        """Stop the bots, read every mailbox until it is empty, and read everything back.

        The worker has to run, and to stay. Raises AssertionError where it does not answer.
        """
        self.stop()
        self.check_alive()
        try:
            closer = self._open(_CLOSER)
            ends = {name: self._end_of(closer, name) for name in (*self.targets, _CLOSER)}
            for name, end in ends.items():
                if name != _CLOSER:
                    link = self._open(name)
                    self._read_out(link, closer, end)
                    link.goodbye()
            self._join_groups(closer)
            self._read_out(closer, closer, ends[_CLOSER])
            present = self._watch(closer) if self.shape.watchers else ()
            final = self._final(closer, present)
            closer.goodbye()
            return final
        except Lost as error:
            raise AssertionError("the worker did not stay for the drain") from error

    def _watch(self, closer: Link) -> tuple[str, ...]:
        """Let a bot vanish that was there, and those who watch be told of the last change; return who is there."""
        watcher = self._open("watcher-0")
        ghost = self._open(_GHOST)
        watcher.look_who_is_there()
        ghost.forget()
        deadline = time.monotonic() + _TELLING_SECONDS
        while time.monotonic() < deadline:
            watcher.listen(_PAUSE_SECONDS)
            closer.listen(0)
            taken = [watcher.mail.popleft() for _ in range(len(watcher.mail))]
            acknowledge(watcher, [message.seq for _, message in taken])
            if _GHOST in {frame["body"]["bot"] for frame, _ in taken if not frame["body"]["sessions"]}:
                break
        present = tuple(bot["name"] for bot in closer.ask("bots", online=True)["bots"])
        watcher.goodbye()
        return present

    def _open(self, bot: str) -> Link:
        link = Link(self._context, self._commands, self.recorder, bot)
        link.open(1000, seconds=DRAIN_SECONDS)
        return link

    def _end_of(self, closer: Link, bot: str) -> str:
        """Send a bot a message that comes after all others, and after all that wait still; give its id."""
        recipient = {"type": "direct", "bot": bot}
        delay = 2 * DELAY_SECONDS_MAX
        message = {"id": new_id(), "recipient": recipient, "body": "the end", "delay": delay}
        closer.finish(publish(closer, [message]))
        return str(message["id"])

    def _read_out(self, link: Link, closer: Link, end: str) -> None:
        """Read and ack a mailbox until its end came and nothing is left, or the time is over."""
        deadline = time.monotonic() + DRAIN_SECONDS
        empty_since = math.inf
        ended = False
        while time.monotonic() < deadline:
            link.listen(_PAUSE_SECONDS)
            taken = [link.mail.popleft()[1] for _ in range(len(link.mail))]
            ended = ended or any(message.id == end for message in taken)
            if closer is not link:
                closer.listen(0)
            if taken:
                link.finish(settle(link, "ack", [message.seq for message in taken]))
            if taken or not self._is_empty(link.bot, self._backlogs(closer)):
                empty_since = math.inf
                continue
            empty_since = min(empty_since, time.monotonic())
            if ended or time.monotonic() - empty_since > _EMPTY_SECONDS:
                return

    def _join_groups(self, closer: Link) -> None:
        """Let the closer take what is left in the mailboxes of groups: it may be their only member."""
        for channel, group in self.shape.groups:
            action = Subscribe(_CLOSER, channel, group=group)
            closer.call(action, subscribed, channel=channel, group=group)

    def _backlogs(self, closer: Link) -> dict[str, int]:
        """Give how much each mailbox still waits for. Those of groups are the closer's as well."""
        backlogs = {bot["name"]: bot["backlog"] for bot in closer.ask("bots")["bots"]}
        for channel in closer.ask("channels")["channels"]:
            for row in channel["groups"]:
                backlogs[f"{channel['name']}/{row['group']}"] = row["backlog"]
        return backlogs

    def _is_empty(self, bot: str, backlogs: dict[str, int]) -> bool:
        groups = self._groups if bot == _CLOSER else ()
        return all(backlogs.get(mailbox) == 0 for mailbox in (bot, *groups))

    @property
    def _groups(self) -> tuple[str, ...]:
        return tuple(f"{channel}/{group}" for channel, group in self.shape.groups)

    def _final(self, closer: Link, present: tuple[str, ...]) -> Final:
        names = {bot["id"]: bot["name"] for bot in closer.ask("bots")["bots"]}
        backlogs = self._backlogs(closer)
        found: dict[int, Stored] = {}
        for channel in closer.ask("channels")["channels"]:
            self._read_back(closer, names, found, channel=channel["name"])
        bots = sorted(names.values())
        for number, one in enumerate(bots):
            for other in bots[number:]:
                self._read_back(closer, names, found, between=[one, other])
        return Final(
            tuple(found[seq] for seq in sorted(found)),
            {bot: self._channels_of(closer, bot) for bot in bots},
            {mailbox: self._dead_letters_of(closer, mailbox) for mailbox in (*self.targets, *self._groups)},
            {box: backlogs[box] for box in (*self.targets, *self._groups, _CLOSER) if box in backlogs},
            self._runs(closer),
            present,
        )

    def _read_back(self, closer: Link, names: dict[str, str], found: dict[int, Stored], **what: Any) -> None:
        before: dict[str, int] = {}
        while True:
            value = closer.ask("history", limit=_PAGE, **what, **before)
            for message in value["messages"]:
                found[message["seq"]] = _stored(message, names)
            if not value["more"]:
                return
            before = {"before_seq": value["messages"][-1]["seq"]}

    def _channels_of(self, closer: Link, bot: str) -> tuple[str, ...]:
        rows = closer.ask("subscriptions", bot=bot)["subscriptions"]
        return tuple(row["channel_name"] for row in rows)

    def _dead_letters_of(self, closer: Link, mailbox: str) -> dict[int, str]:
        if mailbox not in self._backlogs(closer):
            return {}
        rows = closer.ask("dead_letters", bot=mailbox, limit=_PAGE)["dead_letters"]
        return {row["seq"]: row["reason"] for row in rows}

    def _runs(self, closer: Link) -> dict[str, RunState]:
        runs = [run for bot in self._bots if isinstance(bot, Worker) for run in bot.runs]
        known = {run["id"] for run in closer.ask("workflow", call="list_all_runs", arguments={"limit": 100_000})}
        return {run: read_run(closer, run) for run in runs if run in known}


def _stored(message: Frame, names: dict[str, str]) -> Stored:
    recipient = message["recipient"]
    return Stored(
        message["seq"],
        message["id"],
        digest(message["body"]),
        message["sender_bot_name"],
        names.get(recipient["bot_id"]) if recipient["type"] == "direct" else None,
        recipient["name"] if recipient["type"] == "channel" else None,
    )
