"""
What the figures are of: the machine, and the versions of all that took part.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from compiling import c_compiler

__all__ = ["machine", "versions"]

PACKAGES = ("Twisted", "uvloop", "sockproto")

GIB = 1 << 30


def machine() -> dict[str, str]:
    """
    Describe this machine, without its name.
    """
    cpu = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    values = {}
    for line in cpu.splitlines():
        name, _, value = line.partition(":")
        values[name.strip()] = value.strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    kind = ", a virtual machine" if "hypervisor" in values.get("flags", "") else ""
    return {
        "processor": values.get("model name") or platform.machine(),
        "cores": f"{len(os.sched_getaffinity(0))} to use, of {os.cpu_count()}{kind}",
        "memory": f"{memory / GIB:.1f} GiB",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """
    Tell the versions of what takes part and is here.
    """
    found = {
        "Python": f"{platform.python_implementation()} {platform.python_version()}"
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    here = str(Path(__file__).parent)
    if commit := _first_line("git", "-C", here, "describe", "--always", "--dirty"):
        found["sockproto"] = f"{found.get('sockproto', '')} ({commit})".strip()
    if compiler := c_compiler():
        found["C"] = _first_line(compiler, "--version")
    if go := _first_line("go", "version"):
        found["Go"] = go.removeprefix("go version ")
    return found


def _first_line(*command: str) -> str:
    """Return what a program says first; nothing where it is missing or fails."""
    if not shutil.which(command[0]):
        return ""
    done = subprocess.run(
        command, capture_output=True, check=False, text=True, timeout=30
    )
    return done.stdout.partition("\n")[0] if not done.returncode else ""
