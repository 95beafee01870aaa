"""Which subscriptions there may have been, and which there certainly were, from what clients were told.

Owns the reading of one bot's calls for one channel, made one after the other. A call without an answer may have
taken effect at any moment until the worker that it was sent to was killed, and both possibilities are kept.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from .history import Fail, Invoke, Ok, Subscribe, Unknown, Unsubscribe

__all__ = ["Call", "Episode", "Timeline"]


class Call:
    """One call: where it begins, what came of it and where, and where it can have no effect any more."""

    __slots__ = ("ends", "floor", "index", "invoke", "outcome", "over", "session")

    def __init__(self, index: int, invoke: Invoke, *, floor: int, over: int) -> None:
        self.index = index
        self.invoke = invoke
        self.outcome: Ok | Fail | Unknown | None = None
        self.ends = over
        """Where its outcome stands; the end of everything where there is none."""
        self.floor = floor
        """The highest seq that was acknowledged before it was sent."""
        self.over = over
        """Where the worker that it was sent to is killed."""
        self.session = ""
        """The session that its client had when it was sent."""

    @property
    def ok(self) -> Ok | None:
        """The answer, where it was acknowledged."""
        return self.outcome if isinstance(self.outcome, Ok) else None

    @property
    def failed(self) -> bool:
        """Whether it certainly did nothing."""
        return isinstance(self.outcome, Fail)


class Episode:
    """A time in which a subscription stood, or may have. `early` says that it was asked to begin in the past."""

    __slots__ = ("begins", "begun", "certain", "early", "echo", "ended", "ended_in", "group", "leaving", "low")

    def __init__(self, call: Call, low: int, subscribe: Subscribe) -> None:
        self.begins = call.index
        self.begun = call.ends if call.ok is not None else call.over
        """By which event it had begun, if it ever did."""
        self.early = subscribe.start != "new"
        self.low = low
        """Only messages above this seq can belong to it; where it is certain, all do."""
        self.echo = subscribe.echo
        self.group = subscribe.group
        self.certain = call.ends if call.ok is not None else None
        """From which event on it was acknowledged; None where it never was."""
        self.leaving: int | None = None
        """Where somebody began to end it: from there on nothing new is owed."""
        self.ended: int | None = None
        """Where it was acknowledged as ended: from there on nothing may be sent."""
        self.ended_in = ""
        """The session in which it was ended."""

    def may_cover(self, index: int, seq: int, hello: Call | None) -> bool:
        """Tell whether a delivery at this event, in the session of a hello, may be its own.

        Another session than the one that ended it may read late what was sent before.
        """
        if self.begins >= index or seq <= self.low:
            return False
        if self.ended is None or index < self.ended:
            return True
        ok = None if hello is None or hello.index >= self.ended else hello.ok
        return ok is not None and ok.session != self.ended_in

    def must_cover(self, seq: int) -> bool:
        """Tell whether a message is owed by it, whatever happens."""
        return self.certain is not None and self.leaving is None and seq > self.low


class Timeline:
    """One bot's subscription to one channel. `faults` are sentences about answers that contradict earlier ones."""

    def __init__(self, bot: str, channel: str) -> None:
        self.bot = bot
        self.channel = channel
        self.episodes: list[Episode] = []
        self.possible: set[bool] = {False}
        """Whether it may stand, and whether it may not, at the end."""
        self.faults: list[str] = []
        self._leavings: list[tuple[int, int]] = []
        self._pending: list[tuple[bool, int]] = []

    def read(self, calls: Sequence[Call]) -> None:
        """Take all calls, in order."""
        for call in calls:
            if call.failed:
                continue
            self._pending = [(stands, over) for stands, over in self._pending if over > call.index]
            if isinstance(call.invoke.action, Subscribe):
                self._subscribe(call, call.invoke.action)
            else:
                assert isinstance(call.invoke.action, Unsubscribe)
                self._unsubscribe(call)

    def may_come(self, index: int, seq: int, hello: Call | None = None) -> bool:
        """Tell whether a message of this channel may be delivered at an event, in the session of a hello."""
        return any(episode.may_cover(index, seq, hello) for episode in self.episodes)

    def is_owed(self, seq: int) -> bool:
        """Tell whether a message of this channel must have been delivered by the end."""
        return any(episode.must_cover(seq) for episode in self.episodes)

    def stood(self, index: int, seq: int) -> bool:
        """Return True if it was acknowledged before an event, and owes a message that was sent then."""
        return any(
            episode.must_cover(seq) and episode.certain is not None and episode.certain < index
            for episode in self.episodes
        )

    @property
    def in_group(self) -> bool:
        """Whether it is a group's member: then what is owed is owed to the group."""
        return any(episode.group is not None for episode in self.episodes)

    def echoes(self, seq: int) -> bool:
        """Tell whether the bot's own message is owed to it as well."""
        return any(episode.echo for episode in self.episodes if episode.must_cover(seq))

    def may_echo(self, index: int, seq: int, hello: Call | None = None) -> bool:
        """Tell whether the bot's own message may be delivered to it at an event, in the session of a hello."""
        return any(episode.echo for episode in self.episodes if episode.may_cover(index, seq, hello))

    def started_early(self, index: int) -> bool:
        """Tell whether, before an event, somebody subscribed from the past on: that goes back in the log."""
        return any(episode.early and episode.begins < index for episode in self.episodes)

    def wanted_again(self, after: int, seq: int) -> bool:
        """Tell whether somebody subscribed from the past on, after an event, so that a message may come again."""
        return any(episode.begun > after and seq > episode.low for episode in self.episodes)

    def left_between(self, after: int, before: int) -> bool:
        """Tell whether the subscription may have been ended at some moment between two events."""
        return any(begins < before and ends > after for begins, ends in self._leavings)

    def join(self, call: Call, subscribe: Subscribe) -> None:
        """Take one more member of a group, of which this is the mailbox: the first one opens it, for ever."""
        low = _low(call, subscribe) if call.ok is None else call.ok.start_seq or 0
        known = [episode for episode in self.episodes if episode.certain is not None]
        if call.ok is not None and known and low != known[0].low:
            self.faults.append(f"group {self.bot} started after seq {known[0].low}, and later after {low}")
        self.episodes.append(Episode(call, low, subscribe))

    def _subscribe(self, call: Call, subscribe: Subscribe) -> None:
        ok = call.ok
        if ok is None:
            # A group may be there already, and have begun at any time.
            low = _low(call, subscribe) if subscribe.group is None else 0
            self.episodes.append(Episode(call, low, subscribe))
            self.possible.add(True)
            self._pending.append((True, call.over))
            return
        where = f"{self.bot}'s subscription to {self.channel!r}"
        if ok.created and self.possible == {True}:
            self.faults.append(f"{where} was acknowledged, nobody ended it, and at {ok.at} s it was created anew")
        if not ok.created and self.possible == {False}:
            self.faults.append(f"{where} cannot have stood, and at {ok.at} s the worker said that it did")
        low = ok.start_seq or 0
        standing = [episode for episode in self.episodes if episode.certain is not None and episode.leaving is None]
        if not ok.created and standing:
            if low != standing[-1].low:
                self.faults.append(f"{where} started after seq {standing[-1].low}, and later after {low}")
        else:
            self.episodes.append(Episode(call, low, subscribe))
            if any(not stands for stands, _ in self._pending):
                self.episodes[-1].leaving = call.index
        self.possible = {True, *(stands for stands, _ in self._pending)}

    def _unsubscribe(self, call: Call) -> None:
        ok = call.ok
        self._leavings.append((call.index, call.ends if ok is not None else call.over))
        for episode in self.episodes:
            if episode.leaving is None:
                episode.leaving = call.index
        if ok is None:
            self.possible.add(False)
            self._pending.append((False, call.over))
            return
        where = f"{self.bot}'s subscription to {self.channel!r}"
        if ok.removed and self.possible == {False}:
            self.faults.append(f"{where} cannot have stood, and at {ok.at} s it was removed")
        if not ok.removed and self.possible == {True}:
            self.faults.append(f"{where} was acknowledged, and at {ok.at} s the worker knew nothing of it")
        if not any(stands for stands, _ in self._pending):
            for episode in self.episodes:
                if episode.ended is None:
                    episode.ended, episode.ended_in = call.ends, call.session
        self.possible = {False, *(stands for stands, _ in self._pending)}


def _low(call: Call, subscribe: Subscribe) -> int:
    """Give the lowest seq after which a subscription may have begun that nobody knows of."""
    if subscribe.start == "new":
        return call.floor
    return 0 if subscribe.start == "all" else int(subscribe.start) - 1
