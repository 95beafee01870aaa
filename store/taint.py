"""Which messages come from outside, or answer one that does: the bit is found in the transaction that stores them.

Owns the rule for replies, in every backend. The broker marks messages of external bots. A reply is tainted if a
message with the id that it answers is, whoever sent that, and also if there is none in the log, so that nobody
knows what it was. While no message is or was tainted, nothing is looked up, and an unknown message taints nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from bus.model.repository import Lot
from bus.model.tainting import in_parts, is_decided

from .statements import Statements

__all__ = ["Taint", "is_any_tainted", "note_removal"]

_IS_ANY = """
    SELECT EXISTS (SELECT 1 FROM log WHERE taint_removed = TRUE)
        OR EXISTS (SELECT 1 FROM bot_messages WHERE tainted = TRUE)
        OR EXISTS (SELECT 1 FROM scheduled_messages WHERE tainted = TRUE)"""

_NOTE_REMOVED = """
    UPDATE log SET taint_removed = TRUE
    WHERE taint_removed = FALSE AND EXISTS (SELECT 1 FROM bot_messages WHERE seq IN [?1] AND tainted = TRUE)"""

_FIND = """
    SELECT id, tainted FROM bot_messages WHERE id IN [?1] AND copied = FALSE
    UNION ALL SELECT id, tainted FROM bot_messages WHERE id IN [?1] AND copied = TRUE
    UNION ALL SELECT id, tainted FROM scheduled_messages WHERE id IN [?1]"""


async def note_removal(run: Statements, seqs: Sequence[int]) -> None:
    """Note for good, before messages are removed, if one of them is tainted."""
    await run(_NOTE_REMOVED, seqs)


async def is_any_tainted(run: Statements) -> bool:
    """Return True if a message is tainted, or one was that has been removed."""
    [[found]] = await run(_IS_ANY)
    return bool(found)


class Taint:
    """See the module. `present` is True if there may be a tainted message."""

    def __init__(self, *, present: bool) -> None:
        self.present = present

    def __repr__(self) -> str:
        return f"<Taint present={self.present}>"

    def is_decided(self, lots: Sequence[Lot]) -> bool:
        """Return True if the bits of all messages are those of their lots; note whether one is set."""
        self.present = self.present or any(lot.tainted for lot in lots)
        return not self.present or is_decided(lots)

    async def decide(self, run: Statements, lots: Sequence[Lot]) -> list[list[Lot]]:
        """Return each lot in parts, in the order of its messages, whose bits are decided."""
        if self.is_decided(lots):
            return [[lot] for lot in lots]
        parents = {reply_to for lot in lots if not lot.tainted for reply_to in lot.reply_tos or ()}
        known: dict[str, bool] = {}
        for id, bit in await run(_FIND, [*parents]):
            known[id] = known.get(id, False) or bool(bit)
        return in_parts(lots, known)
