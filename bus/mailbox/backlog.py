"""How many direct messages wait in a mailbox, which decides whether it is full.

Owns the count. After a restart it is unknown, and counting reads every message that waits. So the store is asked
once, and only for a mailbox far enough behind the end of the log to be full.

Pure.
"""

from __future__ import annotations

__all__ = ["Backlog"]


class Backlog:
    """See the module. Changes after the question are noted, so that the answer may arrive late."""

    def __init__(self) -> None:
        self.known = False
        """Whether the count is known."""
        self.counting = False
        """Whether the store is counting."""
        self._expected = 0
        self._waiting = 0
        self._asked = 0

    def __repr__(self) -> str:
        return f"<Backlog {self._waiting if self.known else 'unknown'} expected={self._expected}>"

    def expect(self, count: int) -> None:
        """Reserve room for messages that are on their way to the disk."""
        self._expected += count

    def expect_no_more(self, count: int) -> None:
        """Release the room of messages whose outcome is known."""
        self._expected -= count

    def came(self, count: int) -> None:
        """Count messages that wait."""
        self._waiting += count

    def went(self, count: int = 1) -> None:
        """Count messages that no longer wait."""
        self._waiting -= count

    def ask(self) -> int:
        """Note that the store is asked how many wait now; return the question's number."""
        self.counting, self._waiting = True, 0
        self._asked += 1
        return self._asked

    def void(self) -> None:
        """Discard a count that is under way: messages were removed, and it may or may not include them."""
        self.counting = False

    def counted(self, waiting: int, *, number: int) -> None:
        """Apply how many waited when the store was asked, unless that count is void."""
        if self.counting and number == self._asked:
            self._waiting += waiting
            self.known, self.counting = True, False

    def room(self, count: int, messages_max: int) -> int:
        """Return how many of so many messages there is room for; all, if that is not known yet."""
        return max(0, min(count, messages_max - self._waiting - self._expected)) if self.known else count
