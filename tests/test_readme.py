"""
The README's examples, as they stand there.
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


def example(name: str) -> str:
    """The code that follows a `tested: NAME` mark."""
    mark = f"<!-- tested: {name} -->"
    found = re.search(rf"{mark}\n```python\n(.*?)```", README, re.DOTALL)
    assert found is not None, name
    return found[1]


def test_program() -> None:
    """The program with both ends in it runs as it is shown."""
    done = subprocess.run(
        [sys.executable, "-c", example("program")],
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == b"b'Welcome!' b'Hello, Michael!'\n"


def test_unittest(tmp_path: Path) -> None:
    """The unit test passes under trial, as it is shown."""
    (tmp_path / "test_hello_example.py").write_text(example("unittest"))
    done = subprocess.run(
        [sys.executable, "-m", "twisted.trial", "test_hello_example"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert b"PASSED (successes=1)" in done.stdout


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
    done = subprocess.run(
        [sys.executable, "-m", "sockproto", "hello", "-c", port[0], "Michael"],
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == b"Welcome!\nHello, Michael!\n"


class OptionsTableTests(unittest.TestCase):
    """The table of options names each option, with its default."""

    def test_complete(self) -> None:
        """No option is missing in the README."""
        from sockproto.options import Options

        for name, _, default, _ in Options.optParameters:
            self.assertIn(f"`--{name}=", README)
            self.assertIn(f"`{default}`", README)
        for name, _, _ in Options.optFlags:
            self.assertIn(f"`--{name}`", README)
