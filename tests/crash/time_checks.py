"""What the checker expects of times: nothing comes before it is due, or after it expired, or starts too late.

Times are compared where the order of events does not say it: all are of one machine.

Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from .gap_checks import is_retained
from .history import Final, Settle, Subscribe
from .ledger import Ledger, key_of
from .mailbox_checks import is_late
from .subscriptions import Call
from .verdict import Fault

__all__ = ["early", "late", "starts"]

_MARGIN_SECONDS = 0.02
"""By how much two clocks of one machine, and roundings, may differ."""


def early(ledger: Ledger) -> Iterator[Fault]:
    """A delayed message does not come before its time, and what is to come again after a while neither."""
    for handed in ledger.handed:
        letter = ledger.letters.get(key_of(handed.message))
        if letter is None or not letter.sent.delay:
            continue
        due = letter.call.invoke.at + letter.sent.delay
        if handed.at < due - _MARGIN_SECONDS:
            yield "early", f"message {letter.sent.id} was to wait until {due:.3f} s, and came at {handed.at} s"
    for key, naks in ledger.naks.items():
        for nak in naks:
            action, came = nak.call.invoke.action, ledger.settles(nak)
            if not isinstance(action, Settle) or not action.delay or came is None or nak.on_disk is None:
                continue
            due = nak.call.invoke.at + action.delay
            for handed in ledger.deliveries[key]:
                again = handed.index > nak.call.index and not is_late(ledger, handed, came, nak.session)
                if again and handed.at < due - _MARGIN_SECONDS and not ledger.anew(handed, nak.call.index):
                    text = f"seq {key[1]} was to come again to {key[0]} at {due:.3f} s, and came at {handed.at} s"
                    yield "early", text
                    break


def late(ledger: Ledger) -> Iterator[Fault]:
    """What expired is not delivered in a session that began after that."""
    for handed in ledger.handed:
        letter, session = ledger.letters.get(key_of(handed.message)), ledger.sessions.get(handed.session)
        if letter is None or letter.sent.ttl is None or letter.acked_at is None or session is None:
            continue
        if letter.sent.delay or is_retained(ledger, letter):
            continue  # its time begins when it is due; or it was removed, and sent again as a new one
        over = ledger.at(letter.acked_at) + letter.sent.ttl
        if session.invoke.at > over + _MARGIN_SECONDS:
            yield (
                "late",
                f"message {letter.sent.id} expired at {over:.3f} s at the latest, and came at {handed.at} s",
            )


def starts(ledger: Ledger, final: Final) -> Iterator[Fault]:
    """A subscription starts where it was asked to: not after a message that was sent when it stood already."""
    seqs = {key_of(message): message.seq for message in final.messages}
    first_after = _First(ledger, seqs)
    fresh = _fresh(ledger, seqs)
    for call in ledger.of(Subscribe):
        action, ok = call.invoke.action, call.ok
        if not isinstance(action, Subscribe) or ok is None or ok.start_seq is None:
            continue
        if not ok.created or action.group is not None:
            continue  # it started with an earlier one
        where = f"{action.bot}'s subscription to {action.channel!r}, acknowledged at {ok.at} s,"
        sent = first_after.seq(call)
        # What its own session sent afterwards is carried out afterwards, also where it did not wait.
        behind = [seq for index, seq in fresh[call.session] if index > call.index]
        sent = min([*behind, *([] if sent is None else [sent])], default=None)
        if sent is not None and sent <= ok.start_seq and action.start == "new":
            yield "subscriptions", f"{where} starts after {ok.start_seq}, and seq {sent} was sent after that"
        if action.start == "new":
            wrong = ok.start_seq < call.floor
        elif action.start == "all":
            wrong = ok.start_seq > 0
        else:
            wrong = not min(action.start - 1, call.floor) <= ok.start_seq <= action.start - 1
        if wrong:
            yield "subscriptions", f"{where} was to start at {action.start!r}, and starts after {ok.start_seq}"


def _fresh(ledger: Ledger, seqs: dict[tuple[str, str], int]) -> defaultdict[str, list[tuple[int, int]]]:
    """Return, by session, what it was the first to send: where, and the seq that it got."""
    fresh: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for letter in ledger.letters.values():
        if letter.key in seqs and not letter.sent.delay:
            fresh[letter.call.session].append((letter.first, seqs[letter.key]))
    fresh.pop("", None)
    return fresh


class _First:
    """The lowest seq among the messages that were first sent after an event."""

    def __init__(self, ledger: Ledger, seqs: dict[tuple[str, str], int]) -> None:
        self._sent = sorted(
            (letter.first, seqs[letter.key]) for letter in ledger.letters.values() if letter.key in seqs
        )
        self._lowest = [seq for _, seq in self._sent]
        for place in range(len(self._lowest) - 2, -1, -1):
            self._lowest[place] = min(self._lowest[place], self._lowest[place + 1])

    def seq(self, call: Call) -> int | None:
        low, high = 0, len(self._sent)
        while low < high:
            middle = (low + high) // 2
            if self._sent[middle][0] > call.ends:
                high = middle
            else:
                low = middle + 1
        return self._lowest[low] if low < len(self._lowest) else None
