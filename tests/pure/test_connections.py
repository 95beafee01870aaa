"""Connections: descriptors are reused, and the end of a connection may be noticed before its last frames."""

from __future__ import annotations

from bus.broker.connections import Connections, Notice


def test_a_connection_takes_its_address_with_it() -> None:
    connections = Connections(64)
    connections.opened(10, 0.0)
    connections.greeted(b"a", 10)
    assert connections.take_lost(empty=True) == []
    connections.closed(10)
    assert len(connections) == 0
    assert connections.take_lost(empty=True) == [b"a"]
    assert connections.take_lost(empty=True) == []


def test_its_frames_are_read_first() -> None:
    """At most as many as wait for each connection, and they are read in turn."""
    connections = Connections(64)
    for descriptor, address in ((10, b"a"), (11, b"b")):
        connections.opened(descriptor, 0.0)
        connections.greeted(address, descriptor)
    connections.closed(10)
    connections.read(127)
    assert connections.take_lost(empty=False) == []
    connections.read(1)
    assert connections.take_lost(empty=False) == [b"a"]


def test_a_descriptor_that_is_used_again_keeps_the_new_session() -> None:
    connections = Connections(64)
    connections.opened(10, 0.0)
    connections.greeted(b"a", 10)
    connections.closed(10)
    connections.opened(10, 0.0)
    connections.greeted(b"b", 10)
    assert connections.take_lost(empty=True) == [b"a"]
    connections.closed(10)
    assert connections.take_lost(empty=True) == [b"b"]


def test_a_hello_of_a_connection_that_is_gone_is_lost() -> None:
    connections = Connections(64)
    connections.opened(10, 0.0)
    connections.closed(10)
    connections.greeted(b"a", 10)
    assert connections.take_lost(empty=False) == [], "it may have sent more after its hello"
    assert connections.take_lost(empty=True) == [b"a"]


def test_a_late_hello_ends_with_the_descriptor_at_the_latest() -> None:
    connections = Connections(64)
    connections.opened(10, 0.0)
    connections.closed(10)
    connections.opened(10, 0.0)
    connections.greeted(b"new", 10)
    connections.greeted(b"old", 10)
    assert connections.take_lost(empty=True) == []
    connections.closed(10)
    assert sorted(connections.take_lost(empty=True)) == [b"new", b"old"]


def test_an_address_that_says_hello_again_was_lost_before() -> None:
    connections = Connections(64)
    connections.opened(10, 0.0)
    connections.greeted(b"a", 10)
    connections.closed(10)
    connections.opened(11, 0.0)
    assert connections.returned(b"a")
    assert not connections.returned(b"a")
    connections.greeted(b"a", 11)
    assert connections.take_lost(empty=True) == []


def test_hello_again_on_a_connection_changes_nothing() -> None:
    connections = Connections(64)
    connections.opened(10, 0.0)
    connections.greeted(b"a", 10)
    connections.greeted(b"a", 10)
    connections.closed(10)
    assert connections.take_lost(empty=True) == [b"a"]


def test_connections_within_the_process_do_not_break() -> None:
    connections = Connections(64)
    connections.greeted(b"a", None)
    connections.closed(10)
    assert connections.take_lost(empty=True) == []


# ── What operators are told ──────────────────────────────────────────────────────────────────────────────

MANY = 10_000


def test_connections_that_never_say_hello_are_told_of_when_there_are_twice_as_many() -> None:
    connections = Connections(64)

    def told(now: float) -> list[int]:
        return [notice.fields["connections"] for notice in connections.look(now, MANY)]

    for descriptor in range(99):
        connections.opened(descriptor, 1.0)
    assert told(31.0) == []
    connections.opened(99, 2.0)
    assert told(31.5) == [], "it may be within its handshake, and a second has not passed"
    assert told(32.0) == [100]
    assert told(60.0) == []
    for descriptor in range(100, 200):
        connections.opened(descriptor, 60.0)
    assert told(89.0) == []
    assert told(90.0) == [200]
    for descriptor in range(200):
        connections.closed(descriptor)
    assert told(91.0) == []
    for descriptor in range(100):
        connections.opened(descriptor, 100.0)
    assert told(130.0) == [100]


def test_connections_with_a_session_are_not_silent() -> None:
    connections = Connections(64)
    for descriptor in range(500):
        connections.opened(descriptor, 0.0)
        connections.greeted(b"%d" % descriptor, descriptor)
    assert connections.look(100.0, MANY) == []


def test_descriptors_that_are_used_up_are_told_of_once() -> None:
    connections = Connections(64)
    for descriptor in range(10, 90):
        connections.opened(descriptor, 0.0)
        connections.greeted(b"%d" % descriptor, descriptor)
    assert connections.look(10.0, 100) == []
    connections.opened(90, 10.0)
    assert connections.look(11.0, 100) == [Notice("descriptors_scarce", {"connections": 81, "descriptors": 100})]
    connections.opened(91, 11.0)
    assert connections.look(12.0, 100) == []
    for descriptor in range(10, 92):
        connections.closed(descriptor)
    assert connections.look(13.0, 100) == []
    connections.opened(95, 13.0)
    assert [notice.event for notice in connections.look(14.0, 100)] == ["descriptors_scarce"]
