"""
Compiles the load generator and the peers that are not Python's.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

__all__ = ["NotCompiled", "c_compiler", "compile_all"]

HERE = Path(__file__).parent

C_COMPILERS = ("cc", "gcc", "clang")

COMPILING_SECONDS = 300
"""Go compiles its standard library the first time."""


class NotCompiled(Exception):
    """
    A program that is needed could not be compiled.
    """


def c_compiler() -> str | None:
    """
    Find a C compiler; None where there is none.
    """
    return next(filter(None, map(shutil.which, C_COMPILERS)), None)


def compile_all(into: Path) -> dict[str, Path]:
    """
    Compile what there is a compiler for; return the programs by name.

    `load` and `epoll` are always among them, `go` where Go is installed.

    Raises:
        NotCompiled: with the reason, in one line.
    """
    compiler = c_compiler()
    if compiler is None:
        names = ", ".join(C_COMPILERS)
        raise NotCompiled(f"the load generator needs a C compiler: no {names} here")
    programs = {}
    for name, source in (("load", HERE / "load.c"), ("epoll", HERE / "peers/epoll.c")):
        programs[name] = into / name
        _run(compiler, "-O2", "-o", str(programs[name]), str(source))
    if go := shutil.which("go"):
        programs["go"] = into / "go"
        source = HERE / "peers/go/main.go"
        _run(go, "build", "-o", str(programs["go"]), str(source))
    return programs


def _run(*command: str) -> None:
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            check=False,
            text=True,
            timeout=COMPILING_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise NotCompiled(f"{name} took more than {COMPILING_SECONDS} s") from None
    except OSError as error:
        raise NotCompiled(f"{name}: {error.strerror}") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        said = next((line for line in lines if "error" in line), "".join(lines[-1:]))
        raise NotCompiled(f"{name} ended with status {done.returncode}: {said}")
