"""The walls of the house: who may import whom, and what the pure modules must not touch (docs/design.md)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pytest

from bus.cli.commands import COMMANDS

from .rooms import (
    DATABASE_LIBRARIES,
    ENTRIES,
    EVERYWHERE,
    IMPURE_CALLS,
    IMPURE_IMPORTS,
    PURE,
    PURE_TOO,
    ROOMS,
    WITH_PROTOCOLS,
)

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Module:
    """A module as it is written: nothing is run, and it is parsed when it is looked at."""

    name: str
    source: str
    is_package: bool = False

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @cached_property
    def imports(self) -> list[tuple[ast.Import | ast.ImportFrom, bool]]:
        """All imports, and whether each is inside a function."""
        deferred = {
            id(node)
            for function in ast.walk(self.tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            for node in ast.walk(function)
        }
        nodes = (node for node in ast.walk(self.tree) if isinstance(node, ast.Import | ast.ImportFrom))
        return [(node, id(node) in deferred) for node in nodes]


class Import(NamedTuple):
    """One module that another one names. `deferred` is inside a function, so that it runs when that is called."""

    target: str
    line: int
    deferred: bool


def house() -> list[Module]:
    paths = [*(ROOT / "bus").rglob("*.py"), *(ROOT / "store").rglob("*.py"), ROOT / "worker.py"]
    return [_module(path) for path in sorted(paths)]


def _module(path: Path) -> Module:
    parts = path.relative_to(ROOT).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    name = ".".join(parts[:-1] if is_package else parts)
    return Module(name, path.read_text(encoding="utf-8"), is_package)


HOUSE = house()
NAMES = {module.name for module in HOUSE}


# ── The checks ───────────────────────────────────────────────────────────────────────────────────────────


def imports(module: Module, names: Set[str] = frozenset(NAMES)) -> Iterator[Import]:
    """Give every module that this one imports, with relative names resolved, wherever the import stands.

    `names` are those of all modules: they tell one from a name in a package.
    """
    for node, deferred in module.imports:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, deferred)
        else:
            source = _source(module, node)
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield Import(inner if inner in names else source, node.lineno, deferred)


def _source(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    base = parts[: len(parts) - node.level + (1 if module.is_package else 0)]
    return ".".join([*base, node.module] if node.module else base)


def layer_breaches(module: Module) -> list[str]:
    """Name every import that runs against the one direction."""
    return [
        f"{module.name}:{found.line} imports {found.target}"
        for found in imports(module)
        if not _may_import(module.name, found)
    ]


def room(name: str) -> str:
    """Return the room that a module is in: the longest one that its name begins with."""
    return max((each for each in ROOMS if _within(name, each)), key=len, default=name)


def _may_import(importer: str, found: Import) -> bool:
    target = found.target
    backend = DATABASE_LIBRARIES.get(target.partition(".")[0])
    if backend is not None:
        return _within(importer, backend)
    if _within(target, "worker"):
        return False
    if _within(importer, "worker") or not (_within(target, "bus") or _within(target, "store")):
        return True
    here, there = room(importer), room(target)
    if there in DATABASE_LIBRARIES.values() and here == "store":
        return importer == "store" and found.deferred
    return there in (here, EVERYWHERE) or there in ROOMS[here]


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def circles(modules: Sequence[Module]) -> list[set[str]]:
    """Return the modules that import each other in a circle, each circle as the set of them.

    Every import counts: one that is only for the types, one inside a function.
    """
    names = {module.name for module in modules}
    arrows = {module.name: {found.target for found in imports(module, names)} & names for module in modules}
    reached = {name: _reached(name, arrows) for name in names}
    circles: list[set[str]] = []
    for name in sorted(names):
        circle = {other for other in reached[name] if name in reached[other]}
        if circle and circle not in circles:
            circles.append(circle)
    return circles


def _reached(name: str, arrows: Mapping[str, set[str]]) -> set[str]:
    """Return the modules that one imports, and those that these import, and so on."""
    reached: set[str] = set()
    waiting = [name]
    while waiting:
        new = arrows[waiting.pop()] - reached
        reached |= new
        waiting += new
    return reached


def dead_modules(modules: Sequence[Module]) -> list[str]:
    """Name the modules that no other one imports, and that nobody starts or imports from outside."""
    names = {module.name for module in modules}
    imported = {found.target for module in modules for found in imports(module, names)}
    return [
        module.name
        for module in modules
        if module.name not in imported and module.name not in ENTRIES and not _is_started(module)
    ]


def _is_started(module: Module) -> bool:
    """Return True for a program, and for an `__init__`: whoever imports what is in the package runs it."""
    guarded = any(
        isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'" for node in module.tree.body
    )
    return guarded or module.is_package or module.name.endswith(".__main__")


def is_pure(name: str) -> bool:
    """Return True if a module is to be pure."""
    return room(name) in PURE or name in PURE_TOO


def purity_breaches(module: Module) -> list[str]:
    """Name everything that a pure module must not have: I/O, clocks, chance, logs, and waiting for them."""
    allowed_waits = _protocol_methods(module) if module.name in WITH_PROTOCOLS else set()
    breaches = [
        f"{module.name}:{found.line} imports {found.target}"
        for found in imports(module)
        if found.target.partition(".")[0] in IMPURE_IMPORTS or (found.target in NAMES and not is_pure(found.target))
    ]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.AsyncFunctionDef) and node not in allowed_waits:
            breaches.append(f"{module.name}:{node.lineno} has async def {node.name}")
        elif isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith):
            breaches.append(f"{module.name}:{node.lineno} waits")
        elif isinstance(node, ast.comprehension) and node.is_async:
            breaches.append(f"{module.name}:{node.iter.lineno} waits")
        elif isinstance(node, ast.Call) and _called(node) in IMPURE_CALLS:
            breaches.append(f"{module.name}:{node.lineno} calls {_called(node)}()")
    return breaches


def _protocol_methods(module: Module) -> set[ast.stmt]:
    return {
        method
        for node in module.tree.body
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "Protocol" for base in node.bases)
        for method in node.body
    }


def _called(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


# ── The house ────────────────────────────────────────────────────────────────────────────────────────────


def test_imports_run_one_way() -> None:
    assert [breach for module in HOUSE for breach in layer_breaches(module)] == []


def test_pure_modules_are_pure() -> None:
    assert [breach for module in HOUSE if is_pure(module.name) for breach in purity_breaches(module)] == []


def test_every_room_is_there() -> None:
    assert {room(name) for name in NAMES} == {*ROOMS, "worker"}
    assert NAMES >= PURE_TOO


def test_no_imports_run_in_a_circle() -> None:
    assert circles(HOUSE) == []


def test_no_module_is_dead() -> None:
    bench = [_module(path) for path in sorted((ROOT / "bench").rglob("*.py"))]
    commands = {place.partition(":")[0] for place in COMMANDS.values()}
    assert [name for name in dead_modules([*HOUSE, *bench]) if name not in commands] == []
    assert NAMES >= ENTRIES


@pytest.mark.parametrize("package", ["bus", "store"])
def test_importing_loads_no_database(package: str) -> None:
    script = (
        f"import sys, {package}\n"
        "loaded = {name for name in sys.modules if name.split('.')[0] in ('_sqlite3', 'aiosqlite', 'asyncpg')"
        " or name.startswith(('store.sqlite', 'store.postgresql'))}\n"
        "sys.exit(f'loaded: {sorted(loaded)}' if loaded else 0)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr


def picture() -> set[str]:
    """Return what the design's picture of the rooms names, as paths."""
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    block = page.split("## The rooms")[1].split("```")[1]
    named, folder = set(), ""
    for line in block.strip().splitlines():
        if not line.startswith(" "):
            folder = line.split()[0] if line.endswith("/") else ""
            named.add(line.split()[0])
        else:
            named.update(folder + name for name in line.split() if name.endswith((".py", "/")))
    return named


