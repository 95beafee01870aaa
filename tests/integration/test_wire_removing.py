"""Removing on the wire: dead letters are discarded, mailboxes are purged, each once and with a record."""

from __future__ import annotations

from typing import Any

import pytest

from store import check_of

from .wire import Frame, Session, bodies, new_id, seqs_of, to_bot, to_channel
from .wire_worker import Worker


def remove(session: Session, kind: str, *, id: str | None = None, **fields: Any) -> Any:
    rest = {name: fields.pop(name) for name in ("reference", "dry_run", "force") if name in fields}
    return session.value("remove", id=id or new_id(), what={"kind": kind, **fields}, **rest)


def give_up(session: Session, name: str, *reasons: str) -> list[int]:
    """Make dead letters of the session's bot."""
    seqs = session.publish(*(to_bot(name, reason) for reason in reasons))
    for message in session.take(len(reasons)):
        session.settle("term", message["seq"], reason=message["body"])
    return seqs


def dead_letters(session: Session) -> list[int]:
    return [each["seq"] for each in session.value("dead_letters")["dead_letters"]]


def gap_of(session: Session) -> Frame:
    """Return the gap that a session is told, before or after the answer to its last request."""
    return next((frame for frame in session.others if frame["op"] == "gap"), None) or session.receive_until("gap")


# ── Dead letters ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_discarded_dead_letter_is_gone_and_its_message_stays(shared: Worker, name: str) -> None:
    session = shared.session(name)
    seqs = give_up(session, name, "one", "two", "three")
    removed = remove(session, "dead_letters", mailbox=name, seqs=[*seqs[:2], seqs[0], 1 << 40])
    assert removed == {
        "kind": "dead_letters", "name": name, "counts": {"dead_letters": 2}, "seqs": seqs[:2], "ids": [],
        "in_the_way": {}, "done": True, "again": False,
    }  # fmt: skip
    assert dead_letters(session) == seqs[2:]
    assert session.value("retry_dead_letters", bot=name, seqs=seqs[:2]) == {"retried": 0}
    assert bodies(session.history(between=[name, name])) == ["three", "two", "one"]


def test_a_dry_run_changes_nothing_and_is_not_recorded(shared: Worker, name: str) -> None:
    session = shared.session(name)
    seqs = give_up(session, name, "one")
    session.value("credit", max_in_flight=0)
    session.publish(to_bot(name, 1), to_bot(name, 2))
    before = session.value("removals", limit=1000)
    would = remove(session, "dead_letters", mailbox=name, seqs=seqs, dry_run=True)
    assert (would["done"], would["counts"]) == (False, {"dead_letters": 1})
    would = remove(session, "backlog", mailbox=name, dry_run=True)
    assert (would["done"], would["counts"]) == (False, {"waiting": 2})
    assert session.value("removals", limit=1000) == before
    session.value("credit", max_in_flight=5)
    assert (dead_letters(session), bodies(session.take(2))) == (seqs, [1, 2])


def test_a_repeated_removal_has_its_first_answer_and_one_record(shared: Worker, name: str) -> None:
    session = shared.session(name)
    seqs = give_up(session, name, "one", "two")
    id = new_id()
    first = remove(session, "dead_letters", id=id, mailbox=name, seqs=seqs[:1], reference="ticket 7")
    again = remove(session, "dead_letters", id=id, mailbox="nobody-now", seqs=seqs)
    assert (first["again"], again) == (False, first | {"again": True})
    assert dead_letters(session) == seqs[1:]
    [record] = [each for each in session.value("removals", limit=1000)["removals"] if each["id"] == id]
    assert (record["bot_name"], record["reference"], record["removed"]) == (name, "ticket 7", first)
    assert record["erased"]["seqs"] == []


# ── A backlog ────────────────────────────────────────────────────────────────────────────────────────────


def test_what_waits_is_passed_over_and_what_is_in_flight_is_left(shared: Worker, name: str) -> None:
    sender, receiver = shared.session(f"{name}-sender"), shared.session(name, max_in_flight=1)
    receiver.subscribe(name)
    seqs = sender.publish(to_bot(name, 0), to_bot(name, 1), to_channel(name, 2))
    assert receiver.take_one()["body"] == 0
    removed = remove(sender, "backlog", mailbox=name)
    assert (removed["counts"], removed["name"]) == ({"waiting": 2}, name)
    gap = gap_of(receiver)
    assert gap["from_seq"] <= seqs[1]
    assert gap["to_seq"] == seqs[2]
    receiver.settle("nak", seqs[0], delay=0)
    again = receiver.take_one()
    assert (again["seq"], again["attempt"]) == (seqs[0], 2)
    receiver.settle("ack", seqs[0])
    sender.publish(to_bot(name, 3), to_channel(name, 4))
    assert receiver.take_one()["body"] == 3
    assert bodies(sender.history(channel=name)) == [4, 2]


