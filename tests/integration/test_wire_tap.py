"""The tap: a plain SUB sees every channel message as a chain."""

from __future__ import annotations

import zmq

import bus.testing
from bus.settings import Delivery, Settings

from .wire import TIME, TIMEOUT_SECONDS, TapReader, seqs_of, to_bot, to_channel
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


def test_heads_are_told_to_those_who_ask(worker: Worker) -> None:
    sender = worker.session("sender")
    plain = worker.tap_reader("news", "connected")
    plain.wait_until_connected(sender, "connected")
    asker = worker.tap_reader(heads=["news", "nothing"])
    told = dict([asker.receive(), asker.receive()])
    assert told == {
        b"head/news\0": {"channel": "news", "seq": 0},
        b"head/nothing\0": {"channel": "nothing", "seq": 0},
    }
    [_, last] = sender.publish(to_channel("news", 1), to_channel("news", 2))
    sender.publish(to_channel("newsletter", 3))
    assert wait_for_head(asker, "news", last) <= {0, last}
    assert [plain.receive()[0] for _ in range(2)] == [b"channel/news\0"] * 2
    worker.kill()
    worker.start()
    assert wait_for_head(asker, "news", last) <= {last}, "it is told from the log, which a restart does not change"
    sender.hello("sender")
    plain.wait_until_connected(sender, "connected")
    [third] = sender.publish(to_channel("news", 3))
    wait_for_head(asker, "news", third)
    assert plain.receive()[0] == b"channel/news\0", "who asks for no heads is shown none"


def wait_for_head(reader: TapReader, channel: str, seq: int) -> set[int]:
    """Read heads until a channel's has this seq; give all that it had."""
    seen: set[int] = set()
    while seq not in seen:
        topic, head = reader.receive()
        assert topic == f"head/{head['channel']}\0".encode()
        if head["channel"] == channel:
            seen.add(head["seq"])
    return seen


def test_whoever_comes_is_told_the_head_at_once(store_url: str) -> None:
    """Also where others listen to it already, and it is told again only tomorrow."""
    settings = Settings(delivery=Delivery(tap_head_seconds=86_400))
    readers: list[zmq.Socket[bytes]] = []
    with bus.testing.Worker(store_url, settings) as worker:
        for _ in range(3):
            reader = worker.context.socket(zmq.SUB)
            readers.append(reader)
            reader.connect(worker.tap_url)
            reader.subscribe(b"head/news\0")
            assert reader.poll(int(1000 * TIMEOUT_SECONDS))
            assert reader.recv_multipart() == [b"head/news\0", b'{"channel":"news","seq":0}']
        for reader in readers:
            reader.close(0)
