"""Pages: what a mailbox reads from the log.

Pure.
"""

from __future__ import annotations

import msgspec

from .lots import StoredLot

__all__ = ["Page", "PageRequest"]


class PageRequest(msgspec.Struct, frozen=True):
    """Which messages a mailbox wants: some by seq, and those that follow in its sources.

    A source is a channel (or "" for direct messages, or those of one priority: `priorities`), the seq after which
    to read, and whether to leave out the messages of the mailbox's own bot. The page has messages up to
    `through_seq`, in seq order, at most `messages_max` of them, and ends early when their bodies exceed
    `bytes_max`.
    """

    mailbox_id: str
    seqs: tuple[int, ...]
    sources: tuple[tuple[str, int, bool], ...]
    through_seq: int
    messages_max: int
    bytes_max: int


class Page(msgspec.Struct, frozen=True):
    """The messages that were found.

    `recalled` has the messages requested by seq, `messages` those that follow in the sources. If `complete`,
    nothing more lies between them and `through_seq`. `damaged` has the seqs left out because they did not match
    their checksums, and `erased` those left out because they were erased.
    """

    recalled: list[StoredLot]
    messages: list[StoredLot]
    complete: bool
    damaged: tuple[int, ...] = ()
    erased: tuple[int, ...] = ()
