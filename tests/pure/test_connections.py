"""Connections: descriptors are reused, and the end of a connection may be noticed before its last frames."""

from __future__ import annotations

from bus.broker.connections import Connections


def test_a_connection_takes_its_address_with_it() -> None:
    connections = Connections(64)
    connections.opened(10)
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
        connections.opened(descriptor)
        connections.greeted(address, descriptor)
    connections.closed(10)
    connections.read(127)
    assert connections.take_lost(empty=False) == []
    connections.read(1)
    assert connections.take_lost(empty=False) == [b"a"]


def test_a_descriptor_that_is_used_again_keeps_the_new_session() -> None:
    connections = Connections(64)
    connections.opened(10)
    connections.greeted(b"a", 10)
    connections.closed(10)
    connections.opened(10)
    connections.greeted(b"b", 10)
    assert connections.take_lost(empty=True) == [b"a"]
    connections.closed(10)
    assert connections.take_lost(empty=True) == [b"b"]


def test_a_hello_of_a_connection_that_is_gone_is_lost() -> None:
    connections = Connections(64)
    connections.opened(10)
    connections.closed(10)
    connections.greeted(b"a", 10)
    assert connections.take_lost(empty=False) == [], "it may have sent more after its hello"
    assert connections.take_lost(empty=True) == [b"a"]


def test_a_late_hello_ends_with_the_descriptor_at_the_latest() -> None:
    connections = Connections(64)
    connections.opened(10)
    connections.closed(10)
    connections.opened(10)
    connections.greeted(b"new", 10)
    connections.greeted(b"old", 10)
    assert connections.take_lost(empty=True) == []
    connections.closed(10)
    assert sorted(connections.take_lost(empty=True)) == [b"new", b"old"]


def test_an_address_that_says_hello_again_was_lost_before() -> None:
    connections = Connections(64)
    connections.opened(10)
    connections.greeted(b"a", 10)
    connections.closed(10)
    connections.opened(11)
    assert connections.returned(b"a")
    assert not connections.returned(b"a")
    connections.greeted(b"a", 11)
    assert connections.take_lost(empty=True) == []


def test_hello_again_on_a_connection_changes_nothing() -> None:
    connections = Connections(64)
    connections.opened(10)
    connections.greeted(b"a", 10)
    connections.greeted(b"a", 10)
    connections.closed(10)
    assert connections.take_lost(empty=True) == [b"a"]


def test_connections_within_the_process_do_not_break() -> None:
    connections = Connections(64)
    connections.greeted(b"a", None)
    connections.closed(10)
    assert connections.take_lost(empty=True) == []
