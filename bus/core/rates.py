"""How fast bots may publish: buckets per sender, one for each rate, and one per directed pair of bots.

Owns the buckets, and who recently found one empty. Its rules:

- A bucket's capacity is `rate_burst_seconds` of its rate, and at least one message. It fills at its rate, by a
  monotonic clock.
- A message takes from all of its buckets, or from none. A channel message has no pair.
- The rates of a role come beside those of everybody. Their buckets are the bot's, whichever key it uses.
- A full bucket equals a new one, so it is forgotten. Only senders of about the last `rate_burst_seconds`, and a
  bounded list of those that were refused, are kept in memory.

Pure: time is an argument.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from ..settings import Limits
from .shares import Share

__all__ = ["Limited", "Rates", "TooFast"]

_LATELY_SECONDS = 600.0
"""How long a refused sender or pair is listed: long enough for a person to look."""

_LISTED_MAX = 100
"""How many are listed; those that were refused longest ago make room."""

_SLACK_SECONDS = 1e-6
"""Tolerance for rounding errors of a burst's fractions, even after a long uptime."""

_Key = tuple[str, str | None]
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


class _Rate(NamedTuple):
    """So much a second, by a setting, and what may come at once after a silence, in seconds of it."""

    setting: str
    per_second: float
    burst_seconds: float

    def burst_of(self, amount: float) -> float:
        """Return the capacity of a bucket in seconds; what is larger than a burst may come alone."""
        return max(self.burst_seconds, amount / self.per_second)


class _Asked(NamedTuple):
    """What a message takes from a bucket."""

    buckets: _Buckets
    rate: _Rate
    key: _Key
    amount: float

    def refusal(self, now: float) -> TooFast | None:
        """Return why it may not be sent now, or None if it may."""
        rate, burst_seconds = self.rate, self.rate.burst_of(self.amount)
        wait = self.buckets.full_at(self.key, now) + self.amount / rate.per_second - burst_seconds - now
        if wait <= _SLACK_SECONDS:
            return None
        burst = math.floor(burst_seconds * rate.per_second + _SLACK_SECONDS)
        return TooFast(rate.setting, rate.per_second, burst, math.ceil((wait - _SLACK_SECONDS) * 1000) / 1000)

    def take(self, now: float) -> None:
        """Count it."""
        self.buckets.take(self.key, now, self.amount / self.rate.per_second)


class _Buckets:
    """The buckets of one kind of rate. Each is stored as the time at which it is full again."""

    def __init__(self) -> None:
        self._full_at: OrderedDict[_Key, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def full_at(self, key: _Key, now: float) -> float:
        """Return when a bucket is full again."""
        return self._full_at.get(key, now)

    def take(self, key: _Key, now: float, seconds: float) -> None:
        """Remove so many seconds of its rate from a bucket, and forget the buckets that are full again."""
        self._full_at[key] = max(self._full_at.get(key, now), now) + seconds
        self._full_at.move_to_end(key)
        while next(iter(self._full_at.values())) <= now:
            self._full_at.popitem(last=False)


class Rates:
    """See the module."""

    def __init__(self, limits: Limits) -> None:
        self._burst_seconds = limits.rate_burst_seconds
        self._sender = self._rate("sender_messages_per_second_max", limits.sender_messages_per_second_max)
        self._pair = self._rate("pair_messages_per_second_max", limits.pair_messages_per_second_max)
        self._senders, self._pairs = _Buckets(), _Buckets()
        self._of_role = {"messages_per_second": _Buckets(), "bytes_per_second": _Buckets()}
        self._limited: OrderedDict[_Key, Limited] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Rates senders={len(self._senders)} pairs={len(self._pairs)} limited={len(self._limited)}>"

    def _rate(self, setting: str, per_second: float) -> _Rate | None:
        return _Rate(setting, per_second, self._burst_seconds) if per_second > 0 else None

    def are_off(self, share: Share) -> bool:
        """Return True if there are no rates for a bot: `take` accepts everything."""
        return self._sender is None and self._pair is None and not share.has_rates

    def take(
        self,
        sender_bot_id: str,
        recipient_bot_id: str | None,
        now: float,
        wall: str,
        *,
        share: Share | None = None,
        size_bytes: int = 0,
    ) -> TooFast | None:
        """Count a message against its buckets; or count nothing, list the sender, and return why it is refused."""
        asked = list(self._asked(sender_bot_id, recipient_bot_id, share, size_bytes))
        for each in asked:
            refusal = each.refusal(now)
            if refusal is not None:
                self._note(each.key, now, wall)
                return refusal
        for each in asked:
            each.take(now)
        return None

    def _asked(
        self, sender_bot_id: str, recipient_bot_id: str | None, share: Share | None, size_bytes: int
    ) -> Iterator[_Asked]:
        sender = (sender_bot_id, None)
        if self._sender is not None:
            yield _Asked(self._senders, self._sender, sender, 1)
        if self._pair is not None and recipient_bot_id is not None:
            yield _Asked(self._pairs, self._pair, (sender_bot_id, recipient_bot_id), 1)
        if share is not None and share.has_rates:
            for setting, amount in (("messages_per_second", 1), ("bytes_per_second", max(size_bytes, 1))):
                rate = self._rate(setting, getattr(share, setting))
                if rate is not None:
                    yield _Asked(self._of_role[setting], rate, sender, amount)

    def limited(self, now: float) -> list[Limited]:
        """List those that were refused recently, the last one first."""
        while self._limited and next(iter(self._limited.values())).last_now < now - _LATELY_SECONDS:
            self._limited.popitem(last=False)
        return list(reversed(self._limited.values()))

    def _note(self, key: _Key, now: float, wall: str) -> None:
        known = self._limited.pop(key, None)
        times = 0 if known is None or known.last_now < now - _LATELY_SECONDS else known.times
        self._limited[key] = Limited(*key, times + 1, now, wall)
        if len(self._limited) > _LISTED_MAX:
            self._limited.popitem(last=False)
