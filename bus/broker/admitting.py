"""Which connections may come in: the decision behind each handshake.

Owns the reading of an authentication request (RFC 27, ZAP 1.0), and two rules. Without keys, a socket that is bound
to loopback takes peers from loopback only. With keys, it takes those whose key is valid, from anywhere, and all
that they send bears their key. Whatever is not recognised is refused.

Pure: time is an argument.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..core.keyring import Keyring
from ..wire.addresses import is_local
from ..wire.keys import KEY_BYTES, public_text

__all__ = ["AnyKey", "Door", "KeyDoor", "Origin", "ZapVerdict", "admit", "origin_of"]

_VERSION = b"1.0"

_FIELDS = 6
"""Parts of a request before the credentials: version, number, domain, address, routing id, mechanism."""


class Origin(NamedTuple):
    """Where a socket's peers may come from, without keys: loopback, or anywhere that can reach it."""

    anywhere: bool


class KeyDoor(NamedTuple):
    """A socket that takes peers with a key; whether it is the tap's."""

    keyring: Keyring
    is_tap: bool


class AnyKey(NamedTuple):
    """The command socket of a worker with keys that stands by, and knows none of them: peers hear who serves."""


Door = Origin | KeyDoor | AnyKey


class ZapVerdict(NamedTuple):
    """The answer to a request: `reason` is empty for a peer that may come in, and says why for one that may not."""

    number: bytes
    address: str
    reason: str
    refusal: bytes = b"400"
    """The status of a refusal: 400, or 500 if the worker failed."""
    user: str = ""
    """The key of a peer that may come in, which its frames will bear."""
    bot: str | None = None
    """Whose key was refused, if that is known."""
    key: str | None = None
    """The key that was refused."""

    @property
    def parts(self) -> list[bytes]:
        """The answer's parts, after the address of whoever asked. The peer learns only the status."""
        status = self.refusal if self.reason else b"200"
        return [_VERSION, self.number, status, self.reason.encode(), self.user.encode(), b""]


def origin_of(address: str) -> Origin:
    """Return where the peers of a socket may come from, by the address that it is bound to.

    The permissions of its path guard an `ipc://` socket. An address that other machines can reach was allowed by
    `listen.insecure`.
    """
    return Origin(anywhere=not address.startswith("tcp://") or not is_local(address))


def admit(request: Sequence[bytes], doors: Mapping[bytes, Door], wall: str) -> ZapVerdict:
    """Decide about a request at a wall time, by the doors of each domain. Raise ValueError if it is malformed."""
    if len(request) < _FIELDS:
        raise ValueError(f"an authentication request of {len(request)} parts")
    version, number, domain, peer, _routing_id, mechanism, *credentials = request
    address = peer.decode("ascii", "backslashreplace")
    if version != _VERSION:
        raise ValueError(f"an authentication request of version {version[:10]!r}")
    door = doors.get(domain)
    if isinstance(door, KeyDoor | AnyKey):
        if mechanism != b"CURVE":
            return ZapVerdict(number, address, "only peers with a key may connect")
        return _recognise(ZapVerdict(number, address, ""), door, credentials, wall)
    if mechanism != b"NULL":
        return ZapVerdict(number, address, "this mechanism is not supported")
    if door is None:
        return ZapVerdict(number, address, "this socket is unknown")
    if not door.anywhere and not _is_loopback(address):
        return ZapVerdict(number, address, "only this machine may connect")
    return ZapVerdict(number, address, "")


def _recognise(verdict: ZapVerdict, door: KeyDoor | AnyKey, credentials: Sequence[bytes], wall: str) -> ZapVerdict:
    """Decide about a peer that has proved to have the secret half of a key."""
    if [len(each) for each in credentials] != [KEY_BYTES]:
        raise ValueError("an authentication request without one key")
    public_key = public_text(credentials[0])
    if isinstance(door, AnyKey):
        return verdict._replace(user=public_key)
    principal = door.keyring.come(public_key, wall, to_tap=door.is_tap)
    if principal is not None:
        return verdict._replace(user=public_key)
    fault, bot = door.keyring.fault(public_key, wall), door.keyring.bot_of(public_key)
    return verdict._replace(reason=fault, bot=bot, key=public_key)


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback
