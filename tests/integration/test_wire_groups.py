"""Groups on the wire: members share a mailbox, which outlives them and the worker."""

from __future__ import annotations

from .wire import bodies, seqs_of, to_channel
from .wire_worker import Worker


def test_each_message_goes_to_one_member(shared: Worker, name: str) -> None:
    sender = shared.session(f"{name}-sender")
    members = [shared.session(f"{name}-{number}") for number in range(3)]
    for member in members:
        value = member.subscribe(name, group="workers")
        assert (value["created"], value["group"]) == (True, "workers")
    seqs = sender.publish(*[to_channel(name, number) for number in range(60)])
    found = [message for member in members for message in member.take(20)]
    assert sorted(seqs_of(found)) == seqs, "they share fairly by free credit"
    assert {message["group"] for message in found} == {"workers"}
    assert all(member.waiting_deliveries() == [] for member in members)


def test_a_message_of_two_groups_and_a_bot_goes_to_each(shared: Worker, name: str) -> None:
    sender = shared.session(f"{name}-sender")
    one, other, alone = (shared.session(f"{name}-{part}") for part in ("one", "other", "alone"))
    one.subscribe(name, group="one")
    other.subscribe(name, group="other")
    alone.subscribe(name)
    sender.publish(to_channel(name, "for all"))
    assert one.take_one()["group"] == "one"
    assert other.take_one()["group"] == "other"
    assert "group" not in alone.take_one()


def test_a_bot_is_subscribed_in_one_way(shared: Worker, name: str) -> None:
    bot = shared.session(name)
    bot.subscribe(name, group="workers")
    assert bot.code("subscribe", channel=name) == "conflict"
    assert bot.code("subscribe", channel=name, group="others") == "conflict"
    assert bot.subscribe(name, group="workers")["created"] is False
    bot.value("unsubscribe", channel=name)
    assert "group" not in bot.subscribe(name)
    assert bot.code("subscribe", channel=name, group="workers") == "conflict"


def test_what_a_member_had_goes_to_the_others(shared: Worker, name: str) -> None:
    sender = shared.session(f"{name}-sender")
    first = shared.session(f"{name}-first")
    first.subscribe(name, group="workers")
    seqs = sender.publish(*[to_channel(name, number) for number in range(3)])
    assert seqs_of(first.take(3)) == seqs
    second = shared.session(f"{name}-second")
    second.subscribe(name, group="workers")
    first.goodbye()
    again = second.take(3)
    assert seqs_of(again) == seqs
    assert [message["attempt"] for message in again] == [2, 2, 2]
    second.value("ack", seqs=seqs)
    third = shared.session(f"{name}-third")
    third.subscribe(name, group="workers")
    second.value("unsubscribe", channel=name)
    assert third.waiting_deliveries() == [], "what is settled for one is settled for all"


def test_the_sessions_of_a_group_are_those_that_take_from_it(shared: Worker, name: str) -> None:
    there, away = shared.session(f"{name}-there"), shared.session(f"{name}-away")
    second, asking = (shared.session(f"{name}-there", max_in_flight=credit) for credit in (100, 0))
    for member in (there, away, second, asking):
        member.subscribe(name, group="workers")
    away.goodbye()
    [channel] = there.value("channels", only=[name])["channels"]
    [group] = channel["groups"]
    assert (group["members"], group["sessions"]) == (2, 2)


def test_the_groups_mailbox_outlives_members_and_worker(worker: Worker) -> None:
    member = worker.session("member")
    member.subscribe("jobs", group="workers")
    member.value("unsubscribe", channel="jobs")
    sender = worker.session("sender")
    seqs = sender.publish(*[to_channel("jobs", number) for number in range(5)])
    worker.kill()
    worker.close_clients()
    worker.start()
    [channel] = worker.session("asker").value("channels")["channels"]
    counts = {"members": 0, "backlog": 5, "in_flight": 0, "dead": 0, "sessions": 0}
    assert channel["groups"] == [{"group": "workers", **counts}]
    late = worker.session("late")
    assert late.subscribe("jobs", group="workers")["start_seq"] == 0
    found = late.take(5)
    assert (seqs_of(found), bodies(found)) == (seqs, [0, 1, 2, 3, 4])


def test_a_groups_dead_letters_are_its_own(shared: Worker, name: str) -> None:
    sender, member = shared.session(f"{name}-sender"), shared.session(f"{name}-member")
    member.subscribe(name, group="workers")
    [seq] = sender.publish(to_channel(name, "bad"))
    member.take_one()
    member.value("term", seqs=[seq], reason="cannot")
    mailbox = f"{name}/workers"
    [dead] = member.value("dead_letters", bot=mailbox)["dead_letters"]
    assert (dead["seq"], dead["reason"]) == (seq, "cannot")
    assert member.value("dead_letters")["dead_letters"] == []
    assert member.value("retry_dead_letters", bot=mailbox, seqs=[seq]) == {"retried": 1}
    again = member.take_one()
    assert (again["seq"], again["attempt"], again["group"]) == (seq, 1, "workers")
    assert member.code("dead_letters", bot=f"{name}/nobody") == "unknown_bot"


def test_what_became_of_a_message_names_the_group(shared: Worker, name: str) -> None:
    sender, member = shared.session(f"{name}-sender"), shared.session(f"{name}-member")
    member.subscribe(name, group="workers")
    message = to_channel(name, 1)
    [seq] = sender.publish(message)
    member.take_one()
    [fate] = sender.value("message", id=message["id"])["mailboxes"]
    assert (fate["bot_id"], fate["bot"], fate["channel"], fate["group"]) == (None, None, name, "workers")
    assert (fate["state"], fate["held_by"]) == ("in_flight", f"{name}-member")
    member.value("ack", seqs=[seq])
    [subscription] = sender.value("subscriptions", channel=name)["subscriptions"]
    assert (subscription["bot"], subscription["group"]) == (f"{name}-member", "workers")