def test_what_was_delivered_before_and_waits_again_is_purged(shared: Worker, name: str) -> None:
    session = shared.session(name, max_in_flight=2)
    seqs = session.publish(*(to_bot(name, number) for number in range(3)))
    session.take(2)
    session.settle("nak", *seqs[:2], delay=3600)
    session.take(1)
    session.publish(to_bot(name, "new"))
    session.take(1)
    assert remove(session, "backlog", mailbox=name)["counts"] == {"waiting": 2}
    assert session.value("bots")["bots"] != []
    [listed] = [bot for bot in session.value("bots")["bots"] if bot["name"] == name]
    assert (listed["backlog"], listed["in_flight"]) == (2, 2)


def test_an_empty_mailbox_has_no_gap(shared: Worker, name: str) -> None:
    session = shared.session(name)
    assert remove(session, "backlog", mailbox=name)["counts"] == {"waiting": 0}
    session.publish(to_bot(name, 1))
    assert session.take_one()["body"] == 1
    assert [frame for frame in session.others if frame["op"] == "gap"] == []


def test_the_backlog_of_a_group_without_members_is_purged(shared: Worker, name: str) -> None:
    member = shared.session(name)
    member.subscribe(name, group="team")
    member.goodbye()
    sender = shared.session(f"{name}-sender")
    sender.publish(to_channel(name, 1), to_channel(name, 2))
    assert remove(sender, "backlog", mailbox=f"{name}/team")["counts"] == {"waiting": 2}
    sender.publish(to_channel(name, 3))
    assert shared.session(name).take_one()["body"] == 3


def test_a_purge_stands_after_a_kill(worker: Worker) -> None:
    worker.session("bob").goodbye()
    sender = worker.session("ann")
    sender.publish(to_bot("bob", 1), to_bot("bob", 2))
    id = new_id()
    first = remove(sender, "backlog", id=id, mailbox="bob")
    worker.kill()
    worker.start()
    sender = worker.session("ann")
    sender.publish(to_bot("bob", 3))
    assert remove(sender, "backlog", id=id, mailbox="bob") == first | {"again": True}
    assert seqs_of(worker.session("bob").take(1)) == [3]


def test_what_is_not_valid_is_refused(shared: Worker, name: str) -> None:
    session = shared.session(name)
    assert session.code("remove", id=new_id(), what={"kind": "backlog", "mailbox": "nobody"}) == "unknown_bot"
    for reserved in ("posthouse", "posthouse.console", "Posthouse.other"):
        refused = session.ask("remove", id=new_id(), what={"kind": "bot", "bot": reserved})
        assert (refused["code"], "reserved for the worker" in refused["message"]) == ("bad_request", True)
    assert session.code("remove", id=new_id(), what={"kind": "everything"}) == "bad_request"
    what = {"kind": "backlog", "mailbox": name}
    assert session.code("remove", id=new_id(), what=what, reference="two\nlines") == "bad_request"


# ── Delayed messages ─────────────────────────────────────────────────────────────────────────────────────


def test_delayed_messages_are_listed_by_when_they_are_due(shared: Worker, name: str) -> None:
    session = shared.session(name)
    sent = [to_bot(name, delay, delay=delay) for delay in (300, 100, 200)]
    session.try_publish(*sent)
    first = session.value("delayed", sender=name, limit=2)
    assert ([each["message"]["body"] for each in first["messages"]], first["more"]) == ([100, 200], True)
    [_, last] = first["messages"]
    after = [last["due_at"], last["message"]["id"], last["message"]["sender_bot_id"]]
    rest = session.value("delayed", sender=session.bot_id, after=after, limit=2)
    assert ([each["message"]["id"] for each in rest["messages"]], "more" in rest) == ([sent[0]["id"]], False)
    assert session.code("delayed", sender="nobody") == "unknown_bot"


