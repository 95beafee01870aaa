"""Retention: which messages leave the log, by age, number and size.

Owns the rules' progress through the log. A rule applies to the whole log or to one channel. It goes through its
messages in small portions, from the oldest on:

- For a limit in number or bytes it keeps a *window*, the newest messages that fit; messages below its bottom may be
  removed. The window is counted once, and then moved along.
- Then it goes through what may be removed, again from the oldest on, and removes the messages that no mailbox still
  has to deliver. With `remove_undelivered` it also removes those that no bot is working on, and their mailboxes get
  a gap. So it does with events of the worker in any case, without telling of it by another event.

At most one portion is read or removed at a time, in the same batches as all other changes. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence

from ..mailbox.mailbox import Mailbox
from ..model.records import TOLD_CHANNELS, later
from ..model.repository import RemoveMessages, Surveyed, SurveyRequest
from ..settings import Keep, RetentionSettings
from ..wire.frames import Code
from .batches import Batches, Job
from .directory import Directory
from .dispatch import Dispatch
from .effects import Survey, Turn
from .needing import holders, wanting

__all__ = ["Retention"]


class _Rule:
    """One rule and its window: the messages above `bottom` up to `top`, their number and bytes."""

    def __init__(self, channel: str | None, keep: Keep) -> None:
        self.channel = channel
        self.keep = keep
        self.bottom = 0
        self.top = 0
        self.messages = 0
        self.size_bytes = 0

    def __repr__(self) -> str:
        return f"<_Rule {self.channel or 'the log'} window={self.bottom}..{self.top} messages={self.messages}>"

    @property
    def has_window(self) -> bool:
        return self.keep.messages_max > 0 or self.keep.bytes_max > 0

    @property
    def over(self) -> bool:
        """Whether the window holds more than may be kept."""
        return (0 < self.keep.messages_max < self.messages) or (0 < self.keep.bytes_max < self.size_bytes)

    def reset(self) -> None:
        self.bottom = self.top = self.messages = self.size_bytes = 0

    def add(self, row: Surveyed) -> None:
        self.messages += 1
        self.size_bytes += row.size_bytes

    def drop(self, row: Surveyed) -> None:
        self.messages -= 1
        self.size_bytes -= row.size_bytes

    def forget(self, row: Surveyed) -> None:
        """Remove from the window a message that any rule removed from the log."""
        if self.channel in (None, row.recipient_channel) and self.bottom < row.seq <= self.top:
            self.drop(row)


class _Removal:
    """Messages to remove, and the mailboxes that lose some of them."""

    def __init__(self, rows: Sequence[Surveyed], losing: Mapping[Mailbox, dict[int, str | None]]) -> None:
        self.rows = rows
        self.losing = losing


class Retention:
    """See the module. `tick` begins a sweep when it is due, and `surveyed` continues it."""

    def __init__(
        self,
        settings: RetentionSettings,
        events: Keep,
        *,
        directory: Directory,
        batches: Batches,
        dispatch: Dispatch,
        turn: Turn,
    ) -> None:
        self._settings = settings
        self._events = directory.worker_channels.intersection(TOLD_CHANNELS)
        self._directory = directory
        self._batches = batches
        self._dispatch = dispatch
        self._turn = turn
        rules = [*settings.rules(), *((channel, events) for channel in self._events)]
        self._rules = [_Rule(channel, keep) for channel, keep in rules if keep.limits_anything]
        self._sweep: _Sweep | None = None
        self._due = 0.0
        self._removed = 0

    def __repr__(self) -> str:
        return f"<Retention rules={self._rules} {'idle' if self._sweep is None else 'sweeping'}>"

    def tick(self) -> None:
        """Begin a sweep when it is due."""
        if self._rules and self._sweep is None and self._turn.moment.now >= self._due:
            self._sweep = self._walk()
            self._go_on(None)

    def surveyed(self, rows: Sequence[Surveyed]) -> None:
        """Continue with the portion of the log that was asked for."""
        self._go_on(rows)

    def _go_on(self, rows: Sequence[Surveyed] | None) -> None:
        assert self._sweep is not None
        try:
            step = self._sweep.send(rows) if rows is not None else next(self._sweep)
        except StopIteration:
            self._end()
            return
        if isinstance(step, SurveyRequest):
            self._turn.add(Survey(step))
        else:
            self._batches.add(_RemoveJob(self, step))

    def _end(self) -> None:
        if self._removed:
            self._turn.note("messages_removed", messages=self._removed)
        self._sweep, self._removed = None, 0
        self._due = self._turn.moment.now + self._settings.sweep_seconds

    # ── Looking ──────────────────────────────────────────────────────────────────────────────────────────

    def _walk(self) -> _Sweep:
        """Go through every rule once: ask for portions, receive them, and yield the removals."""
        for rule in self._rules:
            if rule.channel is not None and rule.channel not in self._directory.channels:
                continue
            yield from self._move_window(rule)
            # The last message stays, because new seqs follow it.
            end = self._dispatch.last_seq - 1 if rule.keep.age_seconds else rule.bottom
            after = 0
            while after < end:
                rows = yield self._portion(rule, after, min(end, self._dispatch.last_seq - 1))
                is_old = self._age_limit(rule.keep.age_seconds)
                old = [row for row in rows if row.seq <= rule.bottom or is_old(row.timestamp)]
                removal = self._removable(old)
                if removal.rows:
                    yield removal
                if len(old) < self._settings.portion_messages_max:
                    break
                after = old[-1].seq

    def _age_limit(self, age_seconds: float) -> Callable[[str], bool]:
        """Return a function that tells from a message's timestamp whether it is too old.

        Ages go by a clock as if it had not been set since the start. A timestamp in that clock's future goes by the
        log's own time. So a clock that was briefly wrong removes no message early, and keeps none forever.
        """
        if not age_seconds:
            return lambda stamp: False
        time, log_time = self._turn.steady(), self._turn.log_time.at(*self._turn.moment)
        limit, log_limit = later(time, -age_seconds), later(log_time, -age_seconds)
        return lambda stamp: stamp <= (limit if stamp <= time else log_limit)

    def _move_window(self, rule: _Rule) -> _Sweep:
        end = self._dispatch.last_seq
        while rule.has_window and rule.top < end:
            rows = yield self._portion(rule, rule.top, end)
            for row in rows:
                rule.add(row)
            rule.top = rows[-1].seq if len(rows) == self._settings.portion_messages_max else end
        while rule.over:
            rows = yield self._portion(rule, rule.bottom, rule.top)
            for row in rows:
                if rule.over:
                    rule.drop(row)
                    rule.bottom = row.seq
            if not rows:  # removed by something else: count again at the next sweep
                rule.reset()

    def _portion(self, rule: _Rule, after_seq: int, through_seq: int) -> SurveyRequest:
        return SurveyRequest(rule.channel, after_seq, through_seq, self._settings.portion_messages_max)

    # ── Removing ─────────────────────────────────────────────────────────────────────────────────────────

    def _removable(self, rows: Sequence[Surveyed]) -> _Removal:
        """Return the messages that no mailbox still has to deliver, or that may be lost."""
        held = holders(self._directory, frozenset(row.seq for row in rows))
        behind: dict[tuple[str | None, str | None], list[Mailbox]] = {}
        losing: dict[Mailbox, dict[int, str | None]] = {}
        removable: list[Surveyed] = []
        for row in rows:
            source = (row.recipient_bot_id, row.source)
            if source not in behind:
                behind[source] = [
                    mailbox
                    for mailbox in wanting(self._directory, row)
                    if not mailbox.leaving.is_through(rows[-1].seq, source[1])
                ]
            needing = [
                mailbox
                for mailbox in behind[source]
                if mailbox.leaving.needs(row.seq, row.sender_bot_id, row.source)
            ]
            needing += [mailbox for mailbox in held.get(row.seq, ()) if mailbox not in needing]
            may_lose = self._settings.remove_undelivered or row.recipient_channel in self._events
            if not needing or (may_lose and all(mailbox.leaving.can_lose(row.seq) for mailbox in needing)):
                removable.append(row)
                for mailbox in needing:
                    losing.setdefault(mailbox, {})[row.seq] = row.source
        return _Removal(removable, losing)

    def look_again(self, removal: _Removal) -> _Removal:
        """Return what may still be removed: some messages may have been delivered or retried in the meantime."""
        return self._removable(removal.rows)

    def changed(self) -> list[Mailbox]:
        """Return the mailboxes with unsaved changes, which on disk may still need what was settled."""
        return [mailbox for mailbox in self._directory.mailboxes.values() if mailbox.dirty]

    def removed(self, removal: _Removal, count: int) -> None:
        """Enter a removal that is on disk, notify the mailboxes that lost messages, and continue."""
        self._dispatch.counters.removed += count
        self._removed += count - sum(row.recipient_channel in self._events for row in removal.rows)
        for row in removal.rows:
            for rule in self._rules:
                rule.forget(row)
            if row.recipient_bot_id in self._directory.mailboxes:
                self._directory.mailboxes[row.recipient_bot_id].backlog.void()
        senders = {row.seq: row.sender_bot_id for row in removal.rows}
        for mailbox in removal.losing:
            mailbox.leaving.lose(senders)
            self._dispatch.send_gap(mailbox, mailbox.sessions)
            self._dispatch.touch(mailbox)
        self._go_on(())

    def retained(self, removal: _Removal) -> None:
        """Note that nothing was removed, and end the sweep."""
        for mailbox in removal.losing:
            mailbox.leaving.retain()
            self._dispatch.touch(mailbox)
        self._end()


class _RemoveJob(Job[int]):
    """A removal, with the state of the mailboxes that lose its messages or settled them."""

    def __init__(self, retention: Retention, removal: _Removal) -> None:
        super().__init__()
        self._retention = retention
        self._removal = removal

    def begin(self) -> None:
        """Decide what to remove, now that it is about to be written."""
        self._removal = self._retention.look_again(self._removal)
        for mailbox, channels in self._removal.losing.items():
            mailbox.leaving.prepare(channels)
        self.changes = [RemoveMessages(tuple(row.seq for row in self._removal.rows))]
        # The state on disk must not refer to messages that are gone.
        self.mailboxes = list(dict.fromkeys([*self._removal.losing, *self._retention.changed()]))

    def done(self, answers: Sequence[int], at: str) -> None:
        """Enter the removal."""
        self._retention.removed(self._removal, answers[0])

    def failed(self, code: Code, message: str) -> None:
        """Keep the messages."""
        self._retention.retained(self._removal)


_Sweep = Generator[SurveyRequest | _Removal, Sequence[Surveyed], None]
