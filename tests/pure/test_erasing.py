"""What is forgotten of erased messages, and which mailboxes are looked at again."""

from __future__ import annotations

import pytest

from bus.core.dispatch import Dispatch
from bus.mailbox.mailbox import Mailbox
from bus.wire.frames import EraseFrame, ToBot

from .worker import ID, Worker, published


def test_only_mailboxes_that_had_an_erased_message_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker()
    for bot in ("ann", "bob", "eve"):
        worker.hello(bot)
    worker.say(b"ann", published(ToBot(bot="bob"), ToBot(bot="eve")))
    worker.commit()
    assert (worker.in_flight(b"bob"), worker.in_flight(b"eve")) == ([1], [2])
    worker.say(b"ann", EraseFrame(request=4, id=ID % 1, seqs=[1]))
    touched: list[Mailbox] = []
    touch = Dispatch.touch

    def note(dispatch: Dispatch, mailbox: Mailbox) -> None:
        touched.append(mailbox)
        touch(dispatch, mailbox)

    monkeypatch.setattr(Dispatch, "touch", note)
    [answer] = worker.commit()
    assert answer["value"]["seqs"] == [1]
    assert touched == [worker.core.directory.find_mailbox("bob")]
