"""One name, one thing: no public class or type has the name of another one.

The backends of the store are two worlds: what does the same in both has the same name.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path

ROOT = Path(__file__).parents[2]

SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for folder in ("bus", "store")
    for path in sorted((ROOT / folder).rglob("*.py"))
}

BACKEND = re.compile(r"store/(\w+)/")

TYPE = re.compile(r"[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*")


def types(tree: ast.Module) -> Iterator[str]:
    """Return the public classes and type aliases that a module defines; what it imports is another's."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
        else:
            names = []
        yield from (name for name in names if TYPE.fullmatch(name))


def twice(sources: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the names that more than one module defines, with these modules."""
    places = defaultdict(list)
    for path, text in sources:
        for name in types(ast.parse(text)):
            places[name].append(path)
    return {name: found for name, found in places.items() if any(_clash(*pair) for pair in combinations(found, 2))}


def _clash(first: str, second: str) -> bool:
    backends = {match[1] for match in map(BACKEND.match, (first, second)) if match is not None}
    return len(backends) < 2


def test_no_public_type_is_defined_twice() -> None:
    assert twice(SOURCES.items()) == {}


def test_a_name_that_is_defined_twice_is_seen() -> None:
    first = "class Bot: ...\nclass _Frame: ...\nLIMIT = 3\nT = TypeVar('T')\nStart = int | str"
    second = "from a import Request\nclass Bot(Request): ...\nclass _Frame: ...\nLIMIT = 4\nStart: TypeAlias = int"
    assert twice([("a.py", first), ("b.py", second)]) == {"Bot": ["a.py", "b.py"], "Start": ["a.py", "b.py"]}
    assert twice([("store/a/x.py", "class Reader: ..."), ("store/b/x.py", "class Reader: ...")]) == {}
    assert twice([("store/a/x.py", "class Reader: ..."), ("store/a/y.py", "class Reader: ...")]) != {}
    assert twice([("store/a/x.py", "class Reader: ..."), ("bus/y.py", "class Reader: ...")]) != {}
