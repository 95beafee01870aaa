"""Addresses that a bot can connect to, or a worker listen at, and what is said of those that they cannot."""

from __future__ import annotations

import pytest

from bus.configuration import parse_settings
from bus.settings import SettingsError
from bus.wire.addresses import address_fault, advertisable, listening_fault, nearest, reached_by, without_password


@pytest.mark.parametrize(
    "address",
    [
        "tcp://127.0.0.1:7710",
        "tcp://localhost:1",
        "tcp://bus.example.org:65535",
        "tcp://[::1]:7710",
        "tcp://[fe80::1%eth0]:7710",
        "tcp://eth0:0;127.0.0.1:7710",
        "ipc:///run/posthouse/bus.sock",
        "ipc:///tmp/a folder/bus.sock",
        "ipc://@abstract",
        "inproc://name",
    ],
)
def test_an_address_may_be(address: str) -> None:
    assert address_fault(address) is None


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("", "begin with"),
        ("localhost:7710", "begin with"),
        ("127.0.0.1", "begin with"),
        ("tcp:/127.0.0.1:7710", "begin with"),
        ("tcp://127.0.0.1:99999", "1 to 65535"),
        ("tcp://127.0.0.1:0", "1 to 65535"),
        ("tcp://127.0.0.1:-1", "1 to 65535"),
        ("tcp://127.0.0.1:*", "1 to 65535"),
        ("tcp://127.0.0.1:seven", "1 to 65535"),
        ("tcp://127.0.0.1:\u0667\u0667\u0661\u0660", "1 to 65535"),
        ("tcp://127.0.0.1:000007710", "1 to 65535"),
        ("tcp://127.0.0.1", "port is missing"),
        ("tcp://127.0.0.1:", "port is missing"),
        ("tcp://[::1]", "port is missing"),
        ("tcp://", "host is missing"),
        ("tcp://:7710", "host is missing"),
        ("tcp://*:7710", "host is missing"),
        ("tcp://::1:7710", "in brackets"),
        ("tcp://[::1:7710", "in brackets"),
        ("tcp://[nonsense]:7710", "not an IP address"),
        ("tcp://300.1.1.1:7710", "not an IP address"),
        ("tcp://127.0.0.1:7710/", "after the port"),
        ("tcp://127.0.0.1:7710/bus", "after the port"),
        ("tcp://127.0.0.1:7710?x=1", "after the port"),
        ("tcp://ann:secret@127.0.0.1:7710", "user name"),
        ("tcp://127.0.0.1: 7710", "space"),
        (" tcp://127.0.0.1:7710", "is not supported"),
        ("tcp://127.0.0.1:7710 ", "space"),
        ("tcp://127.0.0.1:7710\n", "cannot be printed"),
        ("tcp://\udcff:7710", "cannot be printed"),
        ("ipc://a\0b", "cannot be printed"),
        ("http://127.0.0.1:7710", "'http' is not supported"),
        ("TCP://127.0.0.1:7710", "'TCP' is not supported"),
        ("udp://127.0.0.1:7710", "'udp' is not supported"),
        ("ipc://", "path of the socket is missing"),
        ("ipc:///" + "é" * 60, "longer than 107 bytes"),
        ("inproc://", "missing"),
    ],
)
def test_an_address_cannot_be(address: str, fault: str) -> None:
    assert fault in (address_fault(address) or "")


@pytest.mark.parametrize("path", ["/" + "x" * 106, "/" + "é" * 53], ids=["file", "two bytes"])
def test_a_path_of_107_bytes_is_one_to_connect_to_and_to_listen_at(path: str) -> None:
    assert address_fault(f"ipc://{path}") is None
    assert listening_fault(f"ipc://{path}") is None


@pytest.mark.parametrize("path", ["/" + "x" * 107, "/" + "é" * 54], ids=["file", "two bytes"])
@pytest.mark.parametrize("key", ["command", "tap"])
def test_a_path_that_is_too_long_is_refused_with_the_configuration(path: str, key: str) -> None:
    assert "longer than 107 bytes" in (address_fault(f"ipc://{path}") or "")
    with pytest.raises(SettingsError, match=rf"listen\.{key} .*longer than 107 bytes"):
        parse_settings(f'[listen]\n{key} = "ipc://{path}"\n')


def test_nobody_listens_at_an_abstract_name() -> None:
    assert "every user of this machine" in (listening_fault("ipc://@name") or "")


def test_a_password_is_not_shown() -> None:
    assert without_password("tcp://ann:sec@ret@127.0.0.1:7710") == "tcp://…@127.0.0.1:7710"
    assert without_password("tcp://127.0.0.1:7710") == "tcp://127.0.0.1:7710"
    assert without_password("ipc://@abstract") == "ipc://@abstract"


@pytest.mark.parametrize("host", ["*", "0.0.0.0", "[::]"])
def test_an_address_of_all_a_machine_has_is_none_to_connect_to(host: str) -> None:
    here = "[::1]" if host == "[::]" else "127.0.0.1"
    assert nearest(f"tcp://{host}:7710") == f"tcp://{here}:7710"
    assert advertisable(f"tcp://{host}:7710") is None
    assert reached_by(f"tcp://{host}:7711", "tcp://bus.example.org:7710") == "tcp://bus.example.org:7711"
