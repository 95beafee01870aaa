"""The command `posthouse web`: its refusals, its links, and a worker that comes and goes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ..cli.terminal import TIMEOUT_SECONDS, Posthouse
from ..integration.forked_worker import forked_worker
from ..integration.test_metrics import eventually
from .site import Site


def test_a_link_needs_a_page(tmp_path: Path) -> None:
    code, line = Posthouse().refusal("web", "link", "ann", "--folder", tmp_path / "none")
    assert code == 1
    assert line.startswith("posthouse: no page was started with the folder")


def test_a_link_of_the_command_lets_in(tmp_path: Path) -> None:
    with forked_worker(_made(tmp_path / "worker")) as worker, Site(worker, tmp_path / "page") as site:
        link = Posthouse().answer("web", "link", "ann", "--folder", site.folder).strip()
        assert link.startswith(f"{site.origin}/login?link=link-")
        assert "log in once with this link" in site.ask(link.removeprefix(site.origin)).text
        answer = site.post("/login", {"link": link.partition("=")[2]}, {"Origin": site.origin})
        assert (answer.status, answer.headers["location"]) == (303, "/")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--host", "0.0.0.0"), "put a proxy with TLS in front"),
        (("--host", "0.0.0.0", "--origin", "http://a.example"), "put a proxy with TLS in front"),
        (("--origin", "a.example"), "is not like https://posthouse.example.org"),
        (("--origin", "https://a.example/x"), "is not like https://posthouse.example.org"),
    ],
)
def test_what_would_show_everything_to_others_is_refused(
    tmp_path: Path, options: tuple[str, ...], text: str
) -> None:
    ended = Posthouse().run("web", "--folder", tmp_path / "page", *options)
    assert ended.returncode == 2
    assert text in " ".join(ended.stderr.replace("│", " ").split())


def test_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    code, line = Posthouse().refusal("web", "--folder", tmp_path)
    assert (code, "chmod 700" in line) == (78, True)


def test_without_its_packages_it_says_how_to_get_them(tmp_path: Path) -> None:
    without = "import sys; sys.modules['starlette'] = None; from bus.__main__ import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", without, "web", "--folder", str(tmp_path / "page")],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert ended.returncode == 78
    assert ended.stderr == "posthouse: the page needs more packages: pip install 'posthouse[web]'\n"


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    with forked_worker(_made(tmp_path / "worker")) as worker, Site(worker, tmp_path / "page") as site:
        port = site.origin.rpartition(":")[2]
        code, line = Posthouse().refusal("web", "--port", port, "--folder", tmp_path / "other")
        assert (code, "cannot listen at 127.0.0.1:" in line) == (1, True)


def test_the_page_outlives_the_worker(tmp_path: Path) -> None:
    worker = forked_worker(_made(tmp_path / "worker"))
    with worker, Site(worker, tmp_path / "page") as site:
        headers = site.login()
        assert site.ask("/", headers=headers).status == 200
        worker.stop()
        eventually(lambda: site.ask("/", headers=headers).status == 503)
        assert "worker" in site.ask("/", headers=headers).text
        worker.start()
        eventually(lambda: site.ask("/", headers=headers).status == 200)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
