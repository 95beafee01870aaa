"""The simulation is tested by breaking the core: each fault here must be found.

A fault is put in with monkeypatch, in one method, as a careless change would; then worlds are played until one
breaks a promise. One that no world finds would mean that the simulation does not look there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from bus.core import checking, events, pattern_requests, wills
from bus.core.batches import Batches, Job
from bus.core.directory import Directory
from bus.core.dispatch import Dispatch
from bus.core.events import Events
from bus.core.keyed_sweeping import KeyedSweeping
from bus.core.keyed_watching import KeyedWatching
from bus.core.matching import Matching
from bus.core.publishing import Publishing
from bus.core.scheduling import Scheduling
from bus.core.wills import Wills
from bus.core.works import WorkJob
from bus.mailbox.backlog import Backlog
from bus.mailbox.intake import Intake
from bus.mailbox.lanes import Lane, Lanes
from bus.mailbox.leaving import Leaving
from bus.mailbox.losses import Losses
from bus.mailbox.mailbox import Mailbox
from bus.mailbox.outstanding import Outstanding
from bus.mailbox.parts import Parts
from bus.mailbox.sessions import Session, Sessions
from bus.mailbox.sources import Sources
from bus.model.keyed import ValueState
from bus.model.keyed_unit import KeyedRow, KeyedUnit
from bus.model.repository import AddSubscription, MailboxState, PatternSubscription, Released
from bus.model.wills import will_write
from bus.wire.frames import Ok, Publication, Published

from .budget_faults import (
    delivers_what_was_left_before,
    gives_hops_as_it_likes,
    lets_others_end_a_thread,
    lets_who_copies_an_id_have_a_say,
    says_nothing_of_a_spent_answer,
)
from .promises import Violation
from .simulation import play

WORLDS = 150
STEPS = 1000

Fault = Callable[[pytest.MonkeyPatch], None]


def forgets_what_is_unsettled(patch: pytest.MonkeyPatch) -> None:
    """A position that is saved without what lies unsettled below it."""
    state = Mailbox.state

    def broken(self: Mailbox) -> MailboxState:
        return msgspec.structs.replace(state(self), unsettled=())

    patch.setattr(Mailbox, "state", broken)


def drops_what_arrives_while_reading(patch: pytest.MonkeyPatch) -> None:
    """A mailbox that takes the page for everything."""
    take_aside = Intake.take_aside

    def broken(self: Intake) -> None:
        self._aside.clear()
        take_aside(self)

    patch.setattr(Intake, "take_aside", broken)


def is_level_after_an_overflow(patch: pytest.MonkeyPatch) -> None:
    """A mailbox that overflowed, and does not know that it has to read."""
    arrive = Intake.arrive

    def broken(self: Intake, envelope: Any) -> bool:
        level = self.level
        taken = arrive(self, envelope)
        self.level = level
        return taken

    patch.setattr(Intake, "arrive", broken)


def loses_what_a_dead_session_had(patch: pytest.MonkeyPatch) -> None:
    """A session that ends, and takes its messages along."""
    detach = Mailbox.detach

    def broken(self: Mailbox, session: Session, now: float, **options: Any) -> Any:
        for seq in list(session.in_flight):
            self.settle(session, [seq])
        return detach(self, session, now, **options)

    patch.setattr(Mailbox, "detach", broken)


def ignores_credit(patch: pytest.MonkeyPatch) -> None:
    """A session that is given one message too many."""
    patch.setattr(Session, "free", property(lambda self: self.credit - len(self.in_flight) + 1))


def does_not_go_back(patch: pytest.MonkeyPatch) -> None:
    """A subscription in the past whose position, on disk, stays where it was."""
    patch.setattr(Sources, "prepare", lambda self, channel, start_seq: None)


def repeats_the_other_sources(patch: pytest.MonkeyPatch) -> None:
    """A position that goes back for one channel, and for all others with it."""
    patch.setattr(Sources, "_raised_floors", lambda self: {})


def confirms_before_the_disk(patch: pytest.MonkeyPatch) -> None:
    """A confirmed ack that is answered although its state was not saved with it."""
    add = Batches.add

    def broken(self: Batches, job: Job[Any]) -> None:
        job.mailboxes = ()
        add(self, job)

    patch.setattr(Batches, "add", broken)


def acknowledges_before_the_disk(patch: pytest.MonkeyPatch) -> None:
    """A publish that is acknowledged when it is taken, with the seq that it will probably get."""

    def broken(self: Publishing, session: Session, publish: Any) -> None:
        first = self._dispatch.last_seq + 1
        seqs: list[int | None] = list(range(first, first + len(publish.messages)))
        self._turn.send(session.address, Published(request=publish.request, seqs=seqs))

    patch.setattr(Publishing, "request", broken)


def delivers_after_leaving(patch: pytest.MonkeyPatch) -> None:
    """A channel that was left, and whose waiting messages still come."""

    def broken(self: Mailbox, channel: str) -> None:
        self.sources.remove(channel)

    patch.setattr(Mailbox, "unsubscribe", broken)


def repeats_replies_that_came_early(patch: pytest.MonkeyPatch) -> None:
    """A reply that was handed out before its turn, and comes again with it."""
    patch.setattr(Parts, "pass_over", lambda self, seqs: None)


def takes_along_what_a_member_had(patch: pytest.MonkeyPatch) -> None:
    """A bot that leaves its group with messages, which the others never get."""
    leave = Dispatch.leave

    def broken(self: Dispatch, session: Session, mailbox: Mailbox, **how: Any) -> None:
        if mailbox.group is not None:
            for seq in [seq for seq, holder in session.in_flight.items() if holder == mailbox.id]:
                mailbox.settle(session, [seq])
        leave(self, session, mailbox, **how)

    patch.setattr(Dispatch, "leave", broken)


def forgets_groups_without_members(patch: pytest.MonkeyPatch) -> None:
    """A group that begins anew when its last member left."""
    unsubscribe = Directory.unsubscribe

    def broken(self: Directory, bot_id: str, channel: str) -> Mailbox:
        mailbox = unsubscribe(self, bot_id, channel)
        members = [s for s in self.channels[channel].subscriptions.values() if s.group == mailbox.group]
        if mailbox.group is not None and not members:
            mailbox.intake.drop_channel(channel)
            mailbox.sources.position = self.channels[channel].head_seq
            mailbox.not_saved()
        return mailbox

    patch.setattr(Directory, "unsubscribe", broken)


def releases_before_it_is_due(patch: pytest.MonkeyPatch) -> None:
    """A delayed message that enters the log with the next batch."""
    release = Scheduling.release

    def broken(self: Scheduling) -> None:
        with pytest.MonkeyPatch.context() as now:
            now.setattr(self.turn, "steady", lambda: "9999-01-01T00:00:00.000000Z")
            release(self)

    patch.setattr(Scheduling, "release", broken)


def forgets_to_enter_what_was_released(patch: pytest.MonkeyPatch) -> None:
    """A delayed message that is in the log, and that no mailbox hears of."""

    def broken(self: Scheduling, released: Released) -> None:
        self._releasing = False
        self._next_due_at = released.next_due_at

    patch.setattr(Scheduling, "released", broken)


def removes_what_is_owed(patch: pytest.MonkeyPatch) -> None:
    """Retention that looks at age alone."""
    patch.setattr(Leaving, "needs", lambda self, seq, sender_bot_id, channel: False)


def removes_what_is_held(patch: pytest.MonkeyPatch) -> None:
    """Retention that looks for dead letters, and what is in flight, nowhere."""
    patch.setattr(Leaving, "holds", lambda self, seqs: set())


def hands_out_what_is_being_removed(patch: pytest.MonkeyPatch) -> None:
    """A mailbox that does not keep back what leaves the log."""
    hand_out = Mailbox.hand_out

    def broken(self: Mailbox, now: float, wall: str = "") -> Any:
        losing, self.losses.losing = self.losses.losing, {}
        try:
            return hand_out(self, now, wall)
        finally:
            self.losses.losing = losing

    patch.setattr(Mailbox, "hand_out", broken)


def forgets_a_retry_of_a_channel_that_was_left(patch: pytest.MonkeyPatch) -> None:
    """A dead letter that is tried again, and dropped because its channel was left."""
    revive = Outstanding.revive

    def broken(self: Outstanding, seq: int) -> None:
        revive(self, seq)
        self._items[seq].retried = False

    patch.setattr(Outstanding, "revive", broken)


def lies_beyond_the_end(patch: pytest.MonkeyPatch) -> None:
    """A floor where a subscription starts, wherever that is."""
    patch.setattr(
        Sources,
        "_raised_floors",
        lambda self: {source: max(start, self.position) for source, start in self._starts()},
    )


def tells_nobody_of_a_gap(patch: pytest.MonkeyPatch) -> None:
    """Retention that takes undelivered messages in silence."""
    patch.setattr(Dispatch, "send_gap", lambda self, mailbox, sessions: None)


def counts_only_what_comes(patch: pytest.MonkeyPatch) -> None:
    """A backlog that never shrinks."""
    patch.setattr(Backlog, "went", lambda self, sender, count=1: None)


def delivers_what_was_erased(patch: pytest.MonkeyPatch) -> None:
    """An erasure that mailboxes do not hear of."""
    patch.setattr(Leaving, "forget_texts", lambda self, seqs: None)


def tells_nobody_of_what_was_erased(patch: pytest.MonkeyPatch) -> None:
    """A mailbox that passes over what was erased without a gap."""
    patch.setattr(Losses, "miss", lambda self, seqs: None)


def tells_of_dead_letters_later(patch: pytest.MonkeyPatch) -> None:
    """A dead letter that is not told in the transaction that stores it."""
    patch.setattr(Events, "_of_dead_letters", lambda self, buried, timestamp: [])


def misses_a_new_channel(patch: pytest.MonkeyPatch) -> None:
    """A batch that creates a channel, and subscribes nobody to it whose pattern matches."""
    patch.setattr(Matching, "_meet", lambda self, channels: [])


def begins_a_pattern_at_the_end(patch: pytest.MonkeyPatch) -> None:
    """A pattern from the past whose channels begin at the end of the log."""

    def broken(bot_id: str, channel: str, at: str, start_seq: int | None, *of: Any, **by: Any) -> Any:
        return AddSubscription(bot_id, channel, at, None, *of, **by)

    patch.setattr(pattern_requests, "AddSubscription", broken)


def brings_channels_outside_of_the_group(patch: pytest.MonkeyPatch) -> None:
    """A pattern in a group whose channels come to each member alone."""
    of = PatternSubscription.of

    def broken(self: PatternSubscription, channel: str, *, after_seq: int) -> AddSubscription:
        return msgspec.structs.replace(of(self, channel, after_seq=after_seq), group=None)

    patch.setattr(PatternSubscription, "of", broken)


def tells_nobody_who_vanished(patch: pytest.MonkeyPatch) -> None:
    """A session that vanishes, and whose bot is shown as present for ever."""
    patch.delitem(events._PRESENCE, "session_vanished")


def tells_the_first_of_many_changes(patch: pytest.MonkeyPatch) -> None:
    """A bot that came and went, of which the last that is told is that it came."""
    patch.setattr(events, "_put", lambda waiting, event: waiting.setdefault(events._key(event), event))


def tells_what_was_told(patch: pytest.MonkeyPatch) -> None:
    """A change that is told, and told again."""

    def broken(self: Any, answers: Any, at: str) -> None:
        self._events.not_written(self._kept)

    patch.setattr(events._TellJob, "done", broken)


def counts_who_may_never_come(patch: pytest.MonkeyPatch) -> None:
    """A session that is told as one of its bot's while it is being opened."""
    patch.setattr(Sessions, "there", Sessions.of_bot)


