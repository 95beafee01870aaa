"""What a simulated log has on disk is sound, as `posthouse check` sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .fake_log import FakeLog

__all__ = ["file_faults"]


def file_faults(log: FakeLog, key: Callable[[str], str]) -> Iterator[str]:
    """Say what is wrong; `key` gives the name of a mailbox."""
    for state in log.mailboxes.values():
        furthest = max([state.position, *state.floors.values()])
        if furthest > log.last_seq:
            yield f"{key(state.mailbox_id)} is at {furthest}, beyond the end of the log"
        for item in state.unsettled:
            if item.seq not in log.messages:
                yield f"{key(state.mailbox_id)} owes {item.seq} on disk, and it is not there"
    for mailbox_id, seq in log.dead_letters:
        if seq not in log.messages:
            yield f"{seq} is a dead letter of {key(mailbox_id)}, and it is not there"
