"""JSON values read as values of a type that an author names: bodies of messages, outputs of steps.

Owns which types can be read, and the words for a value that does not fit. msgspec reads its own types, dataclasses,
TypedDict, NamedTuple, attrs and the standard ones; pydantic models read themselves, and nothing here imports
pydantic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, get_origin

import msgspec
import msgspec.inspect

from ..model.exact import is_model

__all__ = ["Decode", "check_readable", "read_as", "type_name"]

Decode = Callable[[type, Any], Any]
"""Returns a value of a type from a JSON value. It raises NotImplementedError for a type that it does not know."""


def check_readable(kind: Any, hint: str = "", decode: Decode | None = None) -> None:
    """Raise TypeError if no value could be read as a type; `hint` is another way out."""
    for custom in _custom_types(kind):
        if decode is None and not is_model(custom):
            raise TypeError(
                f"values of type {custom.__name__} cannot be read back from JSON: use a type that msgspec knows, a"
                f" dataclass or a pydantic model{hint}"
            )


def read_as(kind: Any, value: Any, decode: Decode | None = None) -> Any:
    """Return a JSON value as a value of a type. Raise ValueError, which says where it does not fit and why."""
    try:
        return msgspec.convert(value, kind, str_keys=True, dec_hook=partial(_decoded, decode))
    except (msgspec.ValidationError, NotImplementedError) as error:
        raise ValueError(str(error)) from error


def type_name(kind: Any) -> str:
    """Return what a type is called, for people."""
    return kind.__name__ if isinstance(kind, type) and get_origin(kind) is None else str(kind)


def _decoded(decode: Decode | None, kind: type, value: Any) -> Any:
    if decode is not None:
        with suppress(NotImplementedError):
            return decode(kind, value)
    if not is_model(kind):
        raise NotImplementedError(f"values of type {kind.__name__} cannot be read back from JSON")
    try:
        return kind.model_validate_json(msgspec.json.encode(value))  # type: ignore[attr-defined]
    except ValueError as error:
        raise ValueError(_told(error)) from error


def _told(error: ValueError) -> str:
    """Return pydantic's errors in one line, each with its place."""
    errors = getattr(error, "errors", None)
    if not callable(errors):
        return str(error)
    return "; ".join(
        f"{each['msg']} - at `{'.'.join(map(str, each['loc']))}`" if each["loc"] else str(each["msg"])
        for each in errors()
    )


def _custom_types(kind: Any) -> Iterator[type]:
    """Yield the types within a type that msgspec leaves to a hook. Raise TypeError for what it does not read."""
    msgspec.json.Decoder(kind)
    waiting: list[Any] = [msgspec.inspect.type_info(kind)]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if isinstance(each, tuple):
            waiting += each
        elif isinstance(each, msgspec.Struct) and id(each) not in seen:
            seen.add(id(each))
            if isinstance(each, msgspec.inspect.CustomType):
                yield each.cls
            waiting += [getattr(each, name) for name in each.__struct_fields__]
