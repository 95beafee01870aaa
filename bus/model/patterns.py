"""Patterns over names: what a rule of a role, or of a private channel, is about, and to what a bot subscribes.

A name is split at its dots. In a pattern, `*` within a part stands for any characters of that part, `**` as the
last part for one or more parts, and `$bot` as a part for the name of the bot that is asked about. There are no
other special characters, and no regular expressions, so that matching takes time in proportion to the name.

Pure.
"""

from __future__ import annotations

__all__ = [
    "BOT_PART",
    "GROUP_MARK",
    "WILDCARD",
    "ChannelPattern",
    "Pattern",
    "channel_pattern_fault",
    "pattern_fault",
]

BOT_PART = "$bot"
"""The part of a pattern that stands for the bot's own name."""

GROUP_MARK = "/"
"""Between a channel and the name of its group."""

WILDCARD = "*"
"""What no name has, and every pattern of a subscription does."""

_REST = "**"

_RESERVED = "posthouse"
"""The first part of the names of the worker's channels."""


class Pattern:
    """A valid pattern. One with a `/` is about the groups of channels, and both of its sides are patterns."""

    __slots__ = ("_sides", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._sides = tuple(tuple(side.split(".")) for side in text.split(GROUP_MARK, 1))

    def __repr__(self) -> str:
        return f"<Pattern {self.text}>"

    def matches(self, name: str, bot: str) -> bool:
        """Return True if this matches a name, for a bot of that name.

        `**` alone matches everything, groups too. Otherwise a group is matched only by a pattern with a `/`.
        """
        if self.text == _REST:
            return True
        sides = name.split(GROUP_MARK, 1)
        if len(sides) != len(self._sides):
            return False
        return all(_matches(parts, side, bot) for parts, side in zip(self._sides, sides, strict=True))

    def names(self, channel: str, bot: str) -> bool:
        """Return True if this names a channel, or that of a group, in full: without a `*`."""
        parts = self._sides[0]
        return not any("*" in part for part in parts) and _matches(parts, channel.split(GROUP_MARK, 1)[0], bot)


class ChannelPattern:
    """A valid pattern of a subscription. What begins with `posthouse.` it matches only if it says so itself."""

    __slots__ = ("_parts", "first", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts = tuple(text.split("."))
        self.first = None if WILDCARD in self._parts[0] else self._parts[0]
        """The first part of every channel that it matches; None if there are several."""

    def __repr__(self) -> str:
        return f"<ChannelPattern {self.text}>"

    def matches(self, channel: str) -> bool:
        """Return True if this matches a channel."""
        if self.first is None and channel.split(".", 1)[0] == _RESERVED:
            return False
        return _matches(self._parts, channel, "")


def channel_pattern_fault(text: str) -> str | None:
    """Return what is wrong with the pattern of a subscription, or None."""
    if WILDCARD not in text:
        return "it has no *"
    return pattern_fault(text)


def pattern_fault(text: str) -> str | None:
    """Return what is wrong with a pattern, or None."""
    sides = text.split(GROUP_MARK, 1)
    if not all(sides):
        return "it is empty" if not text else f"one side of the {GROUP_MARK} is empty"
    for side in sides:
        parts = side.split(".")
        for at, part in enumerate(parts):
            if _REST in part and (part != _REST or at < len(parts) - 1):
                return "** must be the whole last part"
            if "$" in part and part != BOT_PART:
                return f"{BOT_PART} must be a whole part, and nothing else begins with a $"
    return None


def _matches(parts: tuple[str, ...], name: str, bot: str) -> bool:
    if BOT_PART in parts:  # a bot's name may have dots, too, but no *
        parts = tuple(".".join(bot if part == BOT_PART else part for part in parts).split("."))
    given = name.split(".")
    if parts[-1] == _REST:
        parts = parts[:-1]
        if len(given) <= len(parts):
            return False
    elif len(given) != len(parts):
        return False
    return all(map(_part_matches, parts, given))


def _part_matches(part: str, given: str) -> bool:
    """Return True if a part of a name matches; each piece between two `*` is looked for once."""
    first, *others = part.split("*")
    if not others:
        return part == given
    *pieces, last = others
    if len(given) < len(first) + len(last) or not (given.startswith(first) and given.endswith(last)):
        return False
    start, end = len(first), len(given) - len(last)
    for piece in pieces:
        found = given.find(piece, start, end)
        if found < 0:
            return False
        start = found + len(piece)
    return True
