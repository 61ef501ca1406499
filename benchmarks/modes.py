"""
What is measured: a row for each kind of work.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MODES", "Mode"]


@dataclass(frozen=True, slots=True)
class Mode:
    """
    One kind of work.

    Args:
        name: what `--only` calls it.
        title: what is done, in words.
        service: which of a server's services does it: echo, hello or udp.
        kind: the load generator's subcommand.
        connections: how many of them, or sockets.
        options: of the load generator, beside that.
        unit: of work; its processor time is the figure.
    """

    name: str
    title: str
    service: str
    kind: str
    connections: int = 1
    options: tuple[str, ...] = ()
    unit: str = "message"

    @property
    def is_idle(self) -> bool:
        """Whether memory is the figure, and the time that opening took."""
        return self.kind == "idle"


MODES = (
    Mode("echo1", "echo, 1 connection, 64 bytes", "echo", "ping"),
    Mode("echo64", "echo, 64 connections, 64 bytes", "echo", "ping", 64),
    Mode("echo1000", "echo, 1,000 connections, 64 bytes", "echo", "ping", 1000),
    Mode(
        "hello64",
        "hello, 64 connections, names of 16 bytes",
        "hello",
        "ping",
        64,
        options=("--hello", "--size=16"),
    ),
    Mode("stream", "echo, one endless stream", "echo", "stream", unit="MiB"),
    Mode(
        "conn",
        "echo: connect, one message of 64 bytes, close; 16 at a time",
        "echo",
        "connect",
        16,
        unit="connection",
    ),
    Mode(
        "udp64",
        "UDP echo, 64 datagrams of 64 bytes in flight, from 4 sockets",
        "udp",
        "datagrams",
        4,
        options=("--window=64",),
        unit="datagram",
    ),
    Mode(
        "idle10k",
        "10,000 idle connections, each of which has been served once",
        "echo",
        "idle",
        10_000,
        unit="connection",
    ),
)