def sends_a_will_after_a_goodbye(patch: pytest.MonkeyPatch) -> None:
    """A goodbye that is answered, and whose bot's will is sent all the same."""

    def broken(self: Wills, session: Session, request: Any) -> None:
        self.turn.send(session.address, Ok(request=request.request))

    patch.setattr(Wills, "goodbye", broken)


def sends_a_will_though_its_bot_returned(patch: pytest.MonkeyPatch) -> None:
    """A bot that returns in time, and whose will is sent."""
    patch.setattr(Wills, "came", lambda self, bot_id: None)
    patch.setattr(wills._SendJob, "begin", WorkJob.begin)


def forgets_wills_at_a_start(patch: pytest.MonkeyPatch) -> None:
    """A worker that is started, and waits for nobody."""
    patch.setattr(Wills, "load", lambda self, wills, now: None)


def sends_what_was_erased(patch: pytest.MonkeyPatch) -> None:
    """A will that is erased in the batch in which it is sent, and sent all the same."""
    patch.setattr(wills, "will_write", lambda bot_id, will, expected=None: will_write(bot_id, will))


def remembers_wills_that_are_gone(patch: pytest.MonkeyPatch) -> None:
    """A will that is erased, or removed with its bot, on disk and not in memory."""
    patch.setattr(Wills, "erased", lambda self, bot_ids: None)


