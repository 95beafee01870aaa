"""What a store can do, defined in `bus.model.repository`, by the side that uses the store."""

from __future__ import annotations

from bus.model.repository import (
    MessageLog,
    MessageRepository,
    Store,
    StoreCheck,
    StoreWatch,
    WorkflowRepository,
    WorkflowRules,
    WorkflowStore,
)

__all__ = [
    "MessageLog",
    "MessageRepository",
    "Store",
    "StoreCheck",
    "StoreWatch",
    "WorkflowRepository",
    "WorkflowRules",
    "WorkflowStore",
]
