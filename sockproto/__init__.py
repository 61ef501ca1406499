"""
The services and clients of socket tutorials, as a master of Twisted would do them.

The public names are imported when they are first used (PEP 562): importing the
package imports no more than what is used of it, and no reactor.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sockproto.version import __version__

if TYPE_CHECKING:
    from sockproto.connecting import Host, Observer
    from sockproto.datagram import (
        DatagramHelloClient,
        EchoDatagramProtocol,
        HelloDatagramProtocol,
        connect_datagram_hello,
    )
    from sockproto.echo import EchoClient, EchoFactory, EchoProtocol, connect_echo
    from sockproto.errors import MisuseError, PeerError, SockprotoError
    from sockproto.fetching import FetchObserver, FetchProtocol, Response, Sink, fetch
    from sockproto.hello import HelloClient, HelloFactory, HelloProtocol, connect_hello
    from sockproto.reporting import Log
    from sockproto.service import make_service
    from sockproto.settings import Settings
    from sockproto.wire.framing import Framing
    from sockproto.wire.response import Limits


_HOMES = {
    "DatagramHelloClient": "datagram",
    "EchoClient": "echo",
    "EchoDatagramProtocol": "datagram",
    "EchoFactory": "echo",
    "EchoProtocol": "echo",
    "FetchObserver": "fetching",
    "FetchProtocol": "fetching",
    "Framing": "wire.framing",
    "HelloClient": "hello",
    "HelloDatagramProtocol": "datagram",
    "HelloFactory": "hello",
    "HelloProtocol": "hello",
    "Host": "connecting",
    "Limits": "wire.response",
    "Log": "reporting",
    "MisuseError": "errors",
    "Observer": "connecting",
    "PeerError": "errors",
    "Response": "fetching",
    "Settings": "settings",
    "Sink": "fetching",
    "SockprotoError": "errors",
    "connect_datagram_hello": "datagram",
    "connect_echo": "echo",
    "connect_hello": "hello",
    "fetch": "fetching",
    "make_service": "service",
}

__all__ = [
    "DatagramHelloClient",
    "EchoClient",
    "EchoDatagramProtocol",
    "EchoFactory",
    "EchoProtocol",
    "FetchObserver",
    "FetchProtocol",
    "Framing",
    "HelloClient",
    "HelloDatagramProtocol",
    "HelloFactory",
    "HelloProtocol",
    "Host",
    "Limits",
    "Log",
    "MisuseError",
    "Observer",
    "PeerError",
    "Response",
    "Settings",
    "Sink",
    "SockprotoError",
    "__version__",
    "connect_datagram_hello",
    "connect_echo",
    "connect_hello",
    "fetch",
    "make_service",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
