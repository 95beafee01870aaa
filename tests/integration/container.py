"""A container of the image, and what is expected of it, whoever made and runs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from ..wheel import PIP_SECONDS, RUN_SECONDS, TALK, run
from .image import DOCKERFILE, Stage
from .wire_worker import REPOSITORY

__all__ = ["CONFINED", "Built", "Container", "attempt", "check_container", "find_builder"]

CONFINED = {
    "read_only: true": "--read-only",
    "tmpfs: [/tmp]": "--tmpfs=/tmp",
    "cap_drop: [ALL]": "--cap-drop=ALL",
    'security_opt: ["no-new-privileges:true"]': "--security-opt=no-new-privileges",
}
"""How compose.yaml runs the image, and the same as options of a command."""

_BUILDERS = {"docker": "--no-cache", "podman": "--layers=false"}
"""Programs that build and run images, and how each makes a build use nothing of an earlier one."""

_TIMED_OUT = 124


class Container(Protocol):
    """A container that was started."""

    def execute(self, *arguments: str, seconds: float, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program inside, as the image's user; see `attempt`."""

    def log(self) -> str:
        """Return what the container wrote."""

    def stop(self) -> int:
        """Send the image's signal, and return the exit code."""


def attempt(
    arguments: Sequence[str], seconds: float, environment: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str]:
    """Run a program that may fail; its errors are in its output, and a timeout is an exit code."""
    try:
        return subprocess.run(
            arguments,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said = f"{error.output or b''!r}\nnot done within {seconds:g} s"
        return subprocess.CompletedProcess(arguments, _TIMED_OUT, said)


def check_container(container: Container, image: Stage) -> None:
    """Check that a container becomes healthy, is confined, has a key for a bot, and stops in order."""
    deadline = time.monotonic() + RUN_SECONDS
    while (asked := container.execute(*image.check, seconds=image.check_seconds)).returncode:
        said = f"{' '.join(image.check)} says:\n{asked.stdout}\nthe worker's log:\n{container.log()}"
        assert time.monotonic() < deadline, f"the container is not healthy: {said}"
    nowhere = container.execute(*image.check, seconds=image.check_seconds, POSTHOUSE_URL="tcp://127.0.0.1:1")
    assert nowhere.returncode, "the health check finds a worker where there is none"

    def output(*arguments: str, **environment: str) -> str:
        done = container.execute(*arguments, seconds=RUN_SECONDS, **environment)
        assert done.returncode == 0, f"{arguments} failed:\n{done.stdout}\nthe worker's log:\n{container.log()}"
        return done.stdout

    status = dict(line.split(":", 1) for line in output("cat", "/proc/1/status").splitlines())
    user, group = output("id", "-u", image.user).strip(), output("id", "-g", image.user).strip()
    assert "0" not in (user, group), "the image runs as root"
    assert (status["Uid"].split(), status["Gid"].split()) == ([user] * 4, [group] * 4), status
    assert {int(status[each], 16) for each in ("CapEff", "CapPrm", "CapBnd")} == {0}, status
    assert status["NoNewPrivs"].strip() == "1", status
    assert output("readlink", "/proc/1/cwd").strip() == image.folder, "the worker is in another folder"
    mounts = output("cat", "/proc/1/mounts")
    assert re.search(r"^\S+ / \S+ ro,", mounts, re.MULTILINE), f"the files can be changed:\n{mounts}"
    listening = re.findall(r"^ *\d+: 00000000:(\w{4}) \S+ 0A ", output("cat", "/proc/1/net/tcp"), re.MULTILINE)
    assert {int(port, 16) for port in listening} == image.ports, "what listens is not what EXPOSE says"

    command, tap = (f"tcp://127.0.0.1:{port}" for port in sorted(image.ports))
    output("posthouse", "keys", "new", "tester", "--bot-url", command, "--bot-tap", tap)
    output("python", "-c", TALK, command, POSTHOUSE_CREDENTIALS=f"{image.volumes[0]}/tester.creds")
    code = container.stop()
    assert code == 0, f"the worker ended with exit code {code} after {image.stop.name}:\n{container.log()}"


def find_builder(image: Stage) -> str | None:
    """Return the first program that runs containers here, and has or gets the image that this one is built on."""

    def works(*arguments: str) -> bool:
        return attempt(arguments, PIP_SECONDS).returncode == 0

    for name in filter(shutil.which, _BUILDERS):
        if works(name, "info") and (
            works(name, "image", "inspect", image.base) or works(name, "pull", "--quiet", image.base)
        ):
            return name
    return None


class Built:
    """An image that a builder made, and a container of it; both are removed."""

    def __init__(self, builder: str) -> None:
        self._builder, self._name = builder, f"posthouse-test-{os.getpid()}"

    def __enter__(self) -> Self:
        try:
            build = ("build", _BUILDERS[self._builder], "--file", str(DOCKERFILE), "--tag", self._name)
            self._run(*build, str(REPOSITORY))
            self._run("run", "--detach", "--name", self._name, *CONFINED.values(), self._name)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def execute(self, *arguments: str, seconds: float, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program in the container."""
        options = [f"--env={name}={text}" for name, text in environment.items()]
        return attempt([self._builder, "exec", *options, self._name, *arguments], seconds)

    def log(self) -> str:
        """Return what the container wrote."""
        return attempt([self._builder, "logs", self._name], RUN_SECONDS).stdout

    def stop(self) -> int:
        """Stop the container, and return its exit code."""
        self._run("stop", f"-t{RUN_SECONDS:.0f}", self._name)
        return int(self._run("inspect", "--format={{.State.ExitCode}}", self._name))

    def _remove(self) -> None:
        attempt([self._builder, "rm", "--force", "--volumes", self._name], RUN_SECONDS)
        attempt([self._builder, "rmi", "--force", self._name], RUN_SECONDS)

    def _run(self, *arguments: str) -> str:
        return run([self._builder, *arguments], REPOSITORY, PIP_SECONDS)
