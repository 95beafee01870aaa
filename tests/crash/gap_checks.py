"""What the checker expects of retention: only old messages go, and bots are told of what they lost, and of no more.

Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from .history import Final, Gap, Settle
from .ledger import Ledger, Letter, key_of
from .verdict import Fault

__all__ = ["gaps", "is_retained", "removals"]


def is_retained(ledger: Ledger, letter: Letter) -> bool:
    """Return True if a message is on a channel that keeps only its newest ones."""
    return letter.sent.channel in ledger.rules.retained


def removals(ledger: Ledger, final: Final) -> Iterator[Fault]:
    """What was removed is beyond the newest messages of its channel, and owed to nobody who was not told."""
    removed = _removed(ledger, final)
    for channel, most in ledger.rules.retained.items():
        kept = [message.seq for message in final.messages if message.channel == channel]
        gone = [seq for seq, letter in removed.items() if letter.sent.channel == channel]
        # What nobody knows of may have been stored, and have gone as well.
        unknown = sum(
            letter.sent.channel == channel and letter.seq is None and not letter.certainly_refused
            for letter in ledger.letters.values()
        )
        newer = sorted([*kept, *gone])
        for place, seq in enumerate(newer):
            if seq in removed and len(newer) - place - 1 + unknown < most:
                yield "gaps", f"seq {seq} is gone, and among the newest {most} of {channel!r}"
    for (bot, channel), timeline in ledger.timelines.items():
        if channel not in ledger.rules.retained or timeline.in_group:
            continue
        for seq, letter in removed.items():
            own = letter.sender == bot and not timeline.echoes(seq)
            # What was sent before it stood may have gone before it did: `all` is all that there is.
            if letter.sent.channel == channel and timeline.stood(letter.first, seq) and not own:
                yield from _untold(ledger, bot, seq)
    for mailbox, dead in final.dead_letters.items():
        for seq in dead:
            if seq in removed:
                yield "lost", f"seq {seq} is a dead letter of {mailbox}, and is gone from the log"


def _removed(ledger: Ledger, final: Final) -> dict[int, Letter]:
    """Return what was acknowledged with a seq, or seen, and is not there any more."""
    stored = {message.seq for message in final.messages}
    seen = {handed.message.seq: key_of(handed.message) for handed in ledger.handed}
    seen |= {letter.seq: key for key, letter in ledger.letters.items() if letter.seq is not None}
    return {
        seq: ledger.letters[key]
        for seq, key in seen.items()
        if seq not in stored and key in ledger.letters and is_retained(ledger, ledger.letters[key])
    }


def _untold(ledger: Ledger, bot: str, seq: int) -> Iterator[Fault]:
    """Say where a bot has lost a message, and was not told."""
    if any(settled.how != "term" for settled in ledger.settled[bot, seq]):
        return
    told = (gap for _, gap in ledger.gaps if gap.bot == bot)
    if not any(gap.from_seq <= seq <= gap.to_seq for gap in told):
        handed = "handed it and had not settled it" if ledger.deliveries[bot, seq] else "never handed it"
        yield "gaps", f"seq {seq} was removed, {bot} was {handed}, and was told of no gap there"


def gaps(ledger: Ledger, final: Final) -> Iterator[Fault]:
    """A gap begins and ends with something that was lost: not with what is there, was settled, or is at work."""
    stored = {message.seq for message in final.messages}
    settling: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for call in ledger.of(Settle):
        action = call.invoke.action
        assert isinstance(action, Settle)
        for seq in action.seqs:
            settling[action.session, seq].append(call.index)
    for index, gap in ledger.gaps:
        for seq in {gap.from_seq, gap.to_seq}:
            what = f"{gap.bot} was told of a gap {gap.from_seq} to {gap.to_seq} at {gap.at} s"
            if seq in stored:
                yield "gaps", f"{what}, and seq {seq} is in the log at the end"
                continue
            for one in ledger.settled[gap.bot, seq]:
                came = ledger.settles(one)
                known = one.on_disk is not None and one.on_disk < index and came is not None
                if known and came is not None and not ledger.anew(came, one.call.index):
                    yield "gaps", f"{what}, and it had settled seq {seq}"
                    break
            if _is_at_work(ledger, index, gap, seq, settling[gap.session, seq]):
                yield "gaps", f"{what}, and that session had seq {seq} in flight"


def _is_at_work(ledger: Ledger, index: int, gap: Gap, seq: int, settling: list[int]) -> bool:
    """Return True if a session was told that something is lost that it had been handed, and had not settled."""
    handed = [each.index for each in ledger.deliveries[gap.bot, seq] if each.session == gap.session]
    last = max((each for each in handed if each < index), default=None)
    return last is not None and not any(last < each < index for each in settling)
