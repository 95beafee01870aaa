"""Full mailboxes, one decision at a time: which direct messages are refused, and what is known of a repeat."""

from __future__ import annotations

from typing import Any

import msgspec

from bus.settings import Limits, Settings
from bus.wire.frames import Ack, Code, Publish, Subscribe, ToBot, ToChannel

from .worker import Worker, frames, published

SETTINGS = Settings(limits=Limits(backlog_messages_max=3))


def sent(worker: Worker, publish: Publish) -> dict[str, Any]:
    worker.say(b"eve", publish)
    [answer] = [frame for frame in worker.commit() if frame["op"] == "published"]
    return answer


def world(*, credit: int = 0) -> Worker:
    worker = Worker(SETTINGS)
    worker.hello("bob", max_in_flight=credit)
    worker.hello("eve")
    return worker


def test_what_is_over_the_limit_is_refused_for_itself() -> None:
    worker = world()
    answer = sent(worker, published(*[ToBot(bot="bob")] * 5, ToChannel("news"), ToBot(bot="eve")))
    assert answer["seqs"] == [1, 2, 3, None, None, 4, 5]
    assert [(error["index"], error["code"]) for error in answer["errors"]] == [
        (3, "mailbox_full"),
        (4, "mailbox_full"),
    ]
    assert "bot 'bob' has 3 waiting messages" in answer["errors"][0]["message"]


def test_a_repeat_is_known_although_the_mailbox_is_full() -> None:
    worker = world()
    publish = published(*[ToBot(bot="bob")] * 3)
    sent(worker, publish)
    again = sent(worker, publish)
    assert (again["seqs"], again["duplicates"]) == ([1, 2, 3], [0, 1, 2])
    assert "errors" not in again


def test_what_is_handed_out_makes_room() -> None:
    worker = world(credit=1)
    assert sent(worker, published(*[ToBot(bot="bob")] * 3))["seqs"] == [1, 2, 3]
    assert sent(worker, published(*[ToBot(bot="bob")] * 2))["seqs"] == [4, None]
    worker.say(b"bob", Ack(seqs=[1]))
    assert sent(worker, published(ToBot(bot="bob")))["seqs"] == [5]


def test_messages_that_are_on_their_way_to_the_disk_count() -> None:
    worker = world()
    for number in range(3):
        worker.say(b"eve", published(*[ToBot(bot="bob")] * 2, request=number))
    answers = worker.commit()
    assert [answer["seqs"] for answer in answers] == [[1, 2], [3, None], [None, None]]


def test_what_the_disk_refused_counts_no_more() -> None:
    worker = world()
    worker.say(b"eve", published(*[ToBot(bot="bob")] * 3))
    batch = worker.next_batch()
    frames(worker.core.failed(batch, Code.STORAGE_FULL, "full", worker.moment))
    assert sent(worker, published(*[ToBot(bot="bob")] * 3))["seqs"] == [1, 2, 3]


def test_channels_fill_no_mailbox() -> None:
    worker = world()
    worker.say(b"bob", Subscribe(request=2, channel="news"))
    worker.commit()
    assert None not in sent(worker, published(*[ToChannel("news")] * 9))["seqs"]
    assert sent(worker, published(*[ToBot(bot="bob")] * 3))["seqs"] == [10, 11, 12]


def test_a_restart_counts_once_it_matters() -> None:
    worker = world()
    sent(worker, published(*[ToBot(bot="bob")] * 2, *[ToChannel("news")] * 5))
    worker.restart()
    worker.hello("eve", max_in_flight=0)
    bob = worker.core.directory.mailboxes[worker.core.directory.names["bob"].id]
    assert "unknown" in repr(bob.backlog)
    assert sent(worker, published(ToBot(bot="bob")))["seqs"] == [8], "the first is taken while it is counted"
    assert "unknown" not in repr(bob.backlog)
    [refused] = sent(worker, published(ToBot(bot="bob")))["errors"]
    assert refused["code"] == "mailbox_full"


def test_a_mailbox_near_the_logs_end_is_never_counted() -> None:
    worker = world()
    sent(worker, published(ToBot(bot="bob")))
    worker.restart()
    worker.hello("eve")
    sent(worker, published(ToBot(bot="bob")))
    bob = worker.core.directory.mailboxes[worker.core.directory.names["bob"].id]
    assert not bob.backlog.known
    assert not bob.backlog.counting


def test_a_reply_is_refused_like_any_other() -> None:
    worker = world(credit=1)
    ask = published(ToBot(bot="eve"), expects_reply=True)
    worker.say(b"bob", ask)
    worker.commit()
    sent(worker, published(*[ToBot(bot="bob")] * 3))
    sent(worker, published(ToBot(bot="bob")))
    reply = published(ToBot(bot="bob"))
    reply = msgspec.structs.replace(
        reply, messages=[msgspec.structs.replace(reply.messages[0], reply_to=ask.messages[0].id)]
    )
    [refused] = sent(worker, reply)["errors"]
    assert refused["code"] == "mailbox_full"
