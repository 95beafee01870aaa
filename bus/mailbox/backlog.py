"""How many direct messages wait in a mailbox, of each sender, which decides whether it is full.

Owns the counts. After a restart they are unknown, and counting reads every message that waits. So the store is
asked once, and only for a mailbox far enough behind the end of the log to be full, for all or for one sender.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["Backlog"]


class Backlog:
    """See the module. Changes after the question are noted, so that the answer may arrive late."""

    def __init__(self) -> None:
        self.known = False
        """Whether the counts are known."""
        self.counting = False
        """Whether the store is counting."""
        self._expected = _Counts()
        self._waiting = _Counts()
        self._asked = 0

    def __repr__(self) -> str:
        return f"<Backlog {self._waiting.total if self.known else 'unknown'} expected={self._expected.total}>"

    @property
    def waiting(self) -> int:
        """How many messages wait, as far as that is known."""
        return self._waiting.total

    def expect(self, sender: str, count: int) -> None:
        """Reserve room for messages that are on their way to the disk."""
        self._expected.add(sender, count)

    def expect_no_more(self, sender: str, count: int) -> None:
        """Release the room of messages whose outcome is known."""
        self._expected.add(sender, -count)

    def came(self, sender: str, count: int) -> None:
        """Count messages that wait."""
        if self.known or self.counting:
            self._waiting.add(sender, count)

    def went(self, sender: str, count: int = 1) -> None:
        """Count messages that no longer wait."""
        if self.known or self.counting:
            self._waiting.add(sender, -count)

    def ask(self) -> int:
        """Note that the store is asked how many wait now; return the question's number."""
        self.counting, self._waiting = True, _Counts()
        self._asked += 1
        return self._asked

    def void(self) -> None:
        """Discard a count that is under way: messages were removed, and it may or may not include them."""
        self.counting = False

    def forget(self) -> None:
        """Discard the counts: messages were passed over, of whose senders nothing is known."""
        self.known = self.counting = False

    def counted(self, waiting: Mapping[str, int], *, number: int) -> None:
        """Apply how many of each sender waited when the store was asked, unless that count is void."""
        if self.counting and number == self._asked:
            for sender, count in waiting.items():
                self._waiting.add(sender, count)
            self.known, self.counting = True, False

    def room(self, sender: str, count: int, messages_max: int, *, of_one_max: int) -> int:
        """Return how many of so many messages there is room for; all, if that is not known yet.

        `messages_max` may wait in all, and `of_one_max` of one sender.
        """
        if not self.known:
            return count
        left = messages_max - self._waiting.total - self._expected.total
        share = of_one_max - self._waiting.of(sender) - self._expected.of(sender)
        return max(0, min(count, left, share))


class _Counts:
    """A number for each sender, and the total."""

    __slots__ = ("_of", "total")

    def __init__(self) -> None:
        self.total = 0
        self._of: dict[str, int] = {}

    def add(self, sender: str, count: int) -> None:
        self.total += count
        own = self._of.get(sender, 0) + count
        if own:
            self._of[sender] = own
        else:
            self._of.pop(sender, None)

    def of(self, sender: str) -> int:
        return self._of.get(sender, 0)
