"""Which publications are accepted, as lots.

Owns the checks of a publication: its id, type, recipient, headers and body. Neighbours that differ only in id, body
and what they reply to are one lot: what they share is checked once.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from ..mailbox.sessions import Session
from ..model.budgeting import budgeted
from ..model.budgets import RESERVED_HEADERS, Budget
from ..model.priorities import PRIORITIES
from ..model.records import later
from ..model.repository import Lot
from ..settings import Limits
from ..wire.bodies import body_faults
from ..wire.codec import encode
from ..wire.frames import Code, Publication, Refusal, ToBot, ToChannel, are_ids, is_id, is_name
from ..wire.limits import HOPS_MAX, NAME_CHARACTERS_MAX
from ..wire.refusals import NAME_RULE
from .directory import Directory
from .effects import Turn
from .permitting import Permitting, unknown_id
from .shares import Shares

__all__ = ["CheckedFrame", "Checking"]

_NO_HEADERS = b"{}"


class CheckedFrame(msgspec.Struct):
    """The lots of a frame, the indexes in it of each lot's messages, and the refused messages by index.

    For each lot, `forbidden` says why its sender may not send it, or None. A forbidden lot is only looked up:
    the log may know its messages, from when the sender was allowed to send them. `if_tainted` says why its tainted
    messages may not be sent; which those are is found when they are stored.
    """

    lots: list[Lot]
    indexes: list[Sequence[int]]
    forbidden: list[Refusal | None]
    if_tainted: list[Refusal | None]
    refused: dict[int, Refusal]


class Checking:
    """See the module."""

    def __init__(
        self, directory: Directory, permitting: Permitting, shares: Shares, turn: Turn, limits: Limits
    ) -> None:
        self._directory = directory
        self._permitting = permitting
        self._shares = shares
        self._turn = turn
        self._limits = limits

    def __repr__(self) -> str:
        return f"<Checking for {self._directory}>"

    def check(self, session: Session, publications: Sequence[Publication]) -> CheckedFrame:
        """Return the messages as they are to be stored, and those that are refused."""
        checked = CheckedFrame([], [], [], [], {})
        self._permitting.begin()
        start = 0
        while start < len(publications):
            first, end = publications[start], start + 1
            while end < len(publications) and _are_alike(first, publications[end]):
                end += 1
            self._check_alike(session, publications[start:end], start, checked)
            start = end
        return checked

    def _check_alike(
        self, session: Session, publications: Sequence[Publication], start: int, checked: CheckedFrame
    ) -> None:
        indexes: Sequence[int] = range(start, start + len(publications))
        try:
            lot = self._lot(session, publications)
        except Refusal as refusal:
            checked.refused |= dict.fromkeys(indexes, refusal)
            return
        refused = self._faults(lot)
        if refused:
            checked.refused |= {start + at: refusal for at, refusal in refused.items()}
            indexes = [index for index in indexes if index - start not in refused]
            lot = lot.select([index - start for index in indexes])
        if indexes:
            self._permit(session, publications[0].recipient, lot, indexes, checked)

    def _permit(
        self,
        session: Session,
        recipient: ToBot | ToChannel,
        lot: Lot,
        indexes: Sequence[int],
        checked: CheckedFrame,
    ) -> None:
        """Add a lot to those of the frame, in parts if only some of its messages are forbidden."""
        refusals = self._permitting.refusals(session, recipient, lot)
        if_tainted = self._permitting.refusal_if_tainted(session, lot)
        if if_tainted is not None:
            lot = msgspec.structs.replace(lot, untainted_only=True)
            if lot.tainted:  # what is not allowed at all is refused as if there were no such rule, or recipient
                refusals = [each or if_tainted for each in refusals or [None] * len(lot)]
        if refusals is None:
            checked.lots.append(lot)
            checked.indexes.append(indexes)
            checked.forbidden.append(None)
            checked.if_tainted.append(if_tainted)
            return
        for refusal in dict.fromkeys(refusals):
            those = [at for at, each in enumerate(refusals) if each is refusal]
            part = lot.select(those)
            checked.lots.append(part if refusal is None else part.only_known())
            checked.indexes.append([indexes[at] for at in those])
            checked.forbidden.append(refusal)
            checked.if_tainted.append(if_tainted)

    def _faults(self, lot: Lot) -> dict[int, Refusal]:
        """Return what is wrong with single messages, by their indexes."""
        refused: dict[int, Refusal] = {}
        bytes_max = self._limits.body_bytes_max
        for at, fault in body_faults(lot.bodies).items():
            refused[at] = Refusal(Code.INVALID_BODY, fault)
        if max(map(len, lot.bodies)) > bytes_max:
            for at, body in enumerate(lot.bodies):
                if len(body) > bytes_max:
                    text = f"the body has {len(body)} bytes; the maximum is {bytes_max}"
                    refused[at] = Refusal(Code.TOO_LARGE, text)
        if lot.reply_tos is not None and not are_ids(lot.reply_tos):
            for at, reply_to in enumerate(lot.reply_tos):
                if not is_id(reply_to):
                    refused[at] = Refusal(Code.BAD_REQUEST, "reply_to must be the id of a message")
        if not are_ids(lot.ids):
            for at, id in enumerate(lot.ids):
                if not is_id(id):
                    text = f"id {id[:64]!r} is not a lower-case UUID with hyphens"
                    refused[at] = Refusal(Code.BAD_REQUEST, text)
        return refused

    def _lot(self, sender: Session, publications: Sequence[Publication]) -> Lot:
        """Return messages as a lot. Raise Refusal if what they share is invalid."""
        publication = publications[0]
        if not 1 <= len(publication.message_type) <= NAME_CHARACTERS_MAX:
            raise Refusal(Code.BAD_REQUEST, f"message_type must have 1 to {NAME_CHARACTERS_MAX} characters")
        bot_id, channel = self._recipient(sender, publication)
        headers = _write_headers(publication.headers, self._limits) if publication.headers else _NO_HEADERS
        ttl, delay = publication.ttl, publication.delay
        if publication.retain and (channel is None or delay):
            text = "only what is published on a channel, without a delay, can be retained"
            raise Refusal(Code.BAD_REQUEST, text)
        if publication.priority != "normal" and channel is not None:
            text = "only a direct message has a priority: the messages of a channel are delivered in their order"
            raise Refusal(Code.BAD_REQUEST, text)
        lot = Lot(
            [each.id for each in publications],
            [bytes(each.body) for each in publications],
            None if publication.reply_to is None else [each.reply_to or "" for each in publications],
            sender.bot_id,
            sender.bot_name,
            bot_id,
            channel,
            publication.message_type,
            headers,
            None if ttl is None else later(self._turn.moment.wall, ttl + (delay or 0.0)),
            later(self._turn.steady(), delay) if delay else None,
            tainted=self._permitting.is_external(sender),
            retain=publication.retain,
            priority=PRIORITIES[publication.priority],
        )
        budget = self._budget(sender, publication)
        return lot if budget is None else budgeted(lot, budget)

    def _budget(self, sender: Session, publication: Publication) -> Budget | None:
        """Return the budget that a message gives its thread, or None; a role's limit counts if it is smaller."""
        hops, seconds = publication.hops, publication.deadline
        most = self._shares.of(sender.principal).hops
        if most < HOPS_MAX:
            hops = most if hops is None else min(hops, most)
        if seconds is None:
            return None if hops is None else Budget(hops)
        if publication.delay is not None and publication.delay >= seconds:
            raise Refusal(Code.BAD_REQUEST, "the delay must be shorter than the deadline of the thread")
        return Budget(hops, later(self._turn.log_time.at(*self._turn.moment), seconds))

    def _recipient(self, sender: Session, publication: Publication) -> tuple[str | None, str | None]:
        recipient = publication.recipient
        if not isinstance(recipient, ToBot):
            if recipient.name not in self._directory.channels and not is_name(recipient.name):
                raise Refusal(
                    Code.BAD_REQUEST,
                    f"{recipient.name[:64]!r} is not a valid channel name: {NAME_RULE}",
                )
            if recipient.name in self._directory.worker_channels:
                text = f"channel {recipient.name!r} is for the worker's events: publish on another one"
                raise Refusal(Code.BAD_REQUEST, text)
            return None, recipient.name
        if (recipient.bot is None) == (recipient.bot_id is None):
            raise Refusal(Code.BAD_REQUEST, "a direct recipient needs either bot or bot_id")
        if recipient.bot is not None:
            bot = self._directory.names.get(recipient.bot)
            if bot is None:
                text = f"no bot named {recipient.bot[:64]!r}"
                raise self._permitting.unknown_bot(sender, recipient, text)
            return bot.id, None
        bot = self._directory.find_bot(recipient.bot_id or "")
        if bot is None:
            raise Refusal(Code.UNKNOWN_BOT, unknown_id(str(recipient.bot_id)))
        return bot.id, None


