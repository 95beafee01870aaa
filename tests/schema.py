"""The JSON Schema of the wire, docs/wire.schema.json, from which clients in other languages take their types.

Made from the structs with which the worker and the Python client read and write, by `python -m tests.schema`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from bus.model.erasing import Erased, FoundContents
from bus.model.removing import Removed
from bus.wire import answers, limits
from bus.wire.calls import CALLS
from bus.wire.codes import RETRY, Code
from bus.wire.frames import PROTOCOL_VERSION, RequestFrame, Settled, WorkerFrame

__all__ = ["ANSWERS", "PATH", "WITHOUT_VALUE", "wire_schema", "written"]

PATH = Path(__file__).parents[1] / "docs" / "wire.schema.json"

ANSWERS: dict[str, Any] = {
    "ack": Settled,
    "add_key": answers.KeyAdded,
    "audit": answers.SecurityEventList,
    "bots": answers.BotList,
    "channels": answers.ChannelList,
    "commit": answers.CommitAnswer,
    "dead_letters": answers.DeadLetterList[answers.ListedDeadLetter],
    "delayed": answers.DelayedList[answers.ListedDelayed],
    "enrol": answers.Enrolled,
    "erase": Erased,
    "extend": Settled,
    "history": answers.HistoryPage[answers.KeptMessage],
    "keys": answers.KeyList,
    "mailbox": answers.MailboxContents,
    "may": answers.MayAnswer,
    "message": answers.FoundMessage,
    "nak": Settled,
    "reload": answers.Reloaded,
    "removals": answers.RemovalList,
    "remove": Removed,
    "retry_dead_letters": answers.Retried,
    "revoke_key": answers.KeysRevoked,
    "scrub": answers.Scrubbed,
    "search": FoundContents,
    "sessions": answers.SessionList,
    "status": answers.WorkerStatus,
    "subscribe": answers.SubscriptionStart,
    "subscriptions": answers.SubscriptionList,
    "term": Settled,
    "unsubscribe": answers.SubscriptionEnd,
}
"""The type of the value with which a frame is answered by `ok`, by its op."""

WITHOUT_VALUE = {"credit", "goodbye", "hello", "park", "part", "ping", "publish", "read_part", "whole", "workflow"}
"""Other ops: they are answered by a frame of their own, or without a value of interest, or not at all."""

_HEAD = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": f"The wire of posthouse, protocol version {PROTOCOL_VERSION}",
    "description": (
        "What a client sends (ClientFrame), what the worker sends (WorkerFrame), the value in an ok (Answers, by "
        "the op of the request), and the arguments and values of calls (Calls). docs/protocol.md says what they "
        "mean. A client ignores properties and ops of the worker that it does not know."
    ),
}


def wire_schema() -> dict[str, Any]:
    """Return the schema; its definitions are in the order of their names."""
    calls = [(name, CALLS[name], CALLS[name].answer) for name in sorted(CALLS)]
    values = [value for _, arguments, value in calls for value in (arguments, value)]
    asked = (RequestFrame, WorkerFrame, Code, *ANSWERS.values(), *values)
    schemas, named = msgspec.json.schema_components(asked, ref_template="#/$defs/{name}")
    frames, called = list(schemas[: -len(values)]), iter(schemas[-len(values) :])
    pairs = {name: _object({"arguments": next(called), "value": next(called)}) for name, _, _ in calls}
    own = {
        "ClientFrame": frames[0],
        "WorkerFrame": frames[1],
        "Answers": _object(dict(zip(ANSWERS, frames[3:], strict=True))),
        "Calls": _object(pairs),
        "Limits": {"const": {name: getattr(limits, name) for name in limits.__all__}},
        "ProtocolVersion": {"const": PROTOCOL_VERSION},
        "RetryCode": {"description": "The codes after which the same may succeed later.", "enum": sorted(RETRY)},
    }
    assert not own.keys() & named.keys(), own.keys() & named.keys()
    return {**_HEAD, "$defs": dict(sorted({**_portable(named), **own}.items()))}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _portable(schema: Any) -> Any:
    r"""Return a schema whose patterns end as in JSON Schema, by `$`: Python's `\Z` is unknown there."""
    if isinstance(schema, list):
        return [_portable(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: each.replace("\\Z", "$") if name == "pattern" and isinstance(each, str) else _portable(each)
        for name, each in schema.items()
    }


def written() -> str:
    """Return the schema as it is in its file."""
    return json.dumps(wire_schema(), indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the file; return the exit code."""
    PATH.write_text(written(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
