"""Keys as texts: each kind is read back, and everything else is refused in words that repeat no secret."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zmq.utils import z85

from bus.errors import InvalidKey
from bus.wire.keys import (
    Invitation,
    _written,
    canonical_public,
    invitation_text,
    public_text,
    read_invitation,
    read_public,
    read_secret,
    secret_text,
)

KEY = bytes(range(32))
PUBLIC, SECRET = public_text(KEY), secret_text(KEY)
INVITED = Invitation(
    secret=KEY, worker=KEY[::-1], bot="writer", url="tcp://127.0.0.1:7710", tap="tcp://127.0.0.1:7711"
)
INVITATION = invitation_text(INVITED)

keys = st.binary(min_size=32, max_size=32)


@given(keys)
def test_a_key_is_read_back(key: bytes) -> None:
    assert read_public(public_text(key)) == read_secret(secret_text(key)) == key
    assert canonical_public(public_text(key)) == public_text(key)


@given(keys, keys, st.sampled_from(["tcp://worker.example:7710", "ipc:///run/posthouse/worker ü.sock"]))
def test_an_invitation_is_read_back(secret: bytes, worker: bytes, url: str) -> None:
    invitation = Invitation(secret=secret, worker=worker, bot="writer", url=url)
    assert read_invitation(INVITATION) == INVITED
    assert read_invitation(invitation_text(invitation)) == invitation


def test_the_texts_stay_as_they_are() -> None:
    """They are in files and databases."""
    assert PUBLIC == "php_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8mPA"
    assert SECRET == "phs_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-Scg"
    assert INVITATION == (
        "phi_AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fHx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQB3cml0ZXIAdGNw"
        "Oi8vMTI3LjAuMC4xOjc3MTAAdGNwOi8vMTI3LjAuMC4xOjc3MTHLzQ"
    )


@given(keys)
def test_a_public_key_in_z85_is_read(key: bytes) -> None:
    text = z85.encode(key).decode()
    assert read_public(text) == key
    assert canonical_public(text) == public_text(key)


@pytest.mark.parametrize("text", [PUBLIC, SECRET, INVITATION])
def test_every_mistyped_character_is_found(text: str) -> None:
    read = {"php_": read_public, "phs_": read_secret, "phi_": read_invitation}[text[:4]]
    for place in range(len(text)):
        for other in "A-_z~ \nü":
            if text[place] != other:
                with pytest.raises(InvalidKey):
                    read(text[:place] + other + text[place + 1 :])


@pytest.mark.parametrize("text", [PUBLIC, SECRET, INVITATION])
def test_every_cut_and_every_addition_is_found(text: str) -> None:
    read = {"php_": read_public, "phs_": read_secret, "phi_": read_invitation}[text[:4]]
    for end in range(len(text)):
        with pytest.raises(InvalidKey):
            read(text[:end])
    for more in ("A", "AA", "=", "\n", " ", text):
        with pytest.raises(InvalidKey):
            read(text + more)
        with pytest.raises(InvalidKey):
            read(more + text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "does not begin with php_"),
        ("writer", "does not begin with php_"),
        (SECRET, "this is a secret key (phs_…), and a public key (php_…) is wanted here"),
        (INVITATION, "this is an invitation (phi_…), and a public key (php_…) is wanted here"),
        (PUBLIC[:-5], "has 50 characters, and this has 45: it was cut off"),
        (PUBLIC + "xy", "has 50 characters, and this has 52: something was added to it"),
        (PUBLIC[:9] + "B" + PUBLIC[10:], "was mistyped: its checksum is wrong"),
        ("php_" + SECRET[4:], "was mistyped: its checksum is wrong"),
        (PUBLIC + "\n", "character 51 is another"),
        ("~" * 40, "nor one in Z85: character 1 is in neither"),
        ("#" * 40, "this is not a public key (php_…), nor one in Z85"),
    ],
)
def test_what_is_wrong_with_a_public_key_is_told(text: str, says: str) -> None:
    with pytest.raises(InvalidKey) as refused:
        read_public(text)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (PUBLIC, "this is a public key (php_…), and a secret key (phs_…) is wanted here"),
        (SECRET[:20], "has 50 characters, and this has 20: it was cut off"),
        (SECRET[:9] + "B" + SECRET[10:], "was mistyped: its checksum is wrong"),
        ("x" * 40, "does not begin with phs_"),
    ],
)
def test_what_is_wrong_with_a_secret_key_is_told_without_it(text: str, says: str) -> None:
    with pytest.raises(InvalidKey) as refused:
        read_secret(text)
    assert says in str(refused.value)
    assert text not in str(refused.value)


@pytest.mark.parametrize("wanted", [read_public, read_invitation])
def test_a_secret_in_a_wrong_place_is_not_repeated(wanted: object) -> None:
    assert callable(wanted)
    with pytest.raises(InvalidKey) as refused:
        wanted(SECRET)
    assert SECRET[4:] not in str(refused.value) + repr(refused.value)


def test_an_invitation_of_a_later_version_says_so() -> None:
    with pytest.raises(InvalidKey, match="later version"):
        read_invitation(_sealed(bytes([2]) + KEY))


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        KEY,
        KEY + KEY,
        KEY + KEY + b"\xff\0\0",
        KEY + KEY + b"nonsense",
        KEY + KEY + b"writer\0http://h\0",
        KEY + KEY + b"\0tcp://h:1\0",
        KEY + KEY + b"writer\0tcp://h:1\0tap",
        KEY + KEY + b"writer\0tcp://h:1\0\0",
    ],
)
def test_an_invitation_that_is_not_complete_is_refused(rest: bytes) -> None:
    with pytest.raises(InvalidKey, match="not complete"):
        read_invitation(_sealed(bytes([1]) + rest))


def test_an_invitation_shows_no_secret() -> None:
    shown = f"{INVITED!r} {INVITED} {INVITED.__rich_repr__()}"
    assert shown.startswith("<Invitation of 'writer' to tcp://127.0.0.1:7710> <")
    assert repr(KEY)[2:-1] not in shown


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_length_gets_no_text(size: int) -> None:
    for text in (public_text, secret_text):
        with pytest.raises(ValueError, match="32 bytes"):
            text(bytes(size))


def _sealed(payload: bytes) -> str:
    """Return an invitation with any payload, and the checksum for it."""
    return _written("phi_", payload)


def test_texts_fit_into_json() -> None:
    assert msgspec.json.encode(PUBLIC) == f'"{PUBLIC}"'.encode()
