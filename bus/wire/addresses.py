"""Addresses that a bot can connect to, and those that a worker can listen at, checked before ZeroMQ is called.

Owns both checks, which addresses other machines can reach, and whether two are equal. ZeroMQ refuses some bad
addresses with "Invalid argument", wraps a port of 99999 to another number, and keeps trying others without an
error.

Pure.
"""

from __future__ import annotations

import ipaddress
import re

from .limits import SOCKET_PATH_BYTES_MAX

__all__ = [
    "address_fault",
    "advertisable",
    "canonical",
    "is_ipv6",
    "is_local",
    "listening_fault",
    "nearest",
    "reached_by",
    "tap_address",
    "without_password",
]

_PORT_MAX = 65_535

_TCP = re.compile(r"(?P<host>\[[^\]\[]*\]|[^:\[\]]*)(?::(?P<port>[^:]*))?")
_NUMBERS = re.compile(r"[0-9.]+")
_IPV6_IN_BRACKETS = "an IPv6 address is written in brackets, as in tcp://[::1]:7710"


# ── Connecting ───────────────────────────────────────────────────────────────────────────────────────────


def address_fault(address: str) -> str | None:
    """Return why an address cannot be connected to, or None if it may be possible."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return "it does not begin with tcp:// or ipc://"
    if not address.isprintable():
        return "it has characters that cannot be printed"
    match scheme:
        case "tcp":
            return _tcp_fault(rest)
        case "ipc":
            if not rest:
                return "the path of the socket is missing"
            return _path_fault(rest)
        case "inproc":
            if not rest:
                return "the name after inproc:// is missing"
        case _:
            return f"{scheme!r} is not supported; use tcp or ipc"
    return None


def _tcp_fault(rest: str) -> str | None:
    if any(character.isspace() for character in rest):
        return "it contains a space"
    if "@" in rest:
        return "it has a user name or password, which is not supported"
    if any(mark in rest for mark in "/?#"):
        return "it has something after the port"
    # ZeroMQ's own syntax: the source address comes first.
    target = rest.rpartition(";")[2]
    found = _TCP.fullmatch(target)
    if found is None:
        return _IPV6_IN_BRACKETS
    return _host_fault(found["host"]) or _port_fault(found["port"])


def _host_fault(host: str) -> str | None:
    if host in ("", "*", "[]"):
        return "the host is missing"
    bare = host.strip("[]").partition("%")[0]
    if host.startswith("[") or _NUMBERS.fullmatch(host):
        try:
            ipaddress.ip_address(bare)
        except ValueError:
            return f"{bare} is not an IP address"
    return None


def _port_fault(port: str | None) -> str | None:
    if not port:
        return "the port is missing"
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= _PORT_MAX):
        return f"{port} is not a port, which is a number from 1 to {_PORT_MAX}"
    return None


def _path_fault(path: str) -> str | None:
    if len(path.encode()) > SOCKET_PATH_BYTES_MAX:
        return f"the path of the socket is longer than {SOCKET_PATH_BYTES_MAX} bytes"
    return None


def without_password(address: str) -> str:
    """Return an address without its password, to be shown and logged."""
    scheme, separator, rest = address.partition("://")
    return f"{scheme}{separator}…@{rest.rpartition('@')[2]}" if "@" in rest and scheme != "ipc" else address


# ── Listening ────────────────────────────────────────────────────────────────────────────────────────────


def listening_fault(address: str) -> str | None:
    """Return why a worker cannot listen at an address, or None if it may be possible."""
    scheme, separator, rest = address.partition("://")
    if not separator or scheme not in ("tcp", "ipc", "inproc"):
        return "it begins with neither tcp:// nor ipc://"
    if not address.isprintable():
        return "it has characters that cannot be printed"
    if scheme == "tcp":
        return _listening_tcp_fault(rest)
    if not rest or rest == "@":
        return "the path after ipc:// is missing" if scheme == "ipc" else "the name after inproc:// is missing"
    if scheme == "ipc" and rest.startswith("@"):
        return "an abstract name has no permissions, so every user of this machine could connect"
    if scheme == "ipc" and rest == "*":
        return "bots could not know the path that * stands for"
    return _path_fault(rest) if scheme == "ipc" else None


def _listening_tcp_fault(rest: str) -> str | None:
    parts = _TCP.fullmatch(rest)
    if parts is None:
        return _IPV6_IN_BRACKETS
    host, port = parts["host"], parts["port"]
    if host in ("", "[]"):
        return "the host is missing"
    if host.startswith("[") and not _ip(host):
        return f"{host[1:-1]} is not an IPv6 address"
    if any(character.isspace() or character in "/?#@;" for character in rest):
        return "tcp:// takes a host and a port, and nothing else"
    return None if port == "*" else _port_fault(port)


def is_local(address: str) -> bool:
    """Return True if only this machine can reach an address."""
    scheme, _, rest = address.partition("://")
    if scheme != "tcp":
        return scheme in ("ipc", "inproc")
    host = rest.rpartition(":")[0]
    found = _ip(host)
    return found.is_loopback if found else host == "localhost"


def nearest(address: str) -> str:
    """Return where bots of the same machine connect to a worker that listens at an address, perhaps at all."""
    scheme, _, rest = address.partition("://")
    host, _, port = rest.rpartition(":")
    if scheme != "tcp" or not _is_any(host):
        return address
    found = _ip(host)
    return f"tcp://[::1]:{port}" if found is not None and found.version == 6 else f"tcp://127.0.0.1:{port}"


def advertisable(address: str) -> str | None:
    """Return an address to tell others, for a worker that listens there; None if it says not where that is.

    It may be one of loopback, which is right for those who got in there.
    """
    scheme, _, rest = address.partition("://")
    if scheme == "tcp":
        return None if _is_any(rest.rpartition(":")[0]) else address
    return address if rest.startswith("/") else None


def tap_address(address: str) -> str | None:
    """Return a tap's address for welcomes; None if it is the path of a socket, and relative."""
    scheme, _, rest = address.partition("://")
    return None if scheme == "ipc" and not rest.startswith("/") else address


def reached_by(address: str, url: str) -> str:
    """Return where a client finds a tap that has this address, if it is connected to the worker at `url`.

    A tap that is bound to all addresses of its machine is at the one by which the client came.
    """
    scheme, _, rest = address.partition("://")
    url_scheme, _, target = url.partition("://")
    host, _, port = rest.rpartition(":")
    if scheme != "tcp" or not _is_any(host) or url_scheme != "tcp":
        return nearest(address)
    return f"tcp://{target.rpartition(';')[2].rpartition(':')[0]}:{port}"


def is_ipv6(address: str) -> bool:
    """Return True if an address has an IPv6 host, for which ZeroMQ needs an option."""
    return address.startswith("tcp://[")


def canonical(address: str) -> str:
    """Return the canonical form of an address."""
    scheme, _, rest = address.partition("://")
    if scheme != "tcp":
        return address
    host, _, port = rest.rpartition(":")
    found = _ip("127.0.0.1" if host == "localhost" else host)
    return f"tcp://{found or host}:{port.lstrip('0')}"


def _is_any(host: str) -> bool:
    """Return True if a host stands for all addresses of its machine."""
    found = _ip(host)
    return host == "*" or (found is not None and found.is_unspecified)


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return a host's IP address, for an IPv4-mapped IPv6 address the IPv4 one; None for a name."""
    try:
        if not host.startswith("["):
            return ipaddress.IPv4Address(host)
        found = ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        return None
    return found.ipv4_mapped or found
