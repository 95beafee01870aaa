"""The numbers of the protocol that both ends keep to, each with its reason. `docs/protocol.md` is their page.

What a worker's operator may change is in `bus.settings`, and told to clients when they are welcomed.

Pure.
"""

from __future__ import annotations

__all__ = [
    "ANSWER_ITEMS_MAX",
    "AWAITED_MAX",
    "COMMIT_ITEMS_MAX",
    "CREDIT_MAX",
    "ERROR_CHARACTERS_MAX",
    "FRAME_ROOM_BYTES",
    "HELD_MAX",
    "NAK_SECONDS_MAX",
    "NAME_CHARACTERS_MAX",
    "NUMBER_MAX",
    "PUBLISH_MESSAGES_MAX",
    "PUBLISH_ROOM_BYTES",
    "REASON_CHARACTERS_MAX",
    "SETTLED_MAX",
    "SOCKET_PATH_BYTES_MAX",
    "TOKEN_CHARACTERS_MIN",
    "WAIT_SECONDS_MAX",
]

NUMBER_MAX = 2**53 - 1
"""The largest seq, fence and request: JavaScript reads no larger integer from JSON exactly."""

NAME_CHARACTERS_MAX = 128
"""Of the names of bots, channels, groups, types and headers, and of the ids of runs and clients: they are the keys
of indexes, and stand in every line of a log.
"""

TOKEN_CHARACTERS_MIN = 16
"""A client's token is a secret: with fewer characters it could be guessed."""

REASON_CHARACTERS_MAX = 1024
"""Of a term's reason: it is kept with the dead letter, and read by people."""

ERROR_CHARACTERS_MAX = 65_536
"""Of a run's error in a commit: a long traceback."""

CREDIT_MAX = 1000
"""Messages in flight for one session: a client holds them all in memory, and so does the worker."""

HELD_MAX = 2000
"""The most messages that a returning client holds: replies lie outside its credit."""

AWAITED_MAX = 1000
"""The most replies that a returning client awaits."""

SETTLED_MAX = 10_000
"""Seqs in one frame that settles, or of the acks in a commit: ten times the largest credit."""

PUBLISH_MESSAGES_MAX = 1000
"""Messages that a client puts into one frame; a worker takes as many unless it is set up otherwise."""

COMMIT_ITEMS_MAX = 1000
"""Messages in a commit, and step logs: all of it is one part of one transaction."""

ANSWER_ITEMS_MAX = 1000
"""Messages or dead letters in one answer, and dead letters in one retry: what is asked for must not fill memory."""

WAIT_SECONDS_MAX = 86_400 * 3660
"""The longest `ttl` or `delay` of a message: ten years, so that no date leaves the calendar."""

NAK_SECONDS_MAX = 86_400 * 366
"""The longest delay of a nak: a year. The message stays owed meanwhile."""

SOCKET_PATH_BYTES_MAX = 107
"""What fits into a Unix socket's address on Linux, without the byte that ends it."""

FRAME_ROOM_BYTES = 256
"""Room for what surrounds the records of an answer, or the arguments of a call, in their frame."""

PUBLISH_ROOM_BYTES = 128
"""Room for what surrounds the messages of a publish frame."""
