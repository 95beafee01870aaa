"""Writes of the keyed store as they come from clients, by calls and in commits: checked, and within their limits.

Pure.
"""

from __future__ import annotations

import binascii

import msgspec

from ..errors import InvalidValue, TooLarge
from ..model.keyed import KeyedWrite, ValueState
from ..settings import Limits
from ..wire.keyed_calls import DeleteValue, PutValue
from ..wire.sending_frames import CommittedValue

__all__ = ["keyed_write"]


def keyed_write(asked: PutValue | DeleteValue | CommittedValue, bot_id: str, limits: Limits) -> KeyedWrite:
    """Return the write that a client asks for. Raise TooLarge, and InvalidValue for what is not base64.

    That of a commit has no id of its own: it is carried out with the commit, once.
    """
    state, value, ttl = ValueState.DELETED, None, None
    if not isinstance(asked, DeleteValue):
        state, ttl = ValueState(asked.kind), asked.ttl
    if state.has_value:
        value, size_bytes = _checked(state, asked.key, getattr(asked, "value", msgspec.Raw(b"null")))
        if size_bytes > limits.kv_value_bytes_max:
            raise TooLarge(f"the value of {asked.key!r}", size_bytes, limits.kv_value_bytes_max)
    return KeyedWrite(
        store=asked.store,
        key=asked.key,
        state=state,
        value=value,
        id=None if isinstance(asked, CommittedValue) else asked.id,
        bot_id=bot_id,
        expected=asked.expected,
        ttl_seconds=ttl,
        keys_max=limits.kv_keys_max,
    )


def _checked(state: ValueState, key: str, value: msgspec.Raw) -> tuple[str, int]:
    """Return a value as JSON, and its size."""
    written = bytes(value)
    try:
        if state is ValueState.JSON:
            return written.decode(), len(written)
        text = msgspec.json.decode(written, type=str)
        return written.decode(), len(binascii.a2b_base64(text, strict_mode=True))
    except (msgspec.DecodeError, ValueError):
        wanted = "JSON is UTF-8" if state is ValueState.JSON else "bytes are a string of base64, with its padding"
        raise InvalidValue(f"the value of {key!r}", wanted) from None
