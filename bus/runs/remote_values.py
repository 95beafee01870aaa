"""What a bot's workflows may be given: sizes that the worker takes, and hooks for types that JSON does not know."""

from __future__ import annotations

from ..client.caller import Caller
from ..client.typed import Decode
from ..model.exact import Encode
from ..model.values import STEP_VALUE_BYTES_MAX
from ..wire.limits import FRAME_ROOM_BYTES
from .values import Values

__all__ = ["RemoteValues"]


class RemoteValues:
    """See the module."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._values = Values()

    @property
    def encode(self) -> Encode | None:
        """A function that returns a JSON value for one of a type that JSON does not know; set it before runs begin.

        It raises NotImplementedError for other types. Dataclasses, pydantic models and what msgspec knows need no
        hook.
        """
        return self._values.encode

    @encode.setter
    def encode(self, encode: Encode | None) -> None:
        self._values.encode = encode

    @property
    def decode(self) -> Decode | None:
        """A function that returns a value of a type from its JSON value, for types in `returns=` of steps.

        It is called with both, and raises NotImplementedError for other types.
        """
        return self._values.decode

    @decode.setter
    def decode(self, decode: Decode | None) -> None:
        self._values.decode = decode

    @property
    def arguments_bytes_max(self) -> int | None:
        """The size of what fits into one commit, or into one call; None before the bot is connected."""
        welcome = self._caller.connection.welcome
        return None if welcome is None else max(welcome.max_frame_bytes, welcome.max_parts_bytes) - FRAME_ROOM_BYTES

    @property
    def output_bytes_max(self) -> int:
        """The maximum size of a step's output, as the worker says."""
        welcome = self._caller.connection.welcome
        return STEP_VALUE_BYTES_MAX if welcome is None else welcome.max_output_bytes
