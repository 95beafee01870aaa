"""What a simulated world expects of priorities: the highest is delivered first, and each in its order."""

from __future__ import annotations

from collections.abc import Iterator

from bus.core.core import Core
from bus.mailbox.mailbox import Mailbox
from bus.model.priorities import DIRECT, NORMAL
from bus.model.repository import LogMessage, PageRequest
from bus.settings import Limits

from .fake_log import FakeLog

__all__ = ["is_of", "overtaking_faults"]


def is_of(message: LogMessage, request: PageRequest) -> bool:
    """Return True if a message is of the sources of a request, if prioritized ones are among them."""
    sources = {source for source, _, _ in request.sources}
    if message.recipient_channel is not None:
        return message.recipient_channel in sources
    return bool(sources & {DIRECT, NORMAL})


def overtaking_faults(
    mailbox: Mailbox, delivered: LogMessage, log: FakeLog, core: Core, limits: Limits
) -> Iterator[str]:
    """Name what waits with a higher priority, unless too much rests after naks for anything new."""
    if mailbox.outstanding.resting >= limits.delayed_per_mailbox_max:
        return
    for seq, stored in log.messages.items():
        if stored.recipient_bot_id != mailbox.id or stored.priority <= delivered.priority:
            continue
        if seq <= core.last_seq and mailbox.fate(seq, stored.source) == "waiting":
            yield f"{delivered.seq} was delivered before {seq}, whose priority is higher"