def test_the_design_names_every_room() -> None:
    """And no other."""
    tree = {"worker.py", "bus/", "store/"}
    for top in ("bus", "store"):
        tree |= {f"{top}/{path.name}" for path in (ROOT / top).glob("*.py")}
        tree |= {f"{top}/{path.parent.name}/" for path in (ROOT / top).glob("*/__init__.py")}
    assert picture() == tree


# ── The checks themselves can fail ───────────────────────────────────────────────────────────────────────


def made_up(name: str, source: str, *, is_package: bool = False) -> Module:
    return Module(name, source, is_package)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("bus.core", "import worker"),
        ("bus.core", "from worker import main"),
        ("bus.core", "import store"),
        ("bus.core", "from store import open_store"),
        ("bus.core.core", "from ..broker.broker import Broker"),
        ("bus.core.core", "from ..client import connection"),
        ("bus.client.watch", "from store.sqlite import open_sqlite_store"),
        ("bus.client.watch", "def f():\n    from store.sqlite.log import SqliteLog"),
        ("bus.testing", "import store.sqlite"),
        ("bus.cli.databases", "from store import back_up"),
        ("bus.house_key", "def f():\n    from store import house_key"),
        ("bus.broker.queries", "import sqlite3"),
        ("store.sqlite.log", "import bus.client.message"),
        ("store.sqlite.log", "from bus.wire.frames import is_id"),
        ("store.sqlite.log", "from bus.mailbox import Mailbox"),
        ("store.sqlite.log", "import worker"),
        ("store.records", "from .sqlite import open_sqlite_store"),
        ("store.records", "from . import sqlite"),
        ("store.records", "import aiosqlite"),
        ("bus.errors", "from .model.records import Bot"),
        ("bus.errors", "from .wire.codes import Code"),
        ("worker", "import sqlite3"),
    ],
)
def test_a_breach_of_the_layers_is_seen(name: str, source: str) -> None:
    assert len(layer_breaches(made_up(name, source))) == 1