def _are_alike(one: Publication, other: Publication) -> bool:
    """Return True if publications may be of one lot."""
    return (
        one.recipient == other.recipient
        and one.message_type == other.message_type
        and (one.reply_to is None) == (other.reply_to is None)
        and one.headers == other.headers
        and one.ttl == other.ttl
        and one.delay == other.delay
        and one.retain == other.retain
        and one.priority == other.priority
        and one.hops == other.hops
        and one.deadline == other.deadline
    )


def _write_headers(headers: Mapping[str, str], limits: Limits) -> bytes:
    if len(headers) > limits.headers_max:
        raise Refusal(Code.BAD_REQUEST, f"{len(headers)} headers; the maximum is {limits.headers_max}")
    for name, value in headers.items():
        if not 1 <= len(name) <= NAME_CHARACTERS_MAX:
            raise Refusal(Code.BAD_REQUEST, f"a header's name must have 1 to {NAME_CHARACTERS_MAX} characters")
        if len(value.encode()) > limits.header_bytes_max:
            raise Refusal(Code.BAD_REQUEST, f"header {name!r} is longer than {limits.header_bytes_max} bytes")
    if not RESERVED_HEADERS.isdisjoint(headers):  # those of a message that was copied
        headers = {name: value for name, value in headers.items() if name not in RESERVED_HEADERS}
    return encode(headers)
