"""The protocol's limits for both ends, each with its reason, documented in `docs/protocol.md`.

What a worker's operator may change is in `bus.settings`, and sent to clients in `welcome`.

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
    "HOPS_MAX",
    "NAK_SECONDS_MAX",
    "NAME_CHARACTERS_MAX",
    "NUMBER_MAX",
    "PARKED_MAX",
    "PART_ROOM_BYTES",
    "PUBLISH_MESSAGES_MAX",
    "PUBLISH_ROOM_BYTES",
    "REASON_CHARACTERS_MAX",
    "ROLES_MAX",
    "SETTLED_MAX",
    "SOCKET_PATH_BYTES_MAX",
    "TOKEN_CHARACTERS_MIN",
    "WAIT_SECONDS_MAX",
]

NUMBER_MAX = 2**53 - 1
"""The largest seq, fence and request: JavaScript reads no larger integer from JSON exactly."""

NAME_CHARACTERS_MAX = 128
"""For names of bots, channels, groups, types and headers, and ids of runs and clients: they are keys of indexes,
and appear in every line of a log.
"""

TOKEN_CHARACTERS_MIN = 16
"""A client's token is a secret: with fewer characters it could be guessed."""

REASON_CHARACTERS_MAX = 1024
"""For a term's reason: it is kept with the dead letter, and read by people."""

ERROR_CHARACTERS_MAX = 65_536
"""For a run's error in a commit: a long traceback."""

ROLES_MAX = 16
"""Roles of one key: each is looked at when a right is decided."""

CREDIT_MAX = 1000
"""Messages in flight for one session: the client and the worker both hold them all in memory."""

HELD_MAX = 2000
"""Maximum number of messages that a returning client holds: replies are outside its credit."""

PARKED_MAX = 20_000
"""Messages that one session may park: each costs half a kilobyte, and a returning client names all of them."""

AWAITED_MAX = 1000
"""Maximum number of replies that a returning client awaits."""

HOPS_MAX = 1_000_000
"""The most hops of a thread: as good as without end."""

SETTLED_MAX = 10_000
"""Seqs in one frame that settles, or acks in a commit: ten times the largest credit."""

PUBLISH_MESSAGES_MAX = 1000
"""Messages that a client puts into one frame; a worker accepts as many unless configured otherwise."""

COMMIT_ITEMS_MAX = 1000
"""Messages in a commit, and step logs: all of them are part of one transaction."""

ANSWER_ITEMS_MAX = 1000
"""Messages or dead letters in one answer, and dead letters in one retry: an answer must not fill memory."""

WAIT_SECONDS_MAX = 86_400 * 3660
"""The longest `ttl` or `delay` of a message: ten years, so that no date leaves the calendar."""

NAK_SECONDS_MAX = 86_400 * 366
"""The longest delay of a nak: a year. The message stays unsettled meanwhile."""

SOCKET_PATH_BYTES_MAX = 107
"""What fits into a Unix socket's address on Linux, without the terminating byte."""

FRAME_ROOM_BYTES = 256
"""Room in a frame around the records of an answer, or the arguments of a call."""

PART_ROOM_BYTES = 256
"""Room in a frame around the data of a part."""

PUBLISH_ROOM_BYTES = 128
"""Room in a publish frame around its messages."""
