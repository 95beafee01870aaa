"""The container: the image is built as a user builds it, and a bot talks to a worker in it.

Where docker or podman works, it builds and runs the image. Elsewhere, root carries out every instruction of the
Dockerfile in a clean root file system, in namespaces of its own (`chroot_program.py`). That root is not the Python
image that the Dockerfile begins with: it has Debian's essential packages and Python, of the release that apt is set
up for here, unpacked from its archive and not configured. It has nothing of this repository, and nothing that was
installed with pip. It has no network: what the image's pip asks for is downloaded before. Nothing is kept for the
next time.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import NoReturn

import pytest

from ..wheel import PIP_SECONDS, RUN_SECONDS, Failed, run
from .container import CONFINED, Built, attempt, check_container, find_builder
from .image import DOCKERFILE, Run, Stage, copy_context, read_dockerfile
from .wire_worker import REPOSITORY

NEEDED = "POSTHOUSE_NEEDS_CONTAINER"

NAMESPACES = ["setpriv", "--pdeathsig=KILL", "unshare"]
NAMESPACES += ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
"""What runs a program as the first process of its own namespaces, which end with it, or with the test."""


def skip(reason: str) -> NoReturn:
    """Skip a test, where it need not run."""
    assert NEEDED not in os.environ, reason
    pytest.skip(reason)


def base_image(folder: Path) -> Path:
    """Return a root file system of Debian and its Python, from its packages."""
    root, archives = folder / "base", folder / "cache" / "archives"
    for each in (root, archives / "partial", folder / "lists" / "partial"):
        each.mkdir(parents=True)
    places = [f"Dir::State={folder}", "Dir::State::status=/dev/null", f"Dir::Cache={folder / 'cache'}"]
    apt = ["apt-get", "--quiet=2", *(f"--option={each}" for each in [*places, "APT::Sandbox::User=root"])]
    run([*apt, "update"], folder, PIP_SECONDS)
    packages = ["?essential", "usr-is-merged", "passwd", "python3-venv"]
    run([*apt, "install", "--yes", "--download-only", "--no-install-recommends", *packages], folder, PIP_SECONDS)
    for package in archives.glob("*.deb"):
        run(["dpkg-deb", "--extract", str(package), str(root)], folder, RUN_SECONDS)
        package.unlink()
    for name in ("doc", "locale", "man"):  # slim images have none, and this one is copied
        shutil.rmtree(root / "usr" / "share" / name)
    for name in ("passwd", "group"):
        shutil.copy(root / "usr" / "share" / "base-passwd" / f"{name}.master", root / "etc" / name)
    python = root / "usr" / "local" / "bin" / "python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.symlink_to("/usr/bin/python3")
    return root


def requirements(stages: list[Stage]) -> list[str]:
    """Return what is needed to build the image's package, and to install it with its extras."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    commands = [step.command for stage in stages for step in stage.steps if isinstance(step, Run)]
    extras = ",".join(re.findall(r"pip install .*\[(.*)\]", "\n".join(commands))).split(",")
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    return wanted + [each for extra in extras for each in project["project"]["optional-dependencies"][extra]]


def download_wheels(wanted: list[str], python: str, folder: Path) -> None:
    """Download packages, and those that they need, for a version of Python."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", str(folder)]
    run([*pip, f"--python-version={python}", "--only-binary=:all:", *wanted], REPOSITORY, PIP_SECONDS)


def play_steps(wanted: list[str], folder: Path) -> None:
    """Build the image without a builder, and check a container of it."""
    for name in ("setpriv", "unshare", "nsenter", "chroot", "apt-get", "dpkg-deb"):
        if shutil.which(name) is None:
            skip(f"neither docker nor podman works, and there is no {name}")
    if os.geteuid() or attempt([*NAMESPACES, "true"], RUN_SECONDS).returncode:
        skip("neither docker nor podman works, and only root may mount file systems")
    try:
        base = base_image(folder)
    except Failed as error:
        skip(f"neither docker nor podman works, and Debian's packages cannot be had: {error}")
    download_wheels(wanted, (base / "usr/bin/python3").readlink().name.removeprefix("python"), folder / "wheels")
    copy_context(folder / "context")
    (folder / "work").mkdir()
    program = [sys.executable, "-m", f"{__package__}.chroot_program"]
    places = (str(folder / name) for name in ("base", "context", "wheels", "work"))
    run([*NAMESPACES, *program, *places], REPOSITORY, 2 * PIP_SECONDS)


@pytest.mark.timeout(1800)
def test_the_image_is_built_and_serves_a_bot() -> None:
    compose = DOCKERFILE.with_name("compose.yaml").read_text(encoding="utf-8")
    assert [line for line in CONFINED if f"    {line}\n" not in compose] == [], "a container is run otherwise here"
    stages = read_dockerfile()
    wanted = requirements(stages)
    if builder := find_builder(stages[-1]):
        with Built(builder) as container:
            check_container(container, stages[-1])
    else:
        with tempfile.TemporaryDirectory(prefix="posthouse-image-") as folder:
            play_steps(wanted, Path(folder))
