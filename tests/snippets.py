"""The Python blocks of the pages: as modules that mypy checks, and as programs that run.

Each block is a module of its own, in which `anyio`, `bus` and `bot` (a `bus.Bot`) are defined. A comment above it,
which readers of the page do not see, defines the other names that it needs. If that ends with a colon, the block is
inside it:

    <!-- given
    class Asking(bus.Bot):
    -->

Examples leave out types, so that a parameter named `bot` or `message` is a `bus.Bot` or a `bus.Message`.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

__all__ = ["PAGES", "ROOT", "Snippet", "snippets"]

ROOT = Path(__file__).parents[1]

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").rglob("*.md")])

_BLOCK = re.compile(
    r"(?:^ *<!-- given\n(?P<given>(?:(?! *-->)[^\n]*\n)*) *-->\n)?^ *```python\n(?P<code>.*?)^ *```$",
    re.DOTALL | re.MULTILINE,
)
_PREAMBLE = "import anyio; import bus; bot: bus.Bot"
_UNTYPED = re.compile(r"(?<=[(,])( ?)(bot|message)(?=[,)])")
_PROGRAM = re.compile(r"^(if __name__ ==|while |[ \t]*(bot|anyio)\.run\(|@pytest\.)", re.MULTILINE)


class Snippet(NamedTuple):
    """A Python block, with the line of the page at which its code begins, and what is given above it."""

    page: str
    line: int
    code: str
    given: str = ""

    @property
    def is_program(self) -> bool:
        """Whether it is whole, and does something when it is run: by Python, or by pytest."""
        return not self.given and bool(_PROGRAM.search(self.code))

    def module(self) -> str:
        """Return the module that is type-checked. Its lines have the numbers that they have on the page."""
        code = re.sub(
            r"^( *(?:async )?def .*)$",
            lambda found: _UNTYPED.sub(lambda name: f"{name[0]}: bus.{name[2].title()}", found[0]),
            self.code,
            flags=re.MULTILINE,
        )
        if self.given.rstrip().endswith(":"):
            code = textwrap.indent(code, "    ")
        head = f"{_PREAMBLE}\n{self.given}"
        return head + "\n" * (self.line - 1 - head.count("\n")) + code


def snippets(page: str, text: str) -> list[Snippet]:
    """Return the Python blocks of a page."""
    return [
        Snippet(
            page,
            text.count("\n", 0, block.start("code")) + 1,
            textwrap.dedent(block["code"]),
            textwrap.dedent(block["given"] or ""),
        )
        for block in _BLOCK.finditer(text)
    ]