def test_a_cancelled_message_never_comes_and_its_id_is_free(shared: Worker, name: str) -> None:
    session = shared.session(name)
    kept, gone = (to_bot(name, body, delay=3600) for body in ("kept", "gone"))
    session.try_publish(kept, gone)
    would = remove(session, "delayed", ids=[gone["id"]], dry_run=True)
    assert (would["counts"], would["done"]) == ({"delayed": 1}, False)
    removed = remove(session, "delayed", ids=[gone["id"], new_id(), gone["id"]])
    assert (removed["name"], removed["counts"], removed["ids"]) == (name, {"delayed": 1}, [gone["id"]])
    assert [each["message"]["id"] for each in session.value("delayed", sender=name)["messages"]] == [kept["id"]]
    assert session.code("message", id=gone["id"]) == "not_found"
    assert remove(session, "delayed", ids=[gone["id"]])["counts"] == {"delayed": 0}
    session.publish(gone | {"delay": 0})
    assert session.take_one()["body"] == "gone"


def test_a_message_of_another_bot_is_not_cancelled_by_its_id_alone(shared: Worker, name: str) -> None:
    session, other = shared.session(name), shared.session(f"{name}-other")
    sent = to_bot(name, 1, delay=3600)
    session.try_publish(sent)
    assert remove(other, "delayed", ids=[sent["id"]])["counts"] == {"delayed": 0}
    assert remove(other, "delayed", ids=[sent["id"]], bot=name)["counts"] == {"delayed": 1}


# ── Subscriptions and groups ─────────────────────────────────────────────────────────────────────────────


def test_an_operator_ends_a_subscription(shared: Worker, name: str) -> None:
    operator, bot = shared.session(f"{name}-ops"), shared.session(name, max_in_flight=1)
    bot.subscribe(name)
    [first, *_] = operator.publish(to_channel(name, 1), to_channel(name, 2), to_bot(name, 3))
    assert bot.take_one()["seq"] == first
    would = remove(operator, "subscription", bot=name, channel=name, dry_run=True)
    assert (would["counts"], would["done"]) == ({"subscriptions": 1, "waiting": 1}, False)
    removed = remove(operator, "subscription", bot=bot.bot_id, channel=name)
    assert (removed["counts"], removed["done"]) == ({"subscriptions": 1, "waiting": 1}, True)
    assert bot.value("subscriptions")["subscriptions"] == []
    bot.settle("ack", first)
    operator.publish(to_channel(name, 4))
    assert bot.take_one()["body"] == 3
    assert remove(operator, "subscription", bot=name, channel=name)["counts"] == {"subscriptions": 0, "waiting": 0}
    assert bot.subscribe(name)["created"] is True


def test_a_group_in_use_is_removed_only_by_force(shared: Worker, name: str) -> None:
    operator, member = shared.session(f"{name}-ops"), shared.session(name, max_in_flight=1)
    member.subscribe(name, group="team")
    operator.publish(to_channel(name, 1), to_channel(name, 2))
    held = member.take_one()
    what = {"kind": "group", "channel": name, "group": "team"}
    refused = operator.ask("remove", id=new_id(), what=what)
    in_the_way = {"members": 1, "waiting": 1, "in_flight": 1}
    assert (refused["code"], refused["details"]) == ("conflict", in_the_way)
    assert member.value("subscriptions")["subscriptions"] != []
    id = new_id()
    removed = operator.value("remove", id=id, what=what, force=True)
    assert (removed["in_the_way"], removed["done"]) == (in_the_way, True)
    assert operator.value("remove", id=id, what=what) == removed | {"again": True}
    assert operator.code("remove", id=new_id(), what=what) == "not_found"
    [channel] = [each for each in member.value("channels")["channels"] if each["name"] == name]
    assert (channel["groups"], channel["subscribers"]) == ([], 0)
    assert member.value("ack", seqs=[held["seq"]]) != {}
    assert bodies(member.history(channel=name)) == [2, 1]


def test_a_group_of_the_name_of_a_removed_one_is_new(shared: Worker, name: str) -> None:
    member, other = shared.session(name), shared.session(f"{name}-other")
    member.subscribe(name, group="team")
    member.publish(to_channel(name, 1))
    member.settle("ack", member.take_one()["seq"])
    member.value("unsubscribe", channel=name)
    assert remove(other, "group", channel=name, group="team")["counts"]["members"] == 0
    other.subscribe(name, group="team", start="all")
    assert other.take_one()["body"] == 1


def test_a_removed_group_stays_so_after_a_kill(worker: Worker) -> None:
    session = worker.session("ann")
    session.subscribe("work", group="team")
    session.publish(to_channel("work", 1))
    id = new_id()
    what = {"kind": "group", "channel": "work", "group": "team"}
    first = session.value("remove", id=id, what=what, force=True)
    worker.kill()
    worker.start()
    session = worker.session("ann")
    assert session.value("subscriptions")["subscriptions"] == []
    assert session.value("channels")["channels"][0]["groups"] == []
    assert session.value("remove", id=id, what=what) == first | {"again": True}


