"""Groups on channels, one decision at a time: who shares a mailbox, and what becomes of it."""

from __future__ import annotations

from typing import Any

from bus.wire.frames import Ack, Goodbye, Nak, Subscribe, ToChannel, Unsubscribe

from .worker import Worker, delivered, published


def joined(worker: Worker, *bots: str, channel: str = "work", **fields: Any) -> None:
    for bot in bots:
        worker.hello(bot)
        worker.say(bot.encode(), Subscribe(request=2, channel=channel, group="team", **fields))
        assert worker.commit()[-1]["op"] == "ok"


def test_each_message_goes_to_one_member() -> None:
    worker = Worker()
    joined(worker, "ann", "bob")
    worker.hello("eve")
    worker.say(b"eve", published(*[ToChannel("work") for _ in range(10)]))
    said = worker.commit()
    seqs = [message["seq"] for message in delivered(said)]
    assert sorted(seqs) == list(range(1, 11))
    assert {message["group"] for message in delivered(said)} == {"team"}
    assert len(worker.in_flight(b"ann")) == len(worker.in_flight(b"bob")) == 5


def test_a_group_and_a_bot_by_itself_both_get_a_message() -> None:
    worker = Worker()
    joined(worker, "ann")
    worker.hello("bob")
    worker.say(b"bob", Subscribe(request=2, channel="work"))
    worker.commit()
    worker.hello("eve")
    worker.say(b"eve", published(ToChannel("work")))
    messages = delivered(worker.commit())
    assert sorted(message.get("group", "") for message in messages) == ["", "team"]


def test_a_members_own_message_goes_to_another() -> None:
    worker = Worker()
    joined(worker, "ann", "bob")
    worker.say(b"ann", published(*[ToChannel("work") for _ in range(6)]))
    worker.commit()
    assert (len(worker.in_flight(b"ann")), len(worker.in_flight(b"bob"))) == (0, 6)


def test_a_member_alone_gets_its_own_message() -> None:
    worker = Worker()
    joined(worker, "ann")
    worker.say(b"ann", published(ToChannel("work")))
    assert [message["seq"] for message in delivered(worker.commit())] == [1]


def test_a_group_starts_where_its_first_member_said() -> None:
    worker = Worker()
    worker.hello("eve")
    worker.say(b"eve", published(*[ToChannel("work") for _ in range(3)]))
    worker.commit()
    worker.hello("ann")
    worker.say(b"ann", Subscribe(request=2, channel="work", group="team", start="all"))
    assert [message["seq"] for message in delivered(worker.commit())] == [1, 2, 3]
    worker.hello("bob")
    worker.say(b"bob", Subscribe(request=2, channel="work", group="team"))
    [answer] = worker.commit()
    assert answer["value"] == {"channel": "work", "start_seq": 0, "created": True, "group": "team"}


def test_a_leaving_member_gives_back_what_it_had() -> None:
    worker = Worker()
    joined(worker, "ann")
    worker.hello("eve")
    worker.say(b"eve", published(ToChannel("work")))
    worker.commit()
    joined(worker, "bob")
    worker.say(b"ann", Unsubscribe(request=3, channel="work"))
    [again] = delivered(worker.commit())
    assert (again["seq"], again["attempt"]) == (1, 2)
    assert (worker.in_flight(b"ann"), worker.in_flight(b"bob")) == ([], [1])


def test_the_mailbox_outlives_its_members() -> None:
    worker = Worker()
    joined(worker, "ann")
    worker.say(b"ann", Unsubscribe(request=3, channel="work"))
    worker.commit()
    worker.hello("eve")
    worker.say(b"eve", published(*[ToChannel("work") for _ in range(3)]))
    worker.commit()
    worker.restart()
    worker.hello("bob")
    worker.say(b"bob", Subscribe(request=2, channel="work", group="team"))
    assert [message["seq"] for message in delivered(worker.commit())] == [1, 2, 3]


def test_a_bot_is_in_one_kind_only() -> None:
    worker = Worker()
    joined(worker, "ann")
    for group in (None, "others"):
        worker.say(b"ann", Subscribe(request=4, channel="work", group=group))
        [refused] = worker.commit()
        assert (refused["code"], refused["request"]) == ("conflict", 4)
        assert "unsubscribe first" in refused["message"]
    worker.say(b"ann", Subscribe(request=5, channel="work", group="team"))
    [same] = worker.commit()
    assert same["value"]["created"] is False


def test_joining_takes_over_what_was_in_flight_by_itself() -> None:
    worker = Worker()
    worker.hello("ann")
    worker.say(b"ann", Subscribe(request=2, channel="work"))
    worker.commit()
    worker.hello("eve")
    worker.say(b"eve", published(ToChannel("work")))
    worker.commit()
    worker.say(b"ann", Unsubscribe(request=3, channel="work"))
    worker.commit()
    assert worker.in_flight(b"ann") == [1]
    worker.say(b"ann", Subscribe(request=4, channel="work", group="team", start="all"))
    [again] = delivered(worker.commit())
    assert (again["seq"], again["group"], worker.in_flight(b"ann")) == (1, "team", [1])


def test_own_mailbox_and_groups_take_turns_for_a_session() -> None:
    worker = Worker()
    worker.hello("ann", max_in_flight=1)
    worker.say(b"ann", Subscribe(request=2, channel="work", group="team"))
    worker.say(b"ann", Subscribe(request=3, channel="news"))
    worker.commit()
    worker.hello("eve")
    worker.say(b"eve", published(*[ToChannel(name) for name in ["work"] * 4 + ["news"] * 4]))
    worker.commit()
    groups: list[str] = []
    for _ in range(8):
        [seq] = worker.in_flight(b"ann")
        groups.append("team" if seq <= 4 else "own")
        worker.say(b"ann", Ack(seqs=[seq]))
    assert sorted(groups) == ["own"] * 4 + ["team"] * 4
    assert {"own", "team"} == set(groups[:4]), "neither waits for the other to be empty"


def test_what_a_session_frees_by_a_failure_goes_to_its_other_mailbox() -> None:
    worker = Worker()
    worker.hello("ann", max_in_flight=1)
    worker.say(b"ann", Subscribe(request=2, channel="work", group="team"))
    worker.say(b"ann", Subscribe(request=3, channel="news"))
    worker.commit()
    worker.hello("eve")
    worker.say(b"eve", published(ToChannel("work"), ToChannel("news")))
    worker.commit()
    [first] = worker.in_flight(b"ann")
    worker.say(b"ann", Nak(seqs=[first], delay=60))
    assert worker.in_flight(b"ann") == [3 - first]


def test_a_session_that_ends_gives_its_share_to_the_others() -> None:
    worker = Worker()
    joined(worker, "ann", "bob")
    worker.hello("eve")
    worker.say(b"eve", published(*[ToChannel("work") for _ in range(6)]))
    worker.commit()
    worker.say(b"ann", Goodbye(request=9))
    assert len(worker.in_flight(b"bob")) == 6


def test_idle_members_take_turns() -> None:
    worker = Worker()
    joined(worker, "ann", "bob", "cat")
    worker.hello("eve")
    taken: list[bytes] = []
    for _ in range(6):
        worker.say(b"eve", published(ToChannel("work")))
        worker.commit()
        [bot] = [bot for bot in (b"ann", b"bob", b"cat") if worker.in_flight(bot)]
        worker.say(bot, Ack(seqs=worker.in_flight(bot)))
        taken.append(bot)
    assert taken[:3] == taken[3:]
    assert len(set(taken)) == 3
