"""Finding, erasing and removing what is stored: what an operator's bot asks for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypeVar

import msgspec

from ..model.compacting import Compacted
from ..model.erasing import Delayed, Erased, FoundContents, FoundValue, Removal
from ..model.removing import Removed
from ..wire.answers import RemovalList, Scrubbed
from ..wire.limits import ANSWER_ITEMS_MAX
from ..wire.removing_frames import (
    AtPath,
    BotOf,
    ChannelOf,
    Compact,
    DeadLettersOf,
    DelayedMessage,
    DelayedOf,
    EraseFrame,
    GroupOf,
    MailboxOf,
    Removable,
    Removals,
    RemoveFrame,
    Scrub,
    Search,
    SubscriptionOf,
    ValueToErase,
)
from .caller import Caller
from .ids import chosen_id

__all__ = ["Removing"]

Q = TypeVar("Q", bound=msgspec.Struct)
F = TypeVar("F", EraseFrame, RemoveFrame)


class Removing:
    """The requests of an operator's bot. With keys, those about erasing need the right `admin` on `erase`.

    A record of each removal is kept for good, with who asked, and a `reference` of yours (a line of text that
    should name nobody). Repeating an `id` changes nothing more, and is answered as it was the first time. With
    `dry_run`, nothing is changed, and the answer says what would be removed. What takes several requests is one
    removal to people if each has the same `part_of`, a UUID of yours; older workers are not told.
    """

    name: str
    _caller: Caller

    async def search(
        self,
        *,
        id: str | None = None,
        sender: str | None = None,
        text: str | None = None,
        header: tuple[str, str] | None = None,
        body: tuple[Sequence[str], str] | None = None,
        after: str = "",
    ) -> FoundContents:
        """Return the messages, runs and keyed values that contain something: a portion of them, from `after` on.

        Give one of: the `id` of a message or run (with `sender`, a name or id, of that bot's message); a `text`,
        which is searched in bodies and headers of messages, in reasons of dead letters, in all of a run, and in
        keyed values and their keys; a `header`, a name and its value; a value in the `body` of a message, or in a
        keyed value, after the names that lead to it. ASCII letters of both cases are equal. Erased messages are not
        found, but by such a reason, and keyed values that are bytes only by their keys. A message that has left the
        log is found by the reason of its dead letter, with an empty id.

        Continue with the portion's `after` until that is None.
        """
        at = None if body is None else AtPath(list(body[0]), body[1])
        asked = Search(request=0, id=id, sender=sender, text=text, header=header, body=at, after=after)
        return await self._caller.request("the search", partial(_numbered, asked), FoundContents)

    async def erase(
        self,
        *,
        seqs: Sequence[int] = (),
        delayed: Sequence[Delayed] = (),
        runs: Sequence[str] = (),
        values: Sequence[FoundValue] = (),
        id: str | None = None,
        reference: str | None = None,
        part_of: str | None = None,
    ) -> Erased:
        """Erase messages, remove delayed ones, runs that have ended and keyed values; return what was done.

        At most 1,000 of each. An erased message keeps its place: its seq, id, sender, recipient, type and time. Its
        body is None, and it has no headers. Mailboxes that still wait for it pass over it, and their bots are told
        of the gap. A delayed message is gone, and so is its id. Runs that have not ended are left, and named. A
        keyed value is deleted if it still has that revision; the last value of a channel goes with its message.

        A record of it is kept for good, with who asked, and a `reference` of yours (a line of text that should name
        nobody). Repeating an `id` changes nothing more.
        """
        asked = EraseFrame(
            request=0,
            id=chosen_id(id),
            seqs=list(seqs),
            delayed=[DelayedMessage(each.id, each.sender_bot_id) for each in delayed],
            runs=list(runs),
            values=[ValueToErase(each.store, each.key, each.revision) for each in values],
            reference=reference,
            part_of=part_of,
        )
        return await self._caller.request("the erasure", partial(self._made, asked), Erased)

    async def scrub(self) -> None:
        """Leave nothing of what was removed in the files of the database.

        The database is written anew, which may take a minute for each gigabyte; publishers wait meanwhile. This
        waits for the end, however long it takes. It may be repeated.
        """
        await self._caller.patient().request("the scrub", lambda number: Scrub(request=number), Scrubbed)

    async def compact(self, *, dry_run: bool = False) -> Compacted:
        """Return a portion of the room that the database does not use to the system; repeat it while there is more.

        Others go on to write in between. With `dry_run`, only say how much room it is. With keys, it needs the
        right `admin` on `erase`.

        Raise Conflict if the database is PostgreSQL's, which does this by itself, or was made by an earlier version
        and not written anew since (`scrub`). Raise LimitReached if another program reads the file, which cannot
        become smaller before that is done: repeat this then.
        """
        asked = Compact(request=0, dry_run=dry_run)
        return await self._caller.request("the compaction", partial(_numbered, asked), Compacted)

    async def discard_dead_letters(
        self,
        seqs: Sequence[int],
        *,
        bot: str | None = None,
        id: str | None = None,
        reference: str | None = None,
        dry_run: bool = False,
        part_of: str | None = None,
    ) -> Removed:
        """Remove dead letters for good, at most 1,000: of this bot, another, or a group (`channel/group`).

        Their messages stay in the log. `seqs` of the answer are those that were dead letters. With keys, it needs
        the right to `retry` them.
        """
        what = DeadLettersOf(bot or self.name, list(seqs))
        return await self._remove(what, id=id, reference=reference, dry_run=dry_run, part_of=part_of)

    async def cancel_delayed(
        self,
        ids: Sequence[str],
        *,
        bot: str | None = None,
        id: str | None = None,
        reference: str | None = None,
        dry_run: bool = False,
        part_of: str | None = None,
    ) -> Removed:
        """Cancel messages that are not due yet, at most 1,000: of this bot, or of another, by name or id.

        `ids` of the answer are those that waited. They can be used again, so cancel nothing that a publish may
        still be repeating. With keys, cancelling those of another bot needs the right `admin` on `remove`.
        """
        what = DelayedOf(list(ids), bot)
        return await self._remove(what, id=id, reference=reference, dry_run=dry_run, part_of=part_of)

    async def purge(
        self, mailbox: str, *, id: str | None = None, reference: str | None = None, dry_run: bool = False
    ) -> Removed:
        """Pass over what waits in a mailbox: that of a bot, by name or id, or of a group (`channel/group`).

        What is in flight stays so, and comes again if it is not settled. Dead letters, delayed messages that are
        not due, and messages that arrive later are not affected. The messages stay in the log, and the sessions of
        the mailbox are told of a gap. With keys, it needs the right `admin` on `remove`, but for the bot's own
        mailbox.
        """
        return await self._remove(MailboxOf(mailbox), id=id, reference=reference, dry_run=dry_run)

    async def remove_subscription(
        self,
        bot: str,
        channel: str,
        *,
        id: str | None = None,
        reference: str | None = None,
        dry_run: bool = False,
    ) -> Removed:
        """End the subscription of a bot, by name or id, as if it had unsubscribed.

        What waits in the bot's own mailbox is dropped; the mailbox of a group keeps what it has. A program that
        runs may subscribe again. With keys, it needs the right `admin` on `remove`, but for the bot itself.
        """
        return await self._remove(SubscriptionOf(bot, channel), id=id, reference=reference, dry_run=dry_run)

    async def remove_group(
        self,
        channel: str,
        group: str,
        *,
        force: bool = False,
        id: str | None = None,
        reference: str | None = None,
        dry_run: bool = False,
    ) -> Removed:
        """Remove a group with its mailbox. A group of the same name that is opened later is a new one.

        Raise Conflict if it has members, messages that wait or are in flight, or dead letters, unless `force` says
        that these are removed as well. `in_the_way` of a dry run has their numbers. With keys, it needs the right
        `admin` on `remove`.
        """
        what = GroupOf(channel, group)
        return await self._remove(what, id=id, reference=reference, dry_run=dry_run, force=force)

    async def remove_channel(
        self,
        channel: str,
        *,
        force: bool = False,
        id: str | None = None,
        reference: str | None = None,
        dry_run: bool = False,
    ) -> Removed:
        """Remove a channel. Its messages stay in the log, and a channel of the same name that comes later has them.

        Raise Conflict if delayed messages are for it: cancel them first. Raise it also if it has subscriptions,
        groups, or messages that wait or dead letters in them, unless `force` says that these are removed as well.
        Whoever publishes on it creates it again. With keys, it needs the right `admin` on `remove`.
        """
        what = ChannelOf(channel)
        return await self._remove(what, id=id, reference=reference, dry_run=dry_run, force=force)

    async def remove_bot(
        self,
        bot: str,
        *,
        force: bool = False,
        id: str | None = None,
        reference: str | None = None,
        dry_run: bool = False,
    ) -> Removed:
        """Remove a bot, by name or id. A bot that connects under its name later is a new one.

        Raise Conflict if it is connected, holds runs that have not ended, owns definitions of workflows, or if
        delayed messages are from it or for it: end these first. Raise it also if it has subscriptions, messages
        that wait, dead letters, keys or a last will, unless `force` says that these are removed as well; the will
        is not sent. `in_the_way` of a dry run has the numbers of all this. What it sent stays in the log. With
        keys, it needs the right `admin` on `remove`.
        """
        return await self._remove(BotOf(bot), id=id, reference=reference, dry_run=dry_run, force=force)

    async def _remove(
        self,
        what: Removable,
        *,
        id: str | None,
        reference: str | None,
        dry_run: bool,
        force: bool = False,
        part_of: str | None = None,
    ) -> Removed:
        asked = RemoveFrame(
            request=0,
            id=chosen_id(id),
            what=what,
            reference=reference,
            dry_run=dry_run,
            force=force,
            part_of=part_of,
        )
        return await self._caller.request("the removal", partial(self._made, asked), Removed)

    def _made(self, asked: F, number: int) -> F:
        """Return a frame with its number, as the worker knows it."""
        welcome = self._caller.connection.welcome
        known = welcome is not None and welcome.joins_removals
        return msgspec.structs.replace(asked, request=number, part_of=asked.part_of if known else None)

    async def removals(self, *, after: int = 0, limit: int = 50) -> list[Removal]:
        """Return the records of erasures and removals, oldest first: who removed what, and when.

        At most `limit`; continue with `after` and the number of the last one.
        """
        found: list[Removal] = []
        more = True
        while more and len(found) < limit:
            asked = Removals(request=0, after=after, limit=min(limit - len(found), ANSWER_ITEMS_MAX))
            page = await self._caller.request("the removals", partial(_numbered, asked), RemovalList)
            found += page.removals
            more = page.more and bool(page.removals)
            after = found[-1].number if found else after
        return found


def _numbered(query: Q, number: int) -> Q:
    return msgspec.structs.replace(query, request=number)
