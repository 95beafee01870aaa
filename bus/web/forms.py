"""What is sent here: the body of a request, the fields of a form, and the ids of what forms do.

Owns the bounds of bodies.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping
from urllib.parse import parse_qs

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request

__all__ = ["BodyTooLarge", "Form", "new_nonce", "number", "read_body", "read_form"]

_FORM_BYTES_MAX = 65_536
_BODY_SECONDS = 20.0


class BodyTooLarge(Exception):
    """A request's body has more bytes than it may have."""


class Form:
    """The fields that a person sent."""

    def __init__(self, fields: Mapping[str, list[str]]) -> None:
        self._fields = fields
        self._nonce = self["page"] or new_nonce()

    def __getitem__(self, name: str) -> str:
        """Return a field; an empty text if it is missing."""
        return self._fields.get(name, [""])[0]

    def all(self, name: str) -> list[str]:
        """Return all fields of a name."""
        return self._fields.get(name, [])

    def numbers(self, name: str) -> list[int]:
        """Return those of them that are numbers."""
        return [found for text in self.all(name) if (found := number(text)) is not None]

    def chosen_id(self, *what: object) -> str:
        """Return the id of what this form does to something.

        It is the same whenever the same is chosen on the same page, so that a form that is sent twice does it once.
        """
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self._nonce} {what}"))


def new_nonce() -> str:
    """Return what distinguishes a page from the same one that is opened again."""
    return secrets.token_urlsafe(12)


def number(text: str) -> int | None:
    """Return a number that is not negative; None if the text is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


async def read_body(request: Request, bytes_max: int) -> bytes:
    """Return a request's body. Raise BodyTooLarge, or TimeoutError if it comes too slowly."""
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > bytes_max:
        raise BodyTooLarge
    found = bytearray()
    with anyio.fail_after(_BODY_SECONDS):
        async for part in request.stream():
            found += part
            if len(found) > bytes_max:
                raise BodyTooLarge
    return bytes(found)


async def read_form(request: Request) -> Form:
    """Return the fields of a request. Raise HTTPException if they are too large, or come too slowly."""
    try:
        data = await read_body(request, _FORM_BYTES_MAX)
    except BodyTooLarge:
        raise HTTPException(413, f"a form has at most {_FORM_BYTES_MAX} bytes") from None
    except TimeoutError:
        raise HTTPException(408, "the form was not received in time") from None
    return Form(parse_qs(data.decode("utf-8", "replace"), keep_blank_values=True))
