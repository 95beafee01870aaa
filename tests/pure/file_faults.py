"""What a simulated log has on disk is sound, as `posthouse check` sees it, and mailboxes count what waits there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from bus.mailbox.mailbox import Mailbox
from bus.model.records import WORKER_ID

from .fake_log import FakeLog

__all__ = ["backlog_faults", "file_faults"]


def file_faults(log: FakeLog, key: Callable[[str], str]) -> Iterator[str]:
    """Report what is wrong on disk; `key` returns the name of a mailbox."""
    for state in log.mailboxes.values():
        if state.mailbox_id not in log.bots and tuple(state.mailbox_id.split("/")) not in log.groups:
            yield f"the mailbox {state.mailbox_id} is on disk, and nobody has it"
        furthest = max([state.position, *state.floors.values()])
        if furthest > log.last_seq:
            yield f"{key(state.mailbox_id)} is at {furthest}, beyond the end of the log"
        for item in state.unsettled:
            if item.seq not in log.messages:
                yield f"{key(state.mailbox_id)} owes {item.seq} on disk, and it is not there"
    for mailbox_id, seq in log.dead_letters:
        if seq not in log.messages:
            yield f"{seq} is a dead letter of {key(mailbox_id)}, and it is not there"


def backlog_faults(mailbox: Mailbox, log: FakeLog) -> Iterator[str]:
    """Report a mailbox that counts other messages than those that wait."""
    if mailbox.group is not None or not mailbox.backlog.known:
        return
    waiting = Counter(
        _counted(message.sender_bot_id, log)
        for message in log.messages.values()
        if message.recipient_bot_id == mailbox.id
        and message.seq not in mailbox.outstanding
        and not mailbox.sources.has_delivered(message.seq, message.source)
    )
    counted, theirs = mailbox.backlog._waiting, Counter[str]()
    for sender, count in counted._of.items():
        theirs[_counted(sender, log)] += count
    if (counted.total, theirs) != (waiting.total(), waiting):
        yield f"{mailbox} counts {counted._of} waiting messages, and there are {waiting}"


def _counted(sender_bot_id: str, log: FakeLog) -> str:
    """Return the id by which a message is counted; removed bots are counted together."""
    return sender_bot_id if sender_bot_id in {*log.bots, WORKER_ID} else ""
