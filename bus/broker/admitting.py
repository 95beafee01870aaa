"""Which connections may come in: the decision behind each handshake.

Owns the reading of an authentication request (RFC 27, ZAP 1.0), and the rule for peers without a key: a socket that
is bound to loopback takes them from loopback only. Whatever is not recognised is refused.

Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..wire.addresses import is_local

__all__ = ["Origin", "ZapVerdict", "admit", "origin_of"]

_VERSION = b"1.0"

_FIELDS = 6
"""Parts of a request before the credentials: version, number, domain, address, routing id, mechanism."""


class Origin(NamedTuple):
    """Where a socket's peers may come from: loopback, or anywhere that can reach it."""

    anywhere: bool


class ZapVerdict(NamedTuple):
    """The answer to a request: `reason` is empty for a peer that may come in, and says why for one that may not."""

    number: bytes
    address: str
    reason: str
    refusal: bytes = b"400"
    """The status of a refusal: 400, or 500 if the worker failed."""

    @property
    def parts(self) -> list[bytes]:
        """The answer's parts, after the address of whoever asked."""
        status = self.refusal if self.reason else b"200"
        return [_VERSION, self.number, status, self.reason.encode(), b"", b""]


def origin_of(address: str) -> Origin:
    """Return where the peers of a socket may come from, by the address that it is bound to.

    The permissions of its path guard an `ipc://` socket. An address that other machines can reach was allowed by
    `listen.insecure`.
    """
    return Origin(anywhere=not address.startswith("tcp://") or not is_local(address))


def admit(request: Sequence[bytes], origins: Mapping[bytes, Origin]) -> ZapVerdict:
    """Decide about a request, by the origins of each domain. Raise ValueError if it is malformed."""
    if len(request) < _FIELDS:
        raise ValueError(f"an authentication request of {len(request)} parts")
    version, number, domain, peer, _routing_id, mechanism = request[:_FIELDS]
    address = peer.decode("ascii", "backslashreplace")
    if version != _VERSION:
        raise ValueError(f"an authentication request of version {version[:10]!r}")
    if mechanism != b"NULL":
        return ZapVerdict(number, address, "this mechanism is not supported")
    origin = origins.get(domain)
    if origin is None:
        return ZapVerdict(number, address, "this socket is unknown")
    if not origin.anywhere and not _is_loopback(address):
        return ZapVerdict(number, address, "only this machine may connect")
    return ZapVerdict(number, address, "")


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback
