"""Where the page of the port finds a store in PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime

from bus.model.repository import Store, WorkflowRules
from store.postgresql.store import open_postgresql_store

__all__ = ["PostgresqlPlace"]


class PostgresqlPlace:
    def __init__(self, url: str) -> None:
        self.url = url

    def open(
        self, *, rules: WorkflowRules | None = None, clock: Callable[[], datetime] | None = None
    ) -> AbstractAsyncContextManager[Store]:
        return open_postgresql_store(self.url, rules or WorkflowRules(), clock)