def tells_nobody_of_changed_values(patch: pytest.MonkeyPatch) -> None:
    """A keyed store whose watchers are told of nothing."""
    patch.setattr(KeyedWatching, "changed", lambda self, stores: None)


def puts_whatever_the_revision_is(patch: pytest.MonkeyPatch) -> None:
    """A put that is acknowledged without a look at the revision that it expects."""
    write = KeyedUnit.write
    patch.setattr(
        KeyedUnit, "write", lambda self, asked: write(self, msgspec.structs.replace(asked, expected=None))
    )


def brings_expired_values_back(patch: pytest.MonkeyPatch) -> None:
    """A value that has expired, and that is read until it is swept."""
    patch.setattr(KeyedRow, "is_live", lambda self, now: ValueState(self.state).has_value)


def sweeps_no_expired_value(patch: pytest.MonkeyPatch) -> None:
    """A value that expires without anybody being told."""
    patch.setattr(KeyedSweeping, "expect", lambda self, seconds: None)


def forgets_writes_that_were_replaced(patch: pytest.MonkeyPatch) -> None:
    """A repeat of a write that is carried out again if there was another one since."""
    emptied = KeyedRow.emptied
    patch.setattr(KeyedRow, "emptied", lambda self, state: emptied(self, state)._replace(write_id=None))


