"""What the checker expects of dead letters: what was given up is kept, and failures are counted right.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .history import Final
from .ledger import Handed, Ledger, Settled, key_of
from .mailbox_checks import is_late
from .verdict import Fault

__all__ = ["dead_letters", "failures"]

_FAILED = re.compile(r"; failed (\d+) times$")


def dead_letters(ledger: Ledger, final: Final) -> Iterator[Fault]:
    """What a bot gave up for good is a dead letter until it is retried, and what it settled is none."""
    for (mailbox, seq), settled in ledger.settled.items():
        if mailbox not in final.dead_letters:
            continue
        reason = final.dead_letters[mailbox].get(seq)
        for one in settled:
            came = ledger.settles(one)
            if one.on_disk is None or came is None or ledger.anew(came, one.call.index, until=ledger.length):
                continue
            when = f"seq {seq} was settled in {mailbox} by {one.how} at {one.ends_at} s"
            if one.how == "term" and reason is None:
                yield "lost", f"{when}, and is no dead letter at the end"
            elif one.how != "term" and reason is not None and not _came_beside(ledger, came):
                yield "dead_letters", f"{when}, and is a dead letter at the end: {reason}"


def _came_beside(ledger: Ledger, came: Handed) -> bool:
    """Return True if a dead letter may have come again and stayed one: somebody subscribed from the past on."""
    first = ledger.deliveries[came.mailbox, came.message.seq][0]
    channel = came.message.channel
    return (
        channel is not None
        and came.message.group is None
        and ledger.timeline(came.bot, channel).wanted_again(first.index, came.message.seq)
    )


def failures(ledger: Ledger, final: Final) -> Iterator[Fault]:
    """A message is given up after so many failures: not later, over restarts too, and not earlier."""
    for key in ledger.naks:
        yield from _forgotten(ledger, *key)
    sent = {message.seq: ledger.letters.get(key_of(message)) for message in final.messages}
    for mailbox, reasons in final.dead_letters.items():
        for seq, reason in reasons.items():
            what = f"seq {seq} is a dead letter of {mailbox}: {reason}"
            letter, counted = sent.get(seq), _FAILED.search(reason)
            terms = [one for one in ledger.settled[mailbox, seq] if one.how == "term"]
            if letter is None:
                continue  # no client's message, or one that `never_sent` tells of
            if counted is not None:
                possible = len(ledger.naks[mailbox, seq]) + _vanished(ledger, mailbox, letter.first)
                if possible < int(counted.group(1)):
                    yield "dead_letters", f"{what}, and it can have failed {possible} times"
                elif int(counted.group(1)) < ledger.rules.max_deliver:
                    yield "dead_letters", f"{what}, and it was to fail {ledger.rules.max_deliver} times"
            elif reason == "expired":
                if letter.sent.ttl is None:
                    yield "dead_letters", f"{what}, and it was to wait for ever"
            elif not terms:
                yield "dead_letters", f"{what}, and nobody had said so"


def _forgotten(ledger: Ledger, mailbox: str, seq: int) -> Iterator[Fault]:
    """Say where a message came again after so many failures that are on disk."""
    counted: list[tuple[Settled, Handed]] = []
    for nak in ledger.naks[mailbox, seq]:
        came = ledger.settles(nak)
        if came is not None and nak.on_disk is not None:
            counted.append((nak, came))
    for handed in ledger.deliveries[mailbox, seq]:
        failed = {
            came.index
            for nak, came in counted
            if nak.on_disk is not None
            and nak.on_disk < handed.index
            and not is_late(ledger, handed, came, nak.session)
            and not ledger.anew(handed, nak.call.index)
        }
        if len(failed) >= ledger.rules.max_deliver:
            yield (
                "dead_letters",
                f"{handed.bot} was handed seq {seq} of {mailbox} at {handed.at} s, after {len(failed)} failures",
            )
            return


def _vanished(ledger: Ledger, mailbox: str, after: int) -> int:
    """Count the clients that ended without a word, and may have had a message of a mailbox since an event."""
    channel = mailbox.partition("/")[0]
    return sum(
        index > after and (bot == mailbox or ledger.timeline(bot, channel).in_group)
        for index, bot in ledger.vanished
    )