# ── Bots ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_connected_bot_is_not_removed_even_by_force(shared: Worker, name: str) -> None:
    operator, bot = shared.session(f"{name}-ops"), shared.session(name)
    what = {"kind": "bot", "bot": name}
    refused = operator.ask("remove", id=new_id(), what=what, force=True)
    assert (refused["code"], refused["details"]) == ("conflict", {"sessions": 1})
    bot.publish(to_bot(name, 1))
    assert bot.take_one()["body"] == 1


def test_a_removed_bot_is_gone_and_one_of_its_name_is_new(shared: Worker, name: str) -> None:
    operator, bot = shared.session(f"{name}-ops"), shared.session(name)
    bot.subscribe(name)
    bot.subscribe(f"{name}-work", group="team")
    give_up(bot, name, "no")
    bot.goodbye()
    operator.publish(to_bot(name, 1), to_channel(name, 2))
    what = {"kind": "bot", "bot": name}
    refused = operator.ask("remove", id=new_id(), what=what)
    in_the_way = {"waiting": 2, "subscriptions": 2, "dead_letters": 1}
    assert (refused["code"], refused["details"]) == ("conflict", in_the_way)
    id = new_id()
    removed = operator.value("remove", id=id, what=what, force=True)
    assert (removed["name"], removed["in_the_way"], removed["done"]) == (name, in_the_way, True)
    assert operator.value("remove", id=id, what=what) == removed | {"again": True}
    assert operator.code("remove", id=new_id(), what=what) == "unknown_bot"
    assert operator.try_publish(to_bot(name, 3))["errors"][0]["code"] == "unknown_bot"
    assert name not in {each["name"] for each in operator.value("bots")["bots"]}
    assert operator.value("subscriptions", channel=name)["subscriptions"] == []
    operator.publish(to_channel(name, 4))
    again = shared.session(name)
    assert again.bot_id != bot.bot_id
    operator.publish(to_bot(name, 5))
    assert again.take_one()["body"] == 5
    assert (dead_letters(again), again.value("subscriptions")["subscriptions"]) == ([], [])
    assert bodies(operator.history(channel=name)) == [4, 2]


def test_delayed_messages_keep_a_bot(shared: Worker, name: str) -> None:
    operator = shared.session(f"{name}-ops")
    shared.session(name).goodbye()
    sent = to_bot(name, 1, delay=3600)
    operator.try_publish(sent)
    what = {"kind": "bot", "bot": name}
    refused = operator.ask("remove", id=new_id(), what=what, force=True)
    assert (refused["code"], refused["details"]) == ("conflict", {"delayed": 1})
    assert "delayed messages first" in refused["message"]
    remove(operator, "delayed", ids=[sent["id"]])
    assert operator.value("remove", id=new_id(), what=what)["done"] is True


def test_a_removed_bot_stays_so_after_a_kill(worker: Worker) -> None:
    operator, bot = worker.session("ops"), worker.session("bob")
    bot.subscribe("news")
    bot.goodbye()
    id = new_id()
    first = operator.value("remove", id=id, what={"kind": "bot", "bot": "bob"}, force=True)
    worker.kill()
    worker.start()
    operator = worker.session("ops")
    assert [each["name"] for each in operator.value("bots")["bots"]] == ["ops"]
    assert operator.value("remove", id=id, what={"kind": "bot", "bot": "bob"}) == first | {"again": True}


# ── Channels ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_channel_in_use_is_removed_only_by_force(shared: Worker, name: str) -> None:
    operator, alone, member = (shared.session(f"{name}-{part}") for part in ("ops", "alone", "member"))
    alone.subscribe(name)
    member.subscribe(name, group="team")
    operator.publish(to_channel(name, 1))
    alone.settle("ack", alone.take_one()["seq"])
    held = member.take_one()
    operator.try_publish(to_channel(name, 2, delay=3600))
    what = {"kind": "channel", "channel": name}
    refused = operator.ask("remove", id=new_id(), what=what, force=True)
    assert (refused["code"], refused["details"]["delayed"]) == ("conflict", 1)
    [delayed] = operator.value("delayed", sender=f"{name}-ops")["messages"]
    remove(operator, "delayed", ids=[delayed["message"]["id"]])
    refused = operator.ask("remove", id=new_id(), what=what)
    in_the_way = {"subscriptions": 2, "groups": 1}
    assert (refused["code"], refused["details"]) == ("conflict", in_the_way)
    id = new_id()
    removed = operator.value("remove", id=id, what=what, force=True)
    assert (removed["in_the_way"], removed["done"]) == (in_the_way, True)
    assert operator.value("remove", id=id, what=what) == removed | {"again": True}
    assert operator.code("remove", id=new_id(), what=what) == "unknown_channel"
    assert name not in {each["name"] for each in operator.value("channels")["channels"]}
    assert alone.value("subscriptions")["subscriptions"] == []
    assert member.value("ack", seqs=[held["seq"]]) != {}
    operator.publish(to_channel(name, 3))
    assert alone.waiting_deliveries() == []
    assert bodies(operator.history(channel=name)) == [3, 1]
    assert alone.subscribe(name, start="all")["created"] is True
    assert bodies(alone.take(2)) == [1, 3]


