"""How many direct messages wait in a mailbox, so that it can be full.

Owns the count. After a restart it is not known, and counting costs a look at every message that waits: it is asked
of the store once, and only of a mailbox that lies far enough behind the log's end to be full.

Pure.
"""

from __future__ import annotations

__all__ = ["Backlog"]


class Backlog:
    """See the module. What comes and goes after the asking is noted, so that the count may arrive late."""

    def __init__(self) -> None:
        self.known = False
        """Whether the count is one."""
        self.counting = False
        """Whether the store was asked."""
        self._expected = 0
        self._waiting = 0
        self._asked = 0

    def __repr__(self) -> str:
        return f"<Backlog {self._waiting if self.known else 'unknown'} expected={self._expected}>"

    def expect(self) -> None:
        """Reserve room for a message that is on its way to the disk."""
        self._expected += 1

    def expect_no_more(self) -> None:
        """Release the room of a message whose outcome is known."""
        self._expected -= 1

    def came(self) -> None:
        """Note a message that waits."""
        self._waiting += 1

    def went(self, count: int = 1) -> None:
        """Note messages that wait no more."""
        self._waiting -= count

    def ask(self) -> int:
        """Note that the store is being asked how many wait now; return the question's number."""
        self.counting, self._waiting = True, 0
        self._asked += 1
        return self._asked

    def void(self) -> None:
        """Note that messages were removed: whether a count that is on its way has them cannot be known."""
        self.counting = False

    def counted(self, waiting: int, *, number: int) -> None:
        """Accept how many waited when the store was asked, unless that count is void."""
        if self.counting and number == self._asked:
            self._waiting += waiting
            self.known, self.counting = True, False

    def has_room(self, messages_max: int) -> bool:
        """Return True if one more may come, or if that is not known yet."""
        return not self.known or self._waiting + self._expected < messages_max
