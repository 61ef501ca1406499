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
    from sockproto.interfaces import Debt, IOwing
    from sockproto.policies.admission import Admission, Gate
    from sockproto.policies.datagram_admission import DatagramAdmission
    from sockproto.policies.datagrams import DatagramRateLimit
    from sockproto.policies.draining import Drain, Draining, State
    from sockproto.policies.idle import IdleTimeout
    from sockproto.policies.proxied import BehindProxy
    from sockproto.policies.rate import RateLimit, TotalRate
    from sockproto.policies.stalled import StalledTimeout
    from sockproto.policies.unsent import UnsentLimit
    from sockproto.reporting import Log
    from sockproto.service import make_service
    from sockproto.settings import Settings
    from sockproto.wire.framing import Framing
    from sockproto.wire.response import Limits
    from sockproto.wrapping import ConnectionWrapper, DatagramWrapper, FactoryWrapper


_HOMES = {
    "Admission": "policies.admission",
    "BehindProxy": "policies.proxied",
    "ConnectionWrapper": "wrapping",
    "DatagramAdmission": "policies.datagram_admission",
    "DatagramHelloClient": "datagram",
    "DatagramRateLimit": "policies.datagrams",
    "DatagramWrapper": "wrapping",
    "Debt": "interfaces",
    "Drain": "policies.draining",
    "Draining": "policies.draining",
    "EchoClient": "echo",
    "EchoDatagramProtocol": "datagram",
    "EchoFactory": "echo",
    "EchoProtocol": "echo",
    "FactoryWrapper": "wrapping",
    "FetchObserver": "fetching",
    "FetchProtocol": "fetching",
    "Framing": "wire.framing",
    "Gate": "policies.admission",
    "HelloClient": "hello",
    "HelloDatagramProtocol": "datagram",
    "HelloFactory": "hello",
    "HelloProtocol": "hello",
    "Host": "connecting",
    "IOwing": "interfaces",
    "IdleTimeout": "policies.idle",
    "Limits": "wire.response",
    "Log": "reporting",
    "MisuseError": "errors",
    "Observer": "connecting",
    "PeerError": "errors",
    "RateLimit": "policies.rate",
    "Response": "fetching",
    "Settings": "settings",
    "Sink": "fetching",
    "SockprotoError": "errors",
    "StalledTimeout": "policies.stalled",
    "State": "policies.draining",
    "TotalRate": "policies.rate",
    "UnsentLimit": "policies.unsent",
    "connect_datagram_hello": "datagram",
    "connect_echo": "echo",
    "connect_hello": "hello",
    "fetch": "fetching",
    "make_service": "service",
}

__all__ = [
    "Admission",
    "BehindProxy",
    "ConnectionWrapper",
    "DatagramAdmission",
    "DatagramHelloClient",
    "DatagramRateLimit",
    "DatagramWrapper",
    "Debt",
    "Drain",
    "Draining",
    "EchoClient",
    "EchoDatagramProtocol",
    "EchoFactory",
    "EchoProtocol",
    "FactoryWrapper",
    "FetchObserver",
    "FetchProtocol",
    "Framing",
    "Gate",
    "HelloClient",
    "HelloDatagramProtocol",
    "HelloFactory",
    "HelloProtocol",
    "Host",
    "IOwing",
    "IdleTimeout",
    "Limits",
    "Log",
    "MisuseError",
    "Observer",
    "PeerError",
    "RateLimit",
    "Response",
    "Settings",
    "Sink",
    "SockprotoError",
    "StalledTimeout",
    "State",
    "TotalRate",
    "UnsentLimit",
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
