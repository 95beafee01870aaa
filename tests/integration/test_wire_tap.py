"""The tap: a plain SUB sees every channel message as a chain."""

from __future__ import annotations

from .wire import TIME, seqs_of, to_bot, to_channel
from .wire_worker import Worker


def test_the_tap_shows_channel_messages_as_a_chain(shared: Worker, name: str) -> None:
    sender, receiver = shared.session(f"{name}-sender"), shared.session(name)
    tap = shared.tap_reader(name, f"{name}-connected")
    tap.wait_until_connected(sender, f"{name}-connected")
    message = to_channel(name, {"n": 0}, headers={"a": "b"}, message_type="event")
    [first] = sender.publish(message)
    [second, _, third] = sender.publish(
        to_channel(name, 1), to_channel(f"{name}2", "another channel"), to_channel(name, 2)
    )
    sender.publish(to_bot(name, "not for the tap"))
    receiver.take_one()
    [fourth] = sender.publish(to_channel(name, 3))
    topic, shown = tap.receive()
    assert topic == b"channel/" + name.encode() + b"\0"
    assert TIME.fullmatch(shown["timestamp"])
    assert shown == {
        "seq": first,
        "id": message["id"],
        "sender_bot_id": sender.bot_id,
        "sender_bot_name": f"{name}-sender",
        "recipient": {"type": "channel", "name": name},
        "message_type": "event",
        "body": {"n": 0},
        "reply_to": None,
        "headers": {"a": "b"},
        "timestamp": shown["timestamp"],
        "prev_seq": 0,
    }
    chain = [tap.receive() for _ in range(3)]
    assert {each for each, _ in chain} == {topic}
    assert [(each["seq"], each["prev_seq"]) for _, each in chain] == [
        (second, first), (third, second), (fourth, third)
    ]  # fmt: skip
    assert seqs_of(sender.history(channel=name)) == [fourth, third, second, first]


def test_the_tap_goes_on_after_a_restart(worker: Worker) -> None:
    sender = worker.session("sender")
    [first] = sender.publish(to_channel("news", 1))
    worker.kill()
    worker.start()
    sender.hello("sender")
    tap = worker.tap_reader("news", "connected")
    tap.wait_until_connected(sender, "connected")
    [second] = sender.publish(to_channel("news", 2))
    _, shown = tap.receive()
    assert (shown["seq"], shown["prev_seq"]) == (second, first)
