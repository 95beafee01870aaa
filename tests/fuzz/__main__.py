"""Looks for frames that break the core, guided by the lines that they reach; needs the `fuzz` extra.

    make fuzz SECONDS=600

Begins with the corpus beside this file and with every frame of `mutations`, and changes plays (`script`) by their
bytes and by their frames. A play that breaks something is written to `found/`, and plays again by its name:

    python -m tests.fuzz tests/fuzz/found/crash-…

With `--keep`, what reached new lines is boiled down to a corpus as small as it can be, and replaces the one that is
kept; the normal suite replays that.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import click

from .mutations import CLIENT_FRAMES, mutated, write
from .script import play

__all__ = ["main"]

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
FOUND = HERE / "found"

PLAY_BYTES_MAX = 4096
_SECONDS_A_PLAY = 10
_LINE_BYTES_MAX = 600
"""Lines longer than this are not kept: a corpus is for reading, too."""

_NEW_MOVES_MIN = 3
"""A play is kept for so many moves from line to line that none before it makes."""

_EVENTS = [b".", b".", b"-", b"+", b"*", b"!a", b"^"]


def _seeds(folder: Path) -> None:
    """Write every valid frame as a play: said by one bot, committed, and said by the other."""
    for number, frame in enumerate(CLIENT_FRAMES):
        raw = write(frame)
        (folder / f"seed-{number:03}").write_bytes(b"a" + raw + b"\n.\nb" + raw + b"\n.\n+\n*\n.")


def _dictionary(path: Path) -> None:
    """Write the names and values that frames are made of, in libFuzzer's form."""
    words = {f'"{name}"' for frame in CLIENT_FRAMES for name in frame}
    words |= {f'"{frame["op"]}"' for frame in CLIENT_FRAMES}
    lines = [word.replace("\\", "\\\\").replace('"', '\\"') for word in sorted(words)]
    path.write_text("".join(f'"{line}"\n' for line in lines), encoding="ascii")


def _changed(fuzzer: Any, data: bytes, bytes_max: int, seed: int) -> bytes:
    """Change a play: half of the time by libFuzzer's bytes, else by one of its lines."""
    chance = random.Random(seed)
    if chance.random() < 0.5:
        changed: bytes = fuzzer.Mutate(data, bytes_max)
        return changed
    lines = data.split(b"\n")
    place = chance.randrange(len(lines) + 1)
    if chance.random() < 0.3:
        del lines[place : place + chance.randint(1, 3)]
    elif chance.random() < 0.3:
        lines.insert(place, chance.choice(_EVENTS))
    else:
        frame = mutated(chance.choice(CLIENT_FRAMES), chance).replace(b"\n", b" ")
        lines.insert(place, chance.choice([b"a", b"b", b"c"]) + frame)
    return b"\n".join(lines)[:bytes_max]


def _fuzz(arguments: Sequence[str]) -> None:
    """Run libFuzzer in this process; it ends the process."""
    fuzzer = importlib.import_module("atheris")
    # Whatever keeps a class of the core is imported again, too: each is another one then.
    for name in sorted(sys.modules):
        if name.startswith(("bus.", "store.", "tests.pure.", "tests.fuzz.")) and name != __name__:
            del sys.modules[name]
    with fuzzer.instrument_imports(include=["bus", "store"]):
        instrumented = importlib.import_module("tests.fuzz.script").play

    def change(data: bytes, bytes_max: int, seed: int) -> bytes:
        return _changed(fuzzer, data, bytes_max, seed)

    fuzzer.Setup([sys.argv[0], *arguments], lambda data: instrumented(data) and None, custom_mutator=change)
    fuzzer.Fuzz()


def _run(*arguments: str) -> int:
    """Run libFuzzer in a process of its own."""
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    command = [sys.executable, "-m", "tests.fuzz", "--inside", "--", *arguments]
    return subprocess.run(command, env=environment, check=False).returncode


def _moves(data: bytes) -> set[tuple[str, int, int]]:
    """Play a play, and give the moves from line to line of the packages that it makes."""
    found: set[tuple[str, int, int]] = set()
    packages = tuple(str(HERE.parents[1] / name) for name in ("bus", "store"))

    def enter(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(packages):
            return None
        last = 0

        def step(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal last
            found.add((frame.f_code.co_filename, last, frame.f_lineno))
            last = frame.f_lineno
            return step

        return step

    sys.settrace(enter)
    try:
        play(data)
    finally:
        sys.settrace(None)
    return found


def _keep(reached: Path) -> int:
    """Replace the corpus that is kept: the shortest plays first, each of which makes a move that is new."""
    plays = {path.read_bytes() for folder in (CORPUS, reached) for path in folder.glob("*")}
    plays = {data for data in plays if max(map(len, data.split(b"\n"))) <= _LINE_BYTES_MAX}
    kept: list[bytes] = []
    seen: set[tuple[str, int, int]] = set()
    for data in sorted(plays, key=lambda data: (len(data), data)):
        moves = _moves(data)
        if len(moves - seen) >= _NEW_MOVES_MIN:
            kept.append(data)
            seen |= moves
    shutil.rmtree(CORPUS, ignore_errors=True)
    CORPUS.mkdir()
    for data in kept:
        (CORPUS / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
    return len(kept)


@click.command()
@click.option("--seconds", default=600, show_default=True, help="How long to look.")
@click.option("--seed", type=int, help="By default a new one, which is printed.")
@click.option("--keep", is_flag=True, help="Replace the corpus by the fewest plays that reach as much.")
@click.option("--inside", is_flag=True, hidden=True)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def main(seconds: int, seed: int | None, keep: bool, inside: bool, arguments: tuple[str, ...]) -> None:
    """Look for frames that break the core; or play files again."""
    if inside:
        _fuzz(arguments)
        return
    if arguments:
        for name in arguments:
            click.echo(f"{name}: {play(Path(name).read_bytes())}")
        return
    if importlib.util.find_spec("atheris") is None:
        raise click.ClickException("atheris is missing: pip install -e '.[fuzz]'")
    seed = random.SystemRandom().randrange(1, 2**31) if seed is None else seed
    click.echo(f"seed {seed}")
    FOUND.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        seeds, reached, words = Path(folder, "seeds"), Path(folder, "reached"), Path(folder, "words")
        seeds.mkdir()
        reached.mkdir()
        _seeds(seeds)
        _dictionary(words)
        code = _run(
            f"-max_total_time={seconds}", f"-max_len={PLAY_BYTES_MAX}", f"-timeout={_SECONDS_A_PLAY}",
            f"-seed={seed}", f"-dict={words}", f"-artifact_prefix={FOUND}/", "-print_final_stats=1",
            str(reached), str(seeds), str(CORPUS),
        )  # fmt: skip
        if keep:
            click.echo(f"{_keep(reached)} plays are kept")
    if code:
        raise click.ClickException(f"a play broke something; it is in {FOUND}")


if __name__ == "__main__":
    main()
