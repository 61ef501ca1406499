"""
Starts the services as users do, and ends them whatever happens.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from .programs import PATIENCE, SERVE, TWISTD, Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def start() -> Iterator[Callable[..., Program]]:
    """Start a program; in the end it is killed, and no traceback may be in its log."""
    running: list[Program] = []

    def begin(*command: str, **options: Callable[[], object]) -> Program:
        running.append(Program(*command, **options))
        return running[-1]

    yield begin
    for program in running:
        program.end()
    for program in running:
        assert "Traceback" not in program.log, program.log


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What hears what a service tells systemd."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hears:
        hears.bind(str(path))
        hears.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield hears


@pytest.fixture
def serve(start: Callable[..., Program]) -> Callable[..., Program]:
    """Start `sockproto serve` with these options."""
    return lambda *options: start(*SERVE, *options)


@pytest.fixture
def twistd(start: Callable[..., Program]) -> Callable[..., Program]:
    """Start `twistd -n sockproto` with these options."""
    return lambda *options: start(*TWISTD, "-n", "--pidfile=", "sockproto", *options)
