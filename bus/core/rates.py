"""How fast bots may publish: one bucket per sender, and one per directed pair of bots.

Owns the buckets, and who recently found one empty. Its rules:

- A bucket's capacity is `rate_burst_seconds` of its rate, and at least one message. It fills at its rate, by a
  monotonic clock.
- A message takes from both of its buckets, or from neither. A channel message has no pair.
- A full bucket equals a new one, so it is forgotten. Only senders of about the last `rate_burst_seconds`, and a
  bounded list of those that were refused, are kept in memory.

Pure: time is an argument.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import msgspec

from ..settings import Limits

__all__ = ["Limited", "Rates", "TooFast"]

_LATELY_SECONDS = 600.0
"""How long a refused sender or pair is listed: long enough for a person to look."""

_LISTED_MAX = 100
"""How many are listed; those that were refused longest ago make room."""

_SLACK_SECONDS = 1e-6
"""Tolerance for rounding errors of a burst's fractions, even after a long uptime."""

_Pair = tuple[str, str | None]
"""A sender's id, and the recipient's if the bucket is a pair's."""


class TooFast(msgspec.Struct, frozen=True):
    """A message exceeds a rate: by which setting, its rate and burst, and when to try again."""

    setting: str
    per_second: float
    burst: int
    wait_seconds: float


class Limited(msgspec.Struct):
    """A sender, or a pair if there is a recipient, that was refused recently, and how often."""

    sender_bot_id: str
    recipient_bot_id: str | None
    times: int
    last_now: float
    last_at: str


class _Buckets:
    """The buckets of one rate. Each is stored as the time at which it is full again."""

    def __init__(self, setting: str, per_second: float, burst_seconds: float) -> None:
        self.setting = setting
        self.per_second = per_second
        self._message_seconds = 1 / per_second
        self._burst_seconds = max(burst_seconds, self._message_seconds)
        self._full_at: OrderedDict[_Pair, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def refusal(self, key: _Pair, now: float) -> TooFast | None:
        """Return why a message may not be sent now, or None if it may."""
        wait = self._full_at.get(key, now) + self._message_seconds - self._burst_seconds - now
        if wait <= _SLACK_SECONDS:
            return None
        burst = math.floor(self._burst_seconds * self.per_second + _SLACK_SECONDS)
        return TooFast(self.setting, self.per_second, burst, math.ceil((wait - _SLACK_SECONDS) * 1000) / 1000)

    def take(self, key: _Pair, now: float) -> None:
        """Count one message against a bucket, and forget the buckets that are full again."""
        self._full_at[key] = max(self._full_at.get(key, now), now) + self._message_seconds
        self._full_at.move_to_end(key)
        while next(iter(self._full_at.values())) <= now:
            self._full_at.popitem(last=False)


class Rates:
    """See the module."""

    def __init__(self, limits: Limits) -> None:
        self._senders = _buckets("sender_messages_per_second_max", limits)
        self._pairs = _buckets("pair_messages_per_second_max", limits)
        self.unlimited = self._senders is None and self._pairs is None
        """Whether there are no rates: `take` accepts everything."""
        self._limited: OrderedDict[_Pair, Limited] = OrderedDict()

    def __repr__(self) -> str:
        senders, pairs = self._senders or (), self._pairs or ()
        return f"<Rates senders={len(senders)} pairs={len(pairs)} limited={len(self._limited)}>"

    def take(self, sender_bot_id: str, recipient_bot_id: str | None, now: float, wall: str) -> TooFast | None:
        """Count a message against its buckets; or count nothing, list the sender, and return why it is refused."""
        asked: list[tuple[_Buckets, _Pair]] = []
        if self._senders is not None:
            asked.append((self._senders, (sender_bot_id, None)))
        if self._pairs is not None and recipient_bot_id is not None:
            asked.append((self._pairs, (sender_bot_id, recipient_bot_id)))
        for buckets, key in asked:
            refusal = buckets.refusal(key, now)
            if refusal is not None:
                self._note(key, now, wall)
                return refusal
        for buckets, key in asked:
            buckets.take(key, now)
        return None

    def limited(self, now: float) -> list[Limited]:
        """List those that were refused recently, the last one first."""
        while self._limited and next(iter(self._limited.values())).last_now < now - _LATELY_SECONDS:
            self._limited.popitem(last=False)
        return list(reversed(self._limited.values()))

    def _note(self, key: _Pair, now: float, wall: str) -> None:
        known = self._limited.pop(key, None)
        times = 0 if known is None or known.last_now < now - _LATELY_SECONDS else known.times
        self._limited[key] = Limited(*key, times + 1, now, wall)
        if len(self._limited) > _LISTED_MAX:
            self._limited.popitem(last=False)


def _buckets(setting: str, limits: Limits) -> _Buckets | None:
    per_second: float = getattr(limits, setting)
    return _Buckets(setting, per_second, limits.rate_burst_seconds) if per_second > 0 else None
