"""
What services write into the log, in the words of the tutorials' servers.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.logger import Logger

from sockproto.spelling import host_and_port, spell

if TYPE_CHECKING:
    from twisted.python.failure import Failure

__all__ = ["Log", "describe_address", "describe_loss", "log"]

log = Logger(namespace="sockproto")


class Log(Enum):
    """
    How much a service logs; the values are the option's words.

    Failures of the service itself are logged in each. `CONNECTIONS` adds a line
    when a connection comes and one when it goes, `MESSAGES` one for each name
    and datagram. A line costs tens of microseconds.
    """

    NONE = "none"
    CONNECTIONS = "connections"
    MESSAGES = "messages"


def describe_address(address: object) -> str:
    """
    Spell an address of Twisted's in one line: `127.0.0.1:9999`, `[::1]:9999`, a path.

    What is not printable is escaped: behind `haproxy:`, a host is what the peer says.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii")
        for c in _spelled(address)
    )


def _spelled(address: object) -> str:
    if isinstance(address, IPv4Address | IPv6Address):
        return host_and_port(address.host, address.port)
    if isinstance(address, UNIXAddress):
        # A client of a unix socket has no name unless it bound one.
        name: bytes | str | None = address.name
        if not name:
            return "a unix socket"
        return name if isinstance(name, str) else spell(name)[2:-1]
    return str(address)


def describe_loss(reason: Failure) -> str:
    """
    Say in a word or two why a connection ended, seen from this end.
    """
    if reason.check(ConnectionDone):
        return "the peer closed"
    if reason.check(ConnectionAborted):
        return "aborted"
    message = " ".join(str(reason.value).split()).rstrip(".")
    return f"broken off: {message or type(reason.value).__name__}"
