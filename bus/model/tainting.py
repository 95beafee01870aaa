"""Which messages of lots are tainted, from what is known of those that they answer.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import msgspec

from .lots import Lot

__all__ = ["in_parts", "is_decided"]


def is_decided(lots: Sequence[Lot]) -> bool:
    """Return True if the bits of all messages are those of their lots, whatever they answer."""
    return all(lot.tainted or lot.reply_tos is None for lot in lots)


def in_parts(lots: Sequence[Lot], known: Mapping[str, bool]) -> list[list[Lot]]:
    """Return each lot in parts, in the order of its messages, whose bits are decided.

    `known` has the bits of messages that are answered. A reply to one that is not known is tainted.
    """
    answered = dict(known)
    bits: list[bool] = []
    for lot in lots:
        for id, reply_to in zip(lot.ids, lot.replies(), strict=True):
            bits.append(lot.tainted or (reply_to is not None and answered.get(reply_to, True)))
            answered[id] = answered.get(id, False) or bits[-1]
    remaining = iter(bits)
    return [_parts(lot, list(islice(remaining, len(lot)))) for lot in lots]


def _parts(lot: Lot, bits: Sequence[bool]) -> list[Lot]:
    """Return neighbours with the same bit as one lot each."""
    starts = [at for at in range(len(bits)) if at == 0 or bits[at] != bits[at - 1]]
    return [_marked(lot.part(start, end), bits[start]) for start, end in _ranges(starts, len(bits))]


def _ranges(starts: Sequence[int], end: int) -> Iterable[tuple[int, int]]:
    return zip(starts, [*starts[1:], end], strict=True)


def _marked(lot: Lot, tainted: bool) -> Lot:
    """Return a lot with its bit; if it must not have it, it is only looked up."""
    if not tainted or lot.tainted:
        return lot
    return msgspec.structs.replace(lot, tainted=True, known_only=lot.known_only or lot.untainted_only)