def test_a_backend_loaded_with_the_package_is_seen() -> None:
    eager = made_up("store", "from .sqlite import open_sqlite_store", is_package=True)
    lazy = made_up("store", "def f():\n    from .sqlite import open_sqlite_store", is_package=True)
    assert layer_breaches(eager) == ["store:1 imports store.sqlite"]
    assert layer_breaches(lazy) == []


@pytest.mark.parametrize(
    "back",
    [
        "from .a import A",
        "import bus.made.a",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import A",
        "def f():\n    from .a import A",
    ],
)
def test_a_circle_is_seen(back: str) -> None:
    there = made_up("bus.made.a", "from .b import B")
    between = made_up("bus.made.b", "from .c import C")
    aside = made_up("bus.made.d", "from .a import A")
    assert circles([there, between, aside, made_up("bus.made.c", "import zmq")]) == []
    assert circles([there, between, aside, made_up("bus.made.c", back)]) == [
        {"bus.made.a", "bus.made.b", "bus.made.c"}
    ]


def test_a_dead_module_is_seen() -> None:
    user = made_up("worker", "from bus.made.used import f")
    assert dead_modules([user, made_up("bus.made.used", "")]) == []
    assert dead_modules([user, made_up("bus.made.used", ""), made_up("bus.made.dead", "")]) == ["bus.made.dead"]
    program = made_up("bus.made.program", "if __name__ == '__main__':\n    main()")
    room = made_up("bus.made", '"What it is."', is_package=True)
    assert dead_modules([user, program, room, made_up("bus.made.used", ""), made_up("bus.made.__main__", "")]) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("worker", "from bus.core import Core\nfrom store import open_store\nimport store.sqlite.schema"),
        (
            "bus.core.core",
            "from bus.model.records import Bot\nfrom .batches import Batch\nimport zmq",
        ),
        ("bus.testing", "from store import open_store"),
        ("store.sqlite.log", "import sqlite3\nfrom bus.errors import Conflict\nfrom .writer import Writer"),
    ],
)
def test_what_is_allowed_passes(name: str, source: str) -> None:
    assert layer_breaches(made_up(name, source)) == []


@pytest.mark.parametrize(
    "source",
    [
        *(f"import {name}" for name in sorted(IMPURE_IMPORTS)),
        "import anyio.abc",
        "from time import monotonic",
        "from asyncio import sleep as pause",
        "def f():\n    import random",
        "from .broker import Broker",
        "from . import broker",
        "async def f(): ...",
        "class Mailbox:\n    async def f(self): ...",
        "stamp = datetime.now(UTC)",
        "print('hello')",
        "open('file')",
    ],
)
def test_an_impure_module_is_seen(source: str) -> None:
    assert len(purity_breaches(made_up("bus.core", source))) == 1


@pytest.mark.parametrize(
    "body",
    ["await g()", "async with g(): ...", "async for _ in g(): ...", "[_ async for _ in g()]"],
)
def test_waiting_is_seen(body: str) -> None:
    breaches = purity_breaches(made_up("bus.core", f"async def f():\n    {body}"))
    assert breaches == ["bus.core:1 has async def f", "bus.core:2 waits"]


def test_only_protocols_describe_waiting() -> None:
    protocol = "class MessageLog(Protocol):\n    async def load(self): ..."
    other = "class MessageLog:\n    async def load(self): ..."
    for name in WITH_PROTOCOLS:
        assert purity_breaches(made_up(name, protocol)) == []
        assert purity_breaches(made_up(name, other)) == [f"{name}:2 has async def load"]
    assert purity_breaches(made_up("bus.model.records", protocol)) == ["bus.model.records:2 has async def load"]
