"""The nodes that tests share: one server a process of pytest, and databases of it.

Where PostgreSQL is missing, tests that ask for it are skipped; with `POSTHOUSE_NEEDS_POSTGRESQL=1`, as in CI, they
fail.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from itertools import count

import pytest
from anyio.from_thread import start_blocking_portal

from .cluster import Node, missing, quorum, single
from .databases import Databases

__all__ = ["need_postgresql", "postgresql_databases", "postgresql_node", "postgresql_quorum", "postgresql_url"]

NEEDED = "POSTHOUSE_NEEDS_POSTGRESQL"

_numbers = count(1)


def need_postgresql() -> None:
    """Skip the test where PostgreSQL is missing, or let it fail where that must not be."""
    reason = missing()
    if reason is None:
        return
    if os.environ.get(NEEDED) == "1":
        pytest.fail(f"{reason}; {NEEDED}=1 says that these tests must not be skipped")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def postgresql_node() -> Iterator[Node]:
    """One node without standbys, for all tests of this process. It is only asked and written to, never broken."""
    need_postgresql()
    with single() as node:
        yield node


@pytest.fixture(scope="session")
def postgresql_databases(postgresql_node: Node) -> Iterator[Databases]:
    """Databases with the schema, which take a moment: for all tests but those of the schema itself."""
    with start_blocking_portal() as portal, closing(Databases(postgresql_node, portal)) as databases:
        yield databases


@pytest.fixture
def postgresql_url(postgresql_node: Node) -> Iterator[str]:
    """The URL of an empty database for one test, on the node that the tests share."""
    name = f"test_{next(_numbers)}"
    postgresql_node.query(f"CREATE DATABASE {name}")
    yield postgresql_node.url(name)
    postgresql_node.query(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgresql_quorum() -> Iterator[tuple[Node, Node, Node]]:
    """A primary whose commits wait for one of two standbys, for one test, which may break them."""
    need_postgresql()
    with quorum() as nodes:
        yield nodes
