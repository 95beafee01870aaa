"""Addresses that a worker can listen at, checked before ZeroMQ is asked.

Owns what a bindable address is, which of them other machines can reach, and whether two are the same.

Pure.
"""

from __future__ import annotations

import ipaddress
import re

__all__ = ["canonical", "is_ipv6", "is_local", "listening_fault"]

_PORT_MAX = 65_535

_TCP = re.compile(r"(?P<host>\[[^\]\[]*\]|[^:\[\]]*)(?::(?P<port>[^:]*))?")


def listening_fault(address: str) -> str | None:
    """Return why nothing can listen at an address, or None if a worker may try."""
    scheme, separator, rest = address.partition("://")
    if not separator or scheme not in ("tcp", "ipc", "inproc"):
        return "it begins with neither tcp:// nor ipc://"
    if not address.isprintable():
        return "it has characters that cannot be printed"
    if scheme == "tcp":
        return _tcp_fault(rest)
    if not rest or rest == "@":
        return "the path after ipc:// is missing" if scheme == "ipc" else "the name after inproc:// is missing"
    if scheme == "ipc" and rest == "*":
        return "bots could not know the path that * stands for"
    return None


def _tcp_fault(rest: str) -> str | None:
    parts = _TCP.fullmatch(rest)
    if parts is None:
        return "an IPv6 address is written in brackets, as in tcp://[::1]:7710"
    host, port = parts["host"], parts["port"]
    if host in ("", "[]"):
        return "the host is missing"
    if host.startswith("[") and not _ip(host):
        return f"{host[1:-1]} is not an IPv6 address"
    if any(character.isspace() or character in "/?#@;" for character in rest):
        return "tcp:// takes a host and a port, and nothing else"
    if not port:
        return "the port is missing"
    if port == "*":
        return None
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= _PORT_MAX):
        return f"{port} is not a port, which is a number from 1 to {_PORT_MAX}"
    return None


def is_local(address: str) -> bool:
    """Return True if only this machine can reach an address."""
    scheme, _, rest = address.partition("://")
    if scheme != "tcp":
        return scheme in ("ipc", "inproc")
    host = rest.rpartition(":")[0]
    found = _ip(host)
    return found.is_loopback if found else host == "localhost"


def is_ipv6(address: str) -> bool:
    """Return True if an address has an IPv6 address as its host, which ZeroMQ has to be told."""
    return address.startswith("tcp://[")


def canonical(address: str) -> str:
    """Return the one form that stands for all ways to write an address."""
    scheme, _, rest = address.partition("://")
    if scheme != "tcp":
        return address
    host, _, port = rest.rpartition(":")
    found = _ip("127.0.0.1" if host == "localhost" else host)
    return f"tcp://{found or host}:{port.lstrip('0')}"


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that a host is, an IPv4 address that is written as IPv6 as itself; None for a name."""
    try:
        if not host.startswith("["):
            return ipaddress.IPv4Address(host)
        found = ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        return None
    return found.ipv4_mapped or found