def keeps_a_part_of_a_refused_commit(patch: pytest.MonkeyPatch) -> None:
    """A commit of several values of which one conflicts, and the ones before it are written."""

    patch.setattr(KeyedUnit, "write_whole", lambda self, writes: [self.write(write) for write in writes])


def retains_what_it_likes(patch: pytest.MonkeyPatch) -> None:
    """A lot whose messages are retained as the first of its neighbours is."""
    are_alike = checking._are_alike

    def broken(one: Publication, other: Publication) -> bool:
        return are_alike(one, msgspec.structs.replace(other, retain=one.retain))

    patch.setattr(checking, "_are_alike", broken)


def forgets_what_is_only_in_the_store(patch: pytest.MonkeyPatch) -> None:
    """A mailbox that takes a priority of which it has nothing in memory for one of which nothing waits."""
    patch.setattr(Lane, "waits", property(lambda self: bool(self.intake)))


def forgets_where_a_priority_was(patch: pytest.MonkeyPatch) -> None:
    """A mailbox that saves its position alone, whatever it has delivered of other priorities."""
    saved = Lanes.saved

    def broken(self: Lanes, *places: int) -> dict[str, int]:
        saved(self, *places)
        return {}

    patch.setattr(Lanes, "saved", broken)


def repeats_prioritized_replies(patch: pytest.MonkeyPatch) -> None:
    """A reply with a priority that was delivered early, and again when its turn comes."""
    patch.setattr(Lanes, "put_early", lambda self, priority, seqs: None)


FAULTS: dict[Fault, int] = {
    forgets_what_is_only_in_the_store: 3,
    forgets_where_a_priority_was: 3,
    repeats_prioritized_replies: 416,
    gives_hops_as_it_likes: 20,
    delivers_what_was_left_before: 11,
    says_nothing_of_a_spent_answer: 11,
    lets_others_end_a_thread: 34,
    lets_who_copies_an_id_have_a_say: 1009,
    tells_nobody_of_changed_values: 9,
    puts_whatever_the_revision_is: 9,
    brings_expired_values_back: 9,
    sweeps_no_expired_value: 9,
    forgets_writes_that_were_replaced: 9,
    keeps_a_part_of_a_refused_commit: 53,
    retains_what_it_likes: 504,
    takes_along_what_a_member_had: 6,
    forgets_groups_without_members: 18,
    releases_before_it_is_due: 0,
    forgets_to_enter_what_was_released: 0,
    removes_what_is_owed: 2,
    removes_what_is_held: 1,
    hands_out_what_is_being_removed: 14,
    forgets_a_retry_of_a_channel_that_was_left: 2,
    lies_beyond_the_end: 50,
    tells_nobody_of_a_gap: 5,
    counts_only_what_comes: 0,
    repeats_replies_that_came_early: 13,
    forgets_what_is_unsettled: 1,
    drops_what_arrives_while_reading: 0,
    is_level_after_an_overflow: 0,
    loses_what_a_dead_session_had: 1,
    ignores_credit: 0,
    does_not_go_back: 232,
    repeats_the_other_sources: 6,
    confirms_before_the_disk: 7,
    acknowledges_before_the_disk: 0,
    delivers_after_leaving: 142,
    delivers_what_was_erased: 2,
    tells_nobody_of_what_was_erased: 2,
    tells_of_dead_letters_later: 8,
    misses_a_new_channel: 19,
    begins_a_pattern_at_the_end: 9,
    brings_channels_outside_of_the_group: 49,
    sends_a_will_after_a_goodbye: 10,
    sends_a_will_though_its_bot_returned: 180,
    forgets_wills_at_a_start: 10,
    sends_what_was_erased: 333,
    remembers_wills_that_are_gone: 61,
    tells_nobody_who_vanished: 7,
    tells_the_first_of_many_changes: 7,
    tells_what_was_told: 24,
    counts_who_may_never_come: 160,
}
"""Each with the world that noticed it last: that one is played first, and the others if it does not any more."""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_broken_core_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    for seed in dict.fromkeys((FAULTS[fault], *range(WORLDS))):
        try:
            play(seed, STEPS)
        except (Violation, AssertionError, LookupError):
            return  # a promise, or an assertion of the core itself
    pytest.fail(f"{WORLDS} worlds did not notice: {fault.__doc__}")
