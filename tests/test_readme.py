"""
The examples of the README and of docs/, as they stand there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import unittest
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
FETCH = (ROOT / "docs" / "fetch.md").read_text("utf-8")
LIMITS = (ROOT / "docs" / "limits.md").read_text("utf-8")


def example(name: str) -> str:
    """The code that follows a `tested: NAME` mark."""
    mark = f"<!-- tested: {name} -->"
    found = re.search(
        rf"{mark}\n```python\n(.*?)```", README + FETCH + LIMITS, re.DOTALL
    )
    assert found is not None, name
    return found[1]


def printed(*arguments: str) -> bytes:
    """What Python prints when it is run with these arguments, and succeeds."""
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, timeout=30, check=True
    )
    return done.stdout


def pass_trial(name: str, module: str, folder: Path) -> bytes:
    """What trial prints of an example that passes, written to this module."""
    (folder / f"{module}.py").write_text(example(name))
    done = subprocess.run(
        [sys.executable, "-m", "twisted.trial", module],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_program() -> None:
    """The program with both ends in it runs as it is shown."""
    assert printed("-c", example("program")) == b"b'Welcome!' b'Hello, Michael!'\n"


def test_unittest(tmp_path: Path) -> None:
    """The unit test passes under trial, as it is shown."""
    said = pass_trial("unittest", "test_hello_example", tmp_path)
    assert b"PASSED (successes=1)" in said


@pytest.fixture
def tac(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The .tac file under twistd, on a port that is free."""
    code = example("tac")
    assert "tcp:9999:" in code
    (tmp_path / "hello.tac").write_text(code.replace("tcp:9999:", "tcp:0:"))
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("twistd")), "-ny", "hello.tac"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def test_tac(tac: subprocess.Popen[str]) -> None:
    """The .tac file makes a service that answers."""
    assert tac.stdout is not None
    line = ""
    for line in tac.stdout:
        if "hello listens on " in line:
            break
    port = re.search(r"127\.0\.0\.1:(\d+)", line)
    assert port is not None
    said = printed("-m", "sockproto", "hello", "-c", port[0], "Michael")
    assert said == b"Welcome!\nHello, Michael!\n"


@pytest.fixture
def page(tmp_path: Path) -> Iterator[int]:
    """The port of Python's own web server, which has the page of docs/fetch.md."""
    (tmp_path / "page.html").write_text("<p>hello</p>")
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    said = re.search(r" port (\d+)", server.stdout.readline())
    assert said is not None
    yield int(said[1])
    server.kill()
    server.communicate()


def run_example(name: str, port: int, folder: Path) -> str:
    """What an example prints, run against the server on this port."""
    code = example(name).replace("8080", str(port))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout


def test_tutorial(page: int, tmp_path: Path) -> None:
    """The tutorial's ten lines do what is said of them."""
    (tmp_path / "there").mkdir()
    printed = run_example("tutorial", page, tmp_path / "there")
    assert printed.startswith("HTTP/1.0 200 OK")
    assert (tmp_path / "there" / "page.html").read_text() == "<p>hello</p>"


def test_fetch(page: int, tmp_path: Path) -> None:
    """The program that fetches prints the status and the size."""
    printed = run_example("fetch", page, tmp_path)
    assert printed.startswith("200 (b'Server', ")
    assert printed.endswith(" 12\n")


def test_protocol(tmp_path: Path) -> None:
    """One exchange over a transport of one's own hands out head and body."""
    assert run_example("protocol", 0, tmp_path) == "200 content-length\nb'hello'\n"


class OptionsTableTests(unittest.TestCase):
    """The table of options names each option, with its default."""

    def test_complete(self) -> None:
        """No option is missing in the README."""
        from sockproto.options import Options

        for name, _, default, _ in Options.optParameters:
            self.assertIn(f"`--{name}=", README)
            if default not in (None, "", "0"):  # of a limit, which may be none
                self.assertIn(f"`{default}`", README)
        for name, _, _ in Options.optFlags:
            self.assertIn(f"`--{name}`", README)

    def test_fetch(self) -> None:
        """No option of fetch is missing in its table."""
        from sockproto.cli import _sockproto

        table = FETCH.partition("## The options")[2]
        for option in _sockproto.commands["fetch"].params:
            if option.param_type_name == "option":
                spelled = [f"`{name}" for name in option.opts]
                self.assertTrue(any(name in table for name in spelled), spelled)


def test_policies() -> None:
    """The stack of policies stands, and tells of its end."""
    assert printed("-c", example("policies")) == b"now draining\nnow stopped\n"


def test_contract(tmp_path: Path) -> None:
    """A wrapper can be held against the contract, as it is shown."""
    assert b"PASSED" in pass_trial("contract", "test_my_wrapper", tmp_path)
