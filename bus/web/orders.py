"""What programs send to `/v1/`: JSON of a shape, and parameters of a query. Whatever is wrong is said in words.

Owns what is no order: what a JSON decoder of some receiver could not read, names that are repeated, and seqs of no
form. Where msgspec reports what it met while skipping a value, the text is looked at again.

Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, NoReturn, TypeVar

import msgspec

from ..errors import Portable
from ..wire.bodies import BODY_DEPTH_MAX, body_fault
from ..wire.frames import is_id
from ..wire.limits import NUMBER_MAX
from ..wire.refusals import refusal

__all__ = ["BadOrder", "LogPlace", "as_number", "as_place", "only", "read_order"]

_SHOWN_CHARACTERS = 50

_NUMBER = re.compile(rf"[0-9]{{1,{len(str(NUMBER_MAX))}}}")

T = TypeVar("T", bound=msgspec.Struct)


class BadOrder(Portable):
    """What was sent is not valid. `code` is one of the protocol."""

    def __init__(self, message: str, code: str = "bad_request") -> None:
        super().__init__(message)
        self.code = code


class LogPlace(NamedTuple):
    """A seq, and the epoch of its log, if that was named."""

    epoch: str | None
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}/{self.seq}"


def read_order(data: bytes, shape: type[T]) -> T:
    """Return the order that a request's body is. Raise BadOrder."""
    try:
        order = msgspec.json.decode(data, type=shape)
    except msgspec.ValidationError as error:
        raise BadOrder(refusal(error).replace("it must be", "the request must be", 1)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadOrder(_fault(data)) from None
    if (fault := body_fault(bytes(getattr(order, "body", b"null")), "'body'")) is not None:
        raise BadOrder(fault, "invalid_body")
    # The decoder takes the last of repeated names, and says nothing.
    json.loads(data, object_pairs_hook=_unrepeated)
    return order


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        shown = next(name for name in names if names.count(name) > 1)[:_SHOWN_CHARACTERS]
        raise BadOrder(f"the name {shown!r} is repeated in an object, and receivers differ in which one they take")
    return found


def _fault(data: bytes) -> str:
    """Return in words why something is not JSON that every receiver can read."""
    if not data.strip():
        return "the request has no body: send a JSON object"
    try:
        json.loads(data.decode(), parse_constant=_refuse)
    except UnicodeDecodeError as error:
        return f"the request is not UTF-8, from byte {error.start} on"
    except RecursionError:
        return f"the request is nested deeper than {BODY_DEPTH_MAX}"
    except json.JSONDecodeError as error:
        return f"the request is not JSON: see line {error.lineno}, column {error.colno}"
    except BadOrder as error:
        return str(error)
    except ValueError:  # more digits than Python reads
        return "the request has a number that is out of range"
    return r'the request has half a surrogate pair, such as "\ud800", which is no text'


def _refuse(constant: str) -> NoReturn:
    raise BadOrder(f"the request is not JSON: {constant} is no JSON value")


def only(parameters: Iterable[tuple[str, str]], names: Iterable[str]) -> Mapping[str, str]:
    """Return the parameters of a query. Raise BadOrder if one has no such name, or is repeated."""
    known, found = tuple(names), dict[str, str]()
    for name, value in parameters:
        if name not in known:
            raise BadOrder(f"there is no parameter {name[:_SHOWN_CHARACTERS]!r}: there are {', '.join(known)}")
        if name in found:
            raise BadOrder(f"the parameter {name} is repeated: give it once")
        found[name] = value
    return found


def as_number(name: str, text: str | None, *, least: int, most: int) -> int | None:
    """Return a number. Raise BadOrder if the text is none, or out of bounds."""
    if text is None:
        return None
    if _NUMBER.fullmatch(text) is None or not least <= int(text) <= most:
        raise BadOrder(f"{name} must be a number from {least} to {most}, not {text[:_SHOWN_CHARACTERS]!r}")
    return int(text)


def as_place(name: str, text: str | None) -> LogPlace | None:
    """Return a place in a log: the id of an event, or a seq alone. Raise BadOrder if the text is neither."""
    if text is None:
        return None
    epoch, _, seq = text.rpartition("/")
    if (epoch and not is_id(epoch)) or _NUMBER.fullmatch(seq) is None or int(seq) > NUMBER_MAX:
        raise BadOrder(
            f"{name} must be the id of an event, such as 019ab6c2-…/42, or a seq, a number from 0 to {NUMBER_MAX},"
            f" not {text[:_SHOWN_CHARACTERS]!r}"
        )
    return LogPlace(epoch or None, int(seq))
