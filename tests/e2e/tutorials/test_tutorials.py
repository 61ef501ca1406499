"""
The clients that socket tutorials print, against a real `twistd`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.programs import PLACE, outcome_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.programs import Program

HERE = Path(__file__).parent
UDP_PLACE = "udp:0:interface=127.0.0.1"


def output_of(client: str, port: int, *arguments: str) -> str:
    """
    Run a client; it must end well and complain of nothing.
    """
    outcome = outcome_of(
        sys.executable, str(HERE / client), "127.0.0.1", str(port), *arguments
    )
    assert (outcome.status, outcome.err) == (0, "")
    return outcome.out.decode()


@pytest.mark.parametrize("options", [(), ("--delay=0.05",)])
def test_tcp(twistd: Callable[..., Program], options: tuple[str, ...]) -> None:
    """The TCP client prints the welcome and three greetings, at any delay."""
    server = twistd(f"--hello={PLACE}", *options)
    assert output_of("tcp_client.py", server.port("hello")) == (
        "Welcome!\nHello, Michael!\nHello, Tracy!\nHello, Sarah!\n"
    )
    server.await_line(r"Accept new connection from 127\.0\.0\.1:\d+\.\.\.")
    server.await_line(r"Connection from 127\.0\.0\.1:\d+ closed\.")


def test_other_words(twistd: Callable[..., Program]) -> None:
    """A tutorial that says `Welcome` and `Hello,NAME!` is served by two options."""
    server = twistd(
        f"--hello={PLACE}",
        "--delay=0.05",
        "--greeting=Welcome",
        "--answer=Hello,NAME!",
    )
    assert output_of("tcp_client.py", server.port("hello")) == (
        "Welcome\nHello,Michael!\nHello,Tracy!\nHello,Sarah!\n"
    )


def test_udp(twistd: Callable[..., Program]) -> None:
    """The UDP client prints a greeting for each of its datagrams."""
    server = twistd(f"--udp={UDP_PLACE}", "--log=messages")
    assert output_of("udp_client.py", server.port("udp")) == (
        "Hello, Michael!\nHello, Tracy!\nHello, Sarah!\n"
    )
    server.await_line(r"Bind UDP on \d+\.\.\.")
    server.await_line(r"Received from 127\.0\.0\.1:\d+\.")


def test_echo(twistd: Callable[..., Program]) -> None:
    """The echo client prints what it sent."""
    server = twistd(f"--echo={PLACE}")
    lines = ("hello", "привет", "exit")
    printed = output_of("echo_client.py", server.port("echo"), *lines)
    assert printed.splitlines() == list(lines)
