"""The Python blocks of the pages parse and type-check."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ..snippets import PAGES, ROOT, Snippet, snippets

SNIPPETS = [
    snippet
    for path in PAGES
    for snippet in snippets(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
]

BREACHES = """\
# A page

```python
@bot.on_message()
async def answer(message):
    return message.bodies
```

1. A method, and a program:

   <!-- given
   class Asker(bus.Bot):
   -->
   ```python
   async def ask(self) -> int:
       return await self.send("ada", 1, delai=3)
   ```

   ```python
   anyio.run(main)
   ```

   ```python
   async def later()
   ```
"""

FAULTS = [
    "breaches.md:24: error: expected ':'",
    'breaches.md:20: error: Name "main" is not defined',
    'breaches.md:16: error: Incompatible return value type (got "Receipt", expected "int")',
    'breaches.md:16: error: Unexpected keyword argument "delai" for "send" of "Bot"',
    'breaches.md:6: error: "Message[Any]" has no attribute "bodies"',
]

PACKAGE = Path("build", "pages")
"""Where the modules are: always the same place, since mypy keeps its errors with the path in its cache."""


def faults(found: Sequence[Snippet]) -> list[str]:
    """Return the errors in snippets, with their places on the pages. mypy is run once for all that parse."""
    shutil.rmtree(ROOT / PACKAGE, ignore_errors=True)
    (ROOT / PACKAGE).mkdir(parents=True)
    (ROOT / PACKAGE / "__init__.py").touch()
    pages: dict[str, str] = {}
    errors: list[str] = []
    for number, snippet in enumerate(found):
        module = snippet.module()
        try:
            ast.parse(module)
        except SyntaxError as error:
            errors.append(f"{snippet.page}:{error.lineno}: error: {error.msg}")
            continue
        path = PACKAGE / f"snippet_{number}.py"
        (ROOT / path).write_text(module, encoding="utf-8")
        pages[str(path)] = snippet.page
    command = [sys.executable, "-m", "mypy", "--no-error-summary", *pages]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.stderr == ""
    errors += [line for line in ended.stdout.splitlines() if ": error: " in line]
    return [re.sub(r"^[^:]+", lambda place: pages.get(place[0], place[0]), error) for error in errors]


def test_blocks_parse_and_have_the_right_types() -> None:
    """Errors that have to be found stand among the pages' blocks: mypy takes a second to start."""
    assert len(SNIPPETS) > 30
    found = faults([*SNIPPETS, *snippets("breaches.md", BREACHES)])
    assert [error for error in found if not error.startswith("breaches.md:")] == []
    assert [error for error, fault in zip(found, FAULTS, strict=True) if not error.startswith(fault)] == []


def test_every_block_is_found() -> None:
    """Also one in a list or a quotation, or with another name for the language."""
    fences = [
        line
        for path in PAGES
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r"[\s>]*(`{3,}|~{3,})\s*py", line)
    ]
    assert len(fences) == len(SNIPPETS)


def test_programs_are_told_from_parts() -> None:
    assert [each.is_program for each in snippets("breaches.md", BREACHES)] == [False, False, True, False]
