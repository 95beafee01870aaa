"""The names of W3C's trace context and baggage: as headers of messages, and as attributes of runs.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["TRACED", "traced"]

TRACED = frozenset({"traceparent", "tracestate", "baggage"})


def traced(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return those that belong to a trace: what a run starts belongs to the same one."""
    return {name: value for name, value in attributes.items() if name in TRACED}
