"""
Datagrams, which keep to descriptors.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.error import (
    CannotListenError,
    InvalidAddressError,
    MessageLengthError,
)
from twisted.internet.protocol import DatagramProtocol

from tests.reactors import Contract, in_reactor, on_both


class Datagrams(DatagramProtocol):
    """
    Keeps what it receives; `does` is called with each.
    """

    transport: Any

    def __init__(self, does: Any = None) -> None:
        self.received: list[tuple[bytes, Any]] = []
        self.refused = 0
        self.does = does

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.received.append((datagram, addr))
        if self.does is not None:
            self.does(self, datagram, addr)

    def connectionRefused(self) -> None:
        self.refused += 1


class DatagramContract(Contract):
    def bound(self, protocol: Any = None, host: str = "127.0.0.1", **how: Any) -> Any:
        """A protocol on a port of its own."""
        protocol = Datagrams() if protocol is None else protocol
        self.reactor.listenUDP(0, protocol, interface=host, **how)
        return protocol

    def raw(self, host: str = "127.0.0.1") -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.bind((host, 0))
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        self.addCleanup(sock.close)
        return sock

    def address(self, protocol: Any) -> tuple[str, int]:
        host = protocol.transport.getHost()
        return host.host, host.port

    @in_reactor
    async def test_both_ways(self) -> None:
        """Whoever sends can be answered, over IPv4 and IPv6, also with nothing."""
        for host in ("127.0.0.1", "::1"):
            server = self.bound(
                Datagrams(lambda p, data, addr: p.transport.write(data, addr)), host
            )
            client = self.bound(host=host)
            for data in (b"hello", b"", b"x" * 8_000):
                client.transport.write(data, self.address(server))
            await self.until(lambda client=client: len(client.received) == 3)
            self.assertEqual(
                client.received,
                [(d, self.address(server)) for d in (b"hello", b"", b"x" * 8_000)],
            )
            await server.transport.stopListening()
            await client.transport.stopListening()

    @in_reactor
    async def test_largest(self) -> None:
        """A datagram of 65,507 bytes is sent and received; a larger one is refused."""
        server = self.bound(maxPacketSize=65_535)
        client = self.bound()
        client.transport.write(b"x" * 65_507, self.address(server))
        await self.until(lambda: server.received)
        self.assertEqual(len(server.received[0][0]), 65_507)
        self.assertRaises(
            MessageLengthError,
            client.transport.write,
            b"x" * 65_508,
            self.address(server),
        )
        await server.transport.stopListening()
        await client.transport.stopListening()

    @in_reactor
    async def test_answer_too_large(self) -> None:
        """So it is if it was to go to the address that has just sent."""
        raised: list[type[BaseException]] = []

        def answer(protocol: Datagrams, data: bytes, addr: Any) -> None:
            try:
                protocol.transport.write(b"x" * 65_508, addr)
            except MessageLengthError as error:
                raised.append(type(error))

        server = self.bound(Datagrams(answer))
        self.raw().sendto(b"x", self.address(server))
        await self.until(lambda: server.received)
        self.assertEqual(raised, [MessageLengthError])
        await server.transport.stopListening()

    @in_reactor
    async def test_address_of_another_kind(self) -> None:
        """A name, or the other family's address, is refused where it is written."""
        of4, of6 = self.bound(), self.bound(host="::1")
        for port, host in ((of4, "::1"), (of6, "127.0.0.1"), (of4, "localhost")):
            self.assertRaises(
                InvalidAddressError, port.transport.write, b"x", (host, 9)
            )
        await of4.transport.stopListening()
        await of6.transport.stopListening()

    @in_reactor
    async def test_connected(self) -> None:
        """A connected port hears its peer alone, and that nobody is there."""
        peer, other = self.raw(), self.raw()
        protocol = self.bound()
        protocol.transport.connect(*peer.getsockname())
        other.sendto(b"not heard", self.address(protocol))
        peer.sendto(b"heard", self.address(protocol))
        protocol.transport.write(b"to the peer")
        await self.until(lambda: protocol.received)
        self.assertEqual(protocol.received, [(b"heard", peer.getsockname())])
        self.assertEqual(peer.recv(100), b"to the peer")
        if self.ours:  # with epoll, Twisted's port is closed by it
            peer.close()
            for count in (1, 2):
                protocol.transport.write(b"x")
                await self.until(lambda count=count: protocol.refused == count)
        await protocol.transport.stopListening()

    @in_reactor
    async def test_burst(self) -> None:
        """2,000 datagrams at once are all received, in order."""
        protocol = self.bound()
        protocol.transport.getHandle().setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVBUF, 8_000_000
        )
        room = protocol.transport.getHandle().getsockopt(
            socket.SOL_SOCKET, socket.SO_RCVBUF
        )
        count = min(2_000, room // 1_280)  # what the kernel counts for a small one
        sender = self.raw()
        for number in range(count):
            sender.sendto(b"%d" % number, self.address(protocol))
        await self.until(lambda: len(protocol.received) == count)
        self.assertEqual(
            [each for each, _ in protocol.received],
            [b"%d" % number for number in range(count)],
        )
        await protocol.transport.stopListening()

    @in_reactor
    async def test_raising(self) -> None:
        """What a protocol raises is logged; the port goes on."""

        def fail(protocol: Datagrams, data: bytes, addr: Any) -> None:
            if data == b"bad":
                raise OSError(9, "a test's")

        protocol = self.bound(Datagrams(fail))
        sender = self.raw()
        for data in (b"bad", b"good", b"bad", b"good"):
            sender.sendto(data, self.address(protocol))
        await self.until(lambda: len(protocol.received) == 4)
        self.assertEqual(self.logged(OSError), [OSError, OSError])
        await protocol.transport.stopListening()

    @in_reactor
    async def test_stopped_while_receiving(self) -> None:
        """A port can be stopped in `datagramReceived`; it ends with its turn."""

        def stop(protocol: Datagrams, *_: object) -> None:
            if len(protocol.received) == 1:
                protocol.transport.stopListening()

        protocol = self.bound(Datagrams(stop))
        sender = self.raw()
        for _ in range(5):
            sender.sendto(b"x", self.address(protocol))
        await self.until(lambda: protocol.transport is None)
        received = len(protocol.received)
        await self.turns()
        self.assertEqual(len(protocol.received), received)

    @in_reactor
    async def test_paused(self) -> None:
        """A port that does not read leaves what comes to the kernel."""
        protocol = self.bound()
        protocol.transport.pauseProducing()
        self.raw().sendto(b"x", self.address(protocol))
        await self.turns()
        self.assertEqual(protocol.received, [])
        protocol.transport.resumeProducing()
        await self.until(lambda: protocol.received)
        await protocol.transport.stopListening()

    @in_reactor
    async def test_in_use(self) -> None:
        """A port that another has cannot be had."""
        taken = self.raw()
        self.assertRaises(
            CannotListenError,
            self.reactor.listenUDP,
            taken.getsockname()[1],
            Datagrams(),
            interface="127.0.0.1",
        )

    @in_reactor
    async def test_adopted(self) -> None:
        """A socket of another's can be served; its owner keeps it."""
        own = self.raw()
        protocol = Datagrams()
        port = self.reactor.adoptDatagramPort(own.fileno(), socket.AF_INET, protocol)
        self.raw().sendto(b"x", own.getsockname())
        await self.until(lambda: protocol.received)
        await port.stopListening()
        self.raw().sendto(b"y", own.getsockname())
        await self.turns()
        self.assertEqual(own.recv(10), b"y")

    @in_reactor
    async def test_multicast(self) -> None:
        """A group can be joined, and left."""
        protocol = Datagrams()
        port = self.reactor.listenMulticast(0, protocol, interface="127.0.0.1")
        await port.joinGroup("224.0.0.111", "127.0.0.1")
        await port.leaveGroup("224.0.0.111", "127.0.0.1")
        await port.stopListening()


globals().update(on_both(DatagramContract))