def test_a_removed_channel_stays_so_after_a_kill(worker: Worker) -> None:
    session = worker.session("ann")
    session.subscribe("news")
    session.subscribe("work", group="team")
    first = remove(session, "channel", channel="news", force=True)
    remove(session, "channel", channel="work", force=True)
    worker.kill()
    worker.start()
    session = worker.session("ann")
    assert first["done"] is True
    assert session.value("channels")["channels"] == []
    assert session.value("subscriptions")["subscriptions"] == []


# ── Kills, and what a check finds ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["bot", "group", "channel", "subscription", "delayed", "dead_letters", "backlog"])
def test_a_removal_whose_worker_is_killed_is_carried_out_once(worker: Worker, kind: str) -> None:
    operator, bob = worker.session("ops"), worker.session("bob")
    bob.subscribe("news")
    bob.subscribe("work", group="team")
    dead = give_up(bob, "bob", "no")
    bob.goodbye()
    later = to_bot("ops", "later", delay=3600)
    operator.try_publish(to_bot("bob", 1), to_channel("news", 2), to_channel("work", 3), later)
    cases: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
        "bot": ({"bot": "bob"}, {"waiting": 2, "subscriptions": 2, "dead_letters": 1}),
        "group": ({"channel": "work", "group": "team"}, {"members": 1, "waiting": 1}),
        "channel": ({"channel": "work"}, {"groups": 1, "subscriptions": 1, "waiting": 1}),
        "subscription": ({"bot": "bob", "channel": "news"}, {"subscriptions": 1, "waiting": 1}),
        "delayed": ({"ids": [later["id"]]}, {"delayed": 1}),
        "dead_letters": ({"mailbox": "bob", "seqs": dead}, {"dead_letters": 1}),
        "backlog": ({"mailbox": "bob"}, {"waiting": 2}),
    }
    what, counts = cases[kind]
    asked = {"op": "remove", "request": 99, "id": new_id(), "what": {"kind": kind, **what}, "force": True}
    operator.send(**asked)
    worker.kill()  # before it was looked up, in between, while it is written, or before it is answered
    worker.start()
    operator = worker.session("ops")
    operator.send(**asked)
    answer = operator.receive_until("ok", 99)["value"]
    assert ({name: count for name, count in answer["counts"].items() if count}, answer["done"]) == (counts, True)
    worker.kill()  # after it was answered
    worker.start()
    operator = worker.session("ops")
    operator.send(**asked)
    assert operator.receive_until("ok", 99)["value"] == answer | {"again": True}
    records = operator.value("removals", limit=1000)["removals"]
    assert [each["id"] for each in records] == [asked["id"]]
    worker.stop()
    check = check_of(worker.engine or str(worker.database))
    for _ in check.run():
        pass
    assert (check.damage, check.warnings) == ([], [])


# ── Who is told ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_session_that_asked_is_told_once_that_a_subscription_ended(shared: Worker, name: str) -> None:
    operator, bot, other = shared.session(f"{name}-ops"), shared.session(name), shared.session(name)
    bot.subscribe(name)
    bot.subscribe(f"{name}-2")
    assert len(bot.value("subscriptions", follow=True)["subscriptions"]) == 2
    remove(operator, "subscription", bot=name, channel=name)
    assert bot.receive() == {"op": "subscription_ended"}
    assert [each["channel_name"] for each in other.value("subscriptions")["subscriptions"]] == [f"{name}-2"]
    assert other.others == [], "it did not ask"
    assert bot.code("subscriptions", follow=True, channel=name) == "bad_request"
    assert bot.code("subscriptions", follow=True, bot=name) == "bad_request"
