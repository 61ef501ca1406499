"""
Echo and hello on Twisted with nothing added, on the reactor that is named.

    python twisted_bare.py echo|hello|udp PORT [--reactor=NAME]
"""

from __future__ import annotations

import argparse

from twisted.internet.protocol import DatagramProtocol, Factory, Protocol

BACKLOG = 511
LOOPBACK = "127.0.0.1"


class Echo(Protocol):
    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class Hello(Protocol):
    def connectionMade(self) -> None:
        self.transport.write(b"Welcome!")

    def dataReceived(self, data: bytes) -> None:
        if data == b"exit":
            self.transport.loseConnection()
        else:
            self.transport.write(b"Hello, " + data + b"!")


class DatagramEcho(DatagramProtocol):
    def datagramReceived(self, data: bytes, address: tuple[str, int]) -> None:
        self.transport.write(data, address)


def install(name: str) -> None:
    """
    Install a reactor; `asyncio+uvloop` is Twisted's own for asyncio, on uvloop's loop.
    """
    if name == "asyncio+uvloop":
        import uvloop
        from twisted.internet import asyncioreactor

        asyncioreactor.install(uvloop.new_event_loop())
    elif name != "default":
        from twisted.application.reactors import installReactor

        installReactor(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("service", choices=("echo", "hello", "udp"))
    parser.add_argument("port", type=int)
    parser.add_argument("--reactor", default="default")
    given = parser.parse_args()
    install(given.reactor)

    from twisted.internet import reactor

    if given.service == "udp":
        reactor.listenUDP(given.port, DatagramEcho(), interface=LOOPBACK)
    else:
        factory = Factory.forProtocol(Echo if given.service == "echo" else Hello)
        reactor.listenTCP(given.port, factory, backlog=BACKLOG, interface=LOOPBACK)
    reactor.run()


if __name__ == "__main__":
    main()
