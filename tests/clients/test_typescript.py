"""The TypeScript client against real workers: its own tests, in Node, on the package that users install.

Skipped where node or npm is missing; with POSTHOUSE_NEEDS_NODE=1, as in CI, they fail.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from ..integration.forked_worker import forked_worker
from ..integration.wire_program import check_echo_program, code_block
from ..integration.wire_worker import REPOSITORY
from .node import INSTALL_SECONDS, SOURCE, Package

PAGES = [REPOSITORY / "docs" / "typescript.md", SOURCE / "README.md"]

FILES = sorted(path.name.removesuffix(".test.ts") for path in (SOURCE / "test").glob("*.test.ts"))

pytestmark = pytest.mark.timeout(3 * INSTALL_SECONDS)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    package = Package(tmp_path_factory.mktemp("typescript"))
    package.compile(PAGES)
    return package


def test_it_has_what_users_need_and_nothing_else(package: Package) -> None:
    with tarfile.open(package.archive) as archive:
        names = {name.removeprefix("package/") for name in archive.getnames()}
    modules = {path.stem for path in (SOURCE / "src").glob("*.ts")} | {"wire"}
    built = {f"dist/{module}{suffix}" for module in modules for suffix in (".js", ".d.ts")}
    assert names == {"LICENSE", "README.md", "package.json", *built}


@pytest.mark.parametrize("name", FILES)
def test_it_works(package: Package, name: str) -> None:
    package.test(name)


def test_the_program_of_the_protocol_page_answers_and_survives_a_restart(package: Package, tmp_path: Path) -> None:
    """It takes no more than ZeroMQ, which is in the same folder."""
    program = package.home / "echo_bot.mjs"
    program.write_text(code_block(REPOSITORY / "docs" / "protocol.md", "javascript"), encoding="utf-8")
    with forked_worker(tmp_path) as worker:
        check_echo_program(worker, ["node", str(program), worker.command], tmp_path)


def test_the_lock_names_no_registry() -> None:
    lock = json.loads((SOURCE / "package-lock.json").read_text(encoding="utf-8"))
    assert [name for name, package in lock["packages"].items() if "resolved" in package] == []
