"""Keys as texts: what people copy, files hold and frames carry.

Owns the three kinds of text, which begin with `php_` (a public key), `phs_` (a secret key) and `phi_` (an
invitation), go on in base64url without padding, and end with a checksum over everything before it, the prefix
included. So a mistyped character, a text that was cut off, and a secret in the place of a public key are told
apart. Unlike Z85, ZeroMQ's own form, they need no quotes in a shell or a URL. Public keys in Z85 are read too.

No message of an error repeats what was given, because that may be a secret.

Pure.
"""

from __future__ import annotations

import base64
import binascii
import re

import msgspec

from ..errors import InvalidKey
from .addresses import address_fault

__all__ = [
    "KEY_BYTES",
    "Invitation",
    "canonical_public",
    "invitation_text",
    "public_text",
    "read_invitation",
    "read_public",
    "read_secret",
    "secret_text",
]

KEY_BYTES = 32
"""Bytes of a public or secret key of Curve25519."""

_CHECKSUM_BYTES = 2

_VERSION = 1
"""The first byte of an invitation: what follows it may change."""

_KINDS = {"php_": "a public key (php_…)", "phs_": "a secret key (phs_…)", "phi_": "an invitation (phi_…)"}

_PREFIX_CHARACTERS = 4

_KEY_CHARACTERS = _PREFIX_CHARACTERS + ((KEY_BYTES + _CHECKSUM_BYTES) * 8 + 5) // 6

_INCOMPLETE = "this invitation is not complete: ask for another"

_OTHER_CHARACTER = re.compile(r"[^A-Za-z0-9_-]")

_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"

_Z85_CHARACTERS = KEY_BYTES // 4 * 5


class Invitation(msgspec.Struct, frozen=True, kw_only=True):
    """What lets one bot enrol itself once: where the worker is, which one it is, and a secret that is used up."""

    secret: bytes
    worker: bytes
    bot: str
    url: str
    tap: str | None = None

    def __repr__(self) -> str:
        return f"<Invitation of {self.bot!r} to {self.url}>"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        """Return what may be shown: not the secret."""
        return [("bot", self.bot), ("url", self.url)]


# ── Writing ──────────────────────────────────────────────────────────────────────────────────────────────


def public_text(key: bytes) -> str:
    """Return the text of a public key, the only one of its forms that is stored, sent and compared."""
    return _text("php_", key)


def secret_text(key: bytes) -> str:
    """Return the text of a secret key."""
    return _text("phs_", key)


def invitation_text(invitation: Invitation) -> str:
    """Return the text of an invitation."""
    texts = "\0".join((invitation.bot, invitation.url, invitation.tap or ""))
    return _written("phi_", bytes([_VERSION]) + invitation.secret + invitation.worker + texts.encode())


def _text(prefix: str, key: bytes) -> str:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes")
    return _written(prefix, key)


def _written(prefix: str, payload: bytes) -> str:
    data = payload + _checksum(prefix, payload)
    return prefix + base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _checksum(prefix: str, payload: bytes) -> bytes:
    return binascii.crc_hqx(prefix.encode() + payload, 0xFFFF).to_bytes(_CHECKSUM_BYTES, "big")


# ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────


def read_public(text: str) -> bytes:
    """Return the bytes of a public key, written as `php_…` or in Z85. Raise InvalidKey with what is wrong."""
    if len(text) == _Z85_CHARACTERS and not text.startswith(tuple(_KINDS)):
        return _read_z85(text)
    return _read_key("php_", text)


def canonical_public(text: str) -> str:
    """Return a public key in the form `php_…`. Raise InvalidKey with what is wrong."""
    return public_text(read_public(text))


def read_secret(text: str) -> bytes:
    """Return the bytes of a secret key. Raise InvalidKey with what is wrong."""
    return _read_key("phs_", text)


def read_invitation(text: str) -> Invitation:
    """Return what an invitation says. Raise InvalidKey with what is wrong."""
    payload = _payload("phi_", text)
    if payload[:1] != bytes([_VERSION]):
        raise InvalidKey("this invitation was made by a later version: install that version, or ask for another")
    secret, worker, texts = payload[1:33], payload[33:65], payload[65:]
    try:
        bot, url, tap = texts.decode().split("\0")
    except ValueError:  # not UTF-8, or fewer texts
        raise InvalidKey(_INCOMPLETE) from None
    if not bot or address_fault(url) is not None or (tap and address_fault(tap) is not None):
        raise InvalidKey(_INCOMPLETE)
    return Invitation(secret=secret, worker=worker, bot=bot, url=url, tap=tap or None)


def _read_key(prefix: str, text: str) -> bytes:
    payload = _payload(prefix, text)
    if len(payload) != KEY_BYTES:
        raise InvalidKey(_length_fault(prefix, text))
    return payload


def _payload(prefix: str, text: str) -> bytes:
    """Return what a text says between its prefix and its checksum."""
    kind = _KINDS[prefix]
    if not text.startswith(prefix):
        other = _KINDS.get(text[:_PREFIX_CHARACTERS])
        if other is not None:
            raise InvalidKey(f"this is {other}, and {kind} is wanted here")
        raise InvalidKey(f"this does not begin with {prefix}, as {kind} does")
    if (found := _OTHER_CHARACTER.search(text)) is not None:
        raise InvalidKey(f"{kind} has letters, digits, - and _ only, and character {found.start() + 1} is another")
    if prefix != "phi_" and len(text) != _KEY_CHARACTERS:
        raise InvalidKey(_length_fault(prefix, text))
    encoded = text[_PREFIX_CHARACTERS:]
    if len(encoded) % 4 == 1:  # the length of no base64
        raise InvalidKey(_checksum_fault(prefix))
    data = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    payload = data[:-_CHECKSUM_BYTES]
    # Compared as texts, because base64 has more than one text for some bytes.
    if len(data) <= _CHECKSUM_BYTES or _written(prefix, payload) != text:
        raise InvalidKey(_checksum_fault(prefix))
    return payload


def _length_fault(prefix: str, text: str) -> str:
    what = "it was cut off" if len(text) < _KEY_CHARACTERS else "something was added to it"
    return f"{_KINDS[prefix]} has {_KEY_CHARACTERS} characters, and this has {len(text)}: {what}"


def _checksum_fault(prefix: str) -> str:
    if prefix == "phi_":
        return "this invitation was mistyped or cut off: its checksum is wrong; copy all of it"
    return f"{_KINDS[prefix]} was mistyped: its checksum is wrong; copy it again"


def _read_z85(text: str) -> bytes:
    """Return the bytes of a public key in Z85 (ZeroMQ's RFC 32)."""
    key = b""
    for start in range(0, _Z85_CHARACTERS, 5):
        number = 0
        for place, character in enumerate(text[start : start + 5], start + 1):
            digit = _Z85.find(character)
            if digit < 0:
                raise InvalidKey(
                    f"this is not a public key (php_…), nor one in Z85: character {place} is in neither"
                )
            number = number * 85 + digit
        if number >= 2**32:
            raise InvalidKey("this is not a public key (php_…), nor one in Z85")
        key += number.to_bytes(4, "big")
    return key
