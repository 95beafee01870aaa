"""Which functions of an author's program are asynchronous."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

from .message import Message

__all__ = ["body_type", "check_handler", "is_async"]


def is_async(function: Callable[..., Any]) -> bool:
    """Return True if a call gives a coroutine: of an async function, or of an object with such a `__call__`."""
    call = getattr(function, "__call__", None)  # noqa: B004 (an object may be asynchronous by its __call__)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def check_handler(function: Callable[..., Any], what: str, takes: str) -> None:
    """Raise TypeError unless `what`, such as a handler, is async, and can be called with what it takes.

    Otherwise it would fail for each of them.
    """
    rule = f"{what} must be an async function that takes {takes}"
    if not is_async(function):
        raise TypeError(f"{rule}, not {function!r}")
    try:
        inspect.signature(function, follow_wrapped=False).bind(None)
    except TypeError as error:
        raise TypeError(f"{rule}, and {function!r} does not: {error}") from None


def body_type(handler: Callable[..., Any]) -> Any:
    """Return the type of the bodies that a handler takes, if its parameter is annotated as `Message[…]`, or None.

    Raise TypeError if that type is not known yet.
    """
    parameter = next(iter(inspect.signature(handler).parameters.values()), None)
    annotation = None if parameter is None else parameter.annotation
    if parameter is not None and isinstance(annotation, str) and "Message[" in annotation:
        try:
            annotation = inspect.signature(handler, eval_str=True).parameters[parameter.name].annotation
        except NameError as error:
            raise TypeError(
                f"what {handler!r} takes is not known when it is registered: {error}; define the type before, or"
                " pass body= to the decorator"
            ) from None
    if typing.get_origin(annotation) is not Message:
        return None
    [kind] = typing.get_args(annotation)
    return None if kind is Any or isinstance(kind, typing.TypeVar) else kind
