"""Addresses that a bot can connect to, checked before ZeroMQ is asked.

Owns that check. ZeroMQ refuses some bad addresses with "Invalid argument", takes a port of 99999 for another one,
and goes on looking for others until somebody gives up waiting.

Pure.
"""

from __future__ import annotations

import ipaddress
import re

__all__ = ["address_fault", "without_password"]

_PORT_MAX = 65_535
_IPC_PATH_BYTES_MAX = 107
"""What fits into a socket's address, with the byte that ends it."""

_TCP = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*)(?P<port>:[^:]*)?")
_NUMBERS = re.compile(r"[0-9.]+")


def address_fault(address: str) -> str | None:
    """Return why nothing can be connected to at an address, or None if something may be."""
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
            if len(rest.encode()) > _IPC_PATH_BYTES_MAX:
                return f"the path of the socket is longer than {_IPC_PATH_BYTES_MAX} bytes"
        case "inproc":
            if not rest:
                return "the name after inproc:// is missing"
        case _:
            return f"posthouse does not speak {scheme!r}; it speaks tcp and ipc"
    return None


def _tcp_fault(rest: str) -> str | None:
    if any(character.isspace() for character in rest):
        return "it has a space in it"
    if "@" in rest:
        return "it has a user name or password, which posthouse does not know"
    if any(mark in rest for mark in "/?#"):
        return "it has something after the port"
    # ZeroMQ's own form, in which the address to connect from stands first.
    target = rest.rpartition(";")[2]
    found = _TCP.fullmatch(target)
    if found is None:
        return "a host with colons in it, an IPv6 address, is written in brackets: tcp://[::1]:7710"
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
    if port in (None, ":"):
        return "the port is missing"
    digits = (port or "")[1:]
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and 1 <= int(digits) <= _PORT_MAX):
        return f"a port is a number from 1 to {_PORT_MAX}"
    return None


def without_password(address: str) -> str:
    """Return an address as it can be shown and logged."""
    scheme, separator, rest = address.partition("://")
    return f"{scheme}{separator}…@{rest.rpartition('@')[2]}" if "@" in rest and scheme != "ipc" else address
