"""
Who is measured: a row for each server.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BASELINE", "SERVERS", "Server", "lacking"]

PEERS = Path(__file__).parent / "peers"

SERVICES = ("echo", "hello", "udp")


@dataclass(frozen=True, slots=True)
class Server:
    """
    One server.

    Args:
        name: what `--servers` calls it.
        title: what it is, in words.
        commands: how to start each service that it has. `{port}` is its port, and
            `{epoll}` and `{go}` are the compiled peers.
        needs: what has to be there, as `lacking` reads it.
        cores: how many it gets.
        is_ours: whether sockproto has a part in it; the plots show that.
    """

    name: str
    title: str
    commands: Mapping[str, tuple[str, ...]]
    needs: tuple[str, ...] = ()
    cores: int = 1
    is_ours: bool = False


def _peer(*program: str, options: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    return {service: (*program, service, "{port}", *options) for service in SERVICES}


def _script(name: str, *options: str) -> dict[str, tuple[str, ...]]:
    return _peer(sys.executable, str(PEERS / name), options=options)


def _serve(*options: str) -> dict[str, tuple[str, ...]]:
    command = (sys.executable, "-m", "sockproto", "serve", "--log=none", *options)
    place = "{port}:interface=127.0.0.1"
    return {
        "echo": (*command, f"--echo=tcp:{place}"),
        "hello": (*command, "--delay=0", f"--hello=tcp:{place}"),
        "udp": (*command, f"--udp-echo=udp:{place}"),
    }


BASELINE = "twisted"
"""The server that each is compared with."""

SERVERS = (
    Server(
        BASELINE,
        "Twisted, a bare Protocol on its epoll reactor",
        _script("twisted_bare.py"),
    ),
    Server(
        "twisted-asyncio",
        "the same on Twisted's asyncio reactor with uvloop's loop",
        _script("twisted_bare.py", "--reactor=asyncio+uvloop"),
        needs=("module uvloop",),
    ),
    Server(
        "twisted-uvloop",
        "the same on sockproto's uvloop reactor",
        _script("twisted_bare.py", "--reactor=uvloop"),
        needs=("module uvloop", "reactor uvloop"),
        is_ours=True,
    ),
    Server(
        "asyncio",
        "asyncio, a bare Protocol",
        _script("asyncio_bare.py"),
    ),
    Server(
        "uvloop",
        "the same on uvloop",
        _script("asyncio_bare.py", "--loop=uvloop"),
        needs=("module uvloop",),
    ),
    Server(
        "go",
        "Go, a goroutine a connection",
        _peer("{go}"),
        needs=("compiler go",),
    ),
    Server(
        "epoll",
        "C with epoll, one thread",
        _peer("{epoll}"),
    ),
    Server(
        "sockproto",
        "sockproto serve, as it starts by itself",
        _serve(),
        is_ours=True,
    ),
    Server(
        "sockproto-epoll",
        "sockproto serve on Twisted's epoll reactor",
        _serve("--reactor=stock"),
        needs=("option --reactor",),
        is_ours=True,
    ),
    Server(
        "sockproto-uvloop",
        "sockproto serve on its uvloop reactor",
        _serve("--reactor=uvloop"),
        needs=("module uvloop", "option --reactor"),
        is_ours=True,
    ),
    Server(
        "sockproto-workers",
        "sockproto serve with two workers, as it starts by itself",
        _serve("--workers=2"),
        needs=("option --workers",),
        cores=2,
        is_ours=True,
    ),
)


def lacking(server: Server, compiled: Mapping[str, Path]) -> str | None:
    """
    Tell what a server needs that is not here; None where all is.
    """
    for need in server.needs:
        kind, name = need.split()
        if kind == "compiler" and name not in compiled:
            return f"there is no compiler for {name}"
        if kind == "module" and not find_spec(name):
            return f"the package {name} is not installed"
        if kind == "reactor" and name not in _reactors():
            return f"Twisted knows no reactor {name}"
        if kind == "option" and name not in _options_of_serve():
            return f"sockproto serve has no option {name}"
    return None


@cache
def _reactors() -> frozenset[str]:
    from twisted.application.reactors import getReactorTypes

    return frozenset(each.shortName for each in getReactorTypes())


@cache
def _options_of_serve() -> str:
    return subprocess.run(
        (sys.executable, "-m", "sockproto", "serve", "--help"),
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    ).stdout
