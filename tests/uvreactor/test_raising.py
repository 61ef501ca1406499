"""
What a protocol raises, and what it logs.
"""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.python import context, log
from zope.interface import implementer

from sockproto.interfaces import ISteadyReceiver
from tests.reactors import (
    Client,
    Contract,
    HalfCloseable,
    Notes,
    Server,
    SideContract,
    in_reactor,
    on_both,
    on_both_sides,
)


def errors() -> list[Exception]:
    """Some, of which most are what a transport raises itself."""
    return [
        ValueError("a test's"),
        BrokenPipeError(errno.EPIPE, "a test's"),
        ConnectionResetError(errno.ECONNRESET, "a test's"),
        ConnectionAbortedError(errno.ECONNABORTED, "a test's"),
        OSError(errno.EAGAIN, "a test's"),
    ]


@implementer(ISteadyReceiver)
class Steady(Notes):
    """
    One that our transports call with nothing in between.
    """

    def write_to(self, writer: object) -> None:
        self.writes_to = writer


def raiser(error: BaseException) -> Any:
    """Have what raises this, whatever it is given."""

    def raise_it(*_: object) -> None:
        raise error

    return raise_it


class RaisingContract(SideContract):
    async def check_ended(self, protocol: Notes, peer: Any, error: object) -> None:
        await self.lost(protocol)
        assert protocol.reason is not None
        self.assertIs(protocol.reason.value, error)
        self.assertIn(await peer.end(), ("closed", "reset"))
        await self.turns()
        self.assertEqual(self.logged(type(error)), [type(error)])  # type: ignore[arg-type]
        self.assertEqual(protocol.happened.count("connectionLost"), 1)

    @in_reactor
    async def test_in_data_received(self) -> None:
        """It ends the connection, is the reason, and is logged once."""
        for kind in (Notes, Steady):
            for error in errors():
                protocol = kind(dataReceived=raiser(error))
                peer = await self.connection(protocol)
                protocol.transport.write(b"before")
                peer.send(b"x")
                await self.check_ended(protocol, peer, error)

    @in_reactor
    async def test_after_closing(self) -> None:
        """So it is if the protocol had closed, or aborted, before it raised."""
        for way in ("loseConnection", "abortConnection"):
            error = ValueError(way)

            def end_and_raise(
                protocol: Notes,
                _: bytes,
                way: str = way,
                error: ValueError = error,
            ) -> None:
                getattr(protocol.transport, way)()
                raise error

            protocol = Notes(dataReceived=end_and_raise)
            peer = await self.connection(protocol)
            peer.send(b"x")
            await self.lost(protocol)
            self.assertIn(await peer.end(), ("closed", "reset"))
            await self.turns()
            self.assertEqual(self.logged(ValueError), [ValueError])
            self.assertEqual(protocol.happened.count("connectionLost"), 1)

    @in_reactor
    async def test_in_read_connection_lost(self) -> None:
        """So it is if it was raised when the peer had ended."""
        error = BrokenPipeError(errno.EPIPE, "a test's")
        protocol = HalfCloseable(readConnectionLost=raiser(error))
        peer = await self.connection(protocol)
        peer.shut()
        await self.check_ended(protocol, peer, error)

    @in_reactor
    async def test_in_write_connection_lost(self) -> None:
        """So it is if it was raised when our direction had ended."""
        error = ValueError("a test's")
        protocol = HalfCloseable(writeConnectionLost=raiser(error))
        peer = await self.connection(protocol)
        protocol.transport.loseWriteConnection()
        await self.check_ended(protocol, peer, error)

    @in_reactor
    async def test_in_connection_lost(self) -> None:
        """What is raised at the very end is logged once."""
        protocol = Notes(connectionLost=raiser(ValueError("a test's")))
        peer = await self.connection(protocol)
        peer.close()
        await self.lost(protocol)
        await self.turns()
        self.assertEqual(self.logged(ValueError), [ValueError])

    @in_reactor
    async def test_in_resume_producing(self) -> None:
        """So it is if a producer raised it, when asked for more by the transport."""
        error = BrokenPipeError(errno.EPIPE, "a test's")

        @implementer(IPullProducer)
        class Failing:
            count = 0

            def resumeProducing(self) -> None:
                self.count += 1
                if self.count > 1:
                    raise error
                protocol.transport.write(b"x" * 100)

            def stopProducing(self) -> None:
                pass

        protocol = Notes()
        peer = await self.connection(protocol)
        protocol.transport.registerProducer(Failing(), False)
        await self.check_ended(protocol, peer, error)

    @in_reactor
    async def test_in_stop_producing(self) -> None:
        """A producer that cannot be stopped keeps nobody from being told."""
        if not self.ours:
            return  # Twisted's protocol is not told then

        @implementer(IPushProducer)
        class Failing:
            stopProducing = pauseProducing = resumeProducing = raiser(
                ValueError("a test's")
            )

        protocol = Notes()
        peer = await self.connection(protocol)
        protocol.transport.registerProducer(Failing(), True)
        peer.close()
        await self.lost(protocol)
        self.assertEqual(self.logged(ValueError), [ValueError])


def built_by(builder: Any) -> Any:
    """Have the next protocol; an iterator's next, called, is not the iterator."""
    return builder()


class OthersGoOnContract(Contract):
    @in_reactor
    async def test_server_goes_on(self) -> None:
        """One connection's failure, however early, is not the next one's."""

        def fail(*_: object) -> Any:
            raise ValueError("a test's")

        good = Notes()
        builders: list[Any] = [
            lambda: Notes(dataReceived=fail),
            lambda: Notes(connectionLost=fail),
        ]
        if self.ours:  # Twisted's leaves such connections open
            builders += [fail, lambda: Notes(connectionMade=fail)]
        count = len(builders)
        builds = iter([*builders, lambda: good])
        port = self.listen(lambda: built_by(next(builds)))
        for _ in range(count):
            peer = self.peer_of(port)
            peer.send(b"x")
            await self.turns()
            peer.shut()
            await self.turns()
            self.assertEqual(self.logged(ValueError), [ValueError])
            self.assertIn(await peer.end(), ("closed", "reset"))
        peer = self.peer_of(port)
        peer.send(b"x")
        await self.until(lambda: good.received)
        peer.close()
        await self.lost(good)
        await port.stopListening()

    @in_reactor
    async def test_after_a_pause_when_made(self) -> None:
        """What came before it was accepted, and paused, is no exception."""
        for kind in (Notes, Steady):
            error = ValueError("a test's")
            protocol = kind(
                connectionMade=lambda p: p.transport.pauseProducing(),
                dataReceived=raiser(error),
            )
            port = self.listen(lambda protocol=protocol: protocol)
            peer = self.peer_of(port)
            peer.send(b"x")
            await self.until(lambda protocol=protocol: protocol.happened)
            await self.turns()
            self.assertEqual(protocol.received, b"")
            protocol.transport.resumeProducing()
            await self.lost(protocol)
            assert protocol.reason is not None
            self.assertIs(protocol.reason.value, error)
            self.assertEqual(self.logged(ValueError), [ValueError])
            await port.stopListening()

    @in_reactor
    async def test_client_cannot_be_built(self) -> None:
        """What a client's factory raises is logged, and told to it as a failure."""
        listener = self.raw_listener()
        client = Client(raiser(ValueError("a test's")))
        self.reactor.connectTCP(*listener.getsockname(), client)
        peer = await self.accept_from(listener)
        self.assertIn(await peer.end(), ("closed", "reset"))
        await client.done
        self.assertEqual(
            client.happened, ["startedConnecting", "clientConnectionFailed"]
        )
        self.assertEqual(self.logged(ValueError), [ValueError])

    @in_reactor
    async def test_client_raises_when_made(self) -> None:
        """What a client raises in `connectionMade` is the reason of its end."""
        listener = self.raw_listener()
        error = BrokenPipeError(errno.EPIPE, "a test's")
        protocol = Notes(connectionMade=raiser(error))
        client = Client(lambda: protocol)
        self.reactor.connectTCP(*listener.getsockname(), client)
        peer = await self.accept_from(listener)
        self.assertIn(await peer.end(), ("closed", "reset"))
        await client.done
        assert protocol.reason is not None
        self.assertIs(protocol.reason.value, error)
        self.assertEqual(client.happened, ["startedConnecting", "clientConnectionLost"])
        self.assertEqual(self.logged(OSError), [BrokenPipeError])


def system() -> str:
    """What a line of the log would have as its system here."""
    told: Any = context.get(log.ILogContext)
    name: str = told.get("system", "-")
    return name


class LogContextContract(Contract):
    async def systems(self, protocol: Notes) -> dict[str, str]:
        """Where each call says that it was made."""
        seen: dict[str, str] = {}
        for name in ("connectionMade", "dataReceived", "connectionLost"):
            protocol.does[name] = lambda *_, name=name: seen.setdefault(name, system())
        return seen

    @in_reactor
    async def test_server(self) -> None:
        """A server's lines name the port that accepts, then the connection."""
        protocol = Notes()
        seen = await self.systems(protocol)
        depth = len(context.theContextTracker.currentContext().contexts)
        peer = await self.accepted(protocol)
        timers: list[str] = []

        def later(*_: object) -> object:
            return self.reactor.callLater(0, lambda: timers.append(system()))

        received = protocol.does["dataReceived"]
        protocol.does["dataReceived"] = lambda *a: (received(*a), later(*a))
        peer.send(b"x")
        await self.until(lambda: timers)
        peer.close()
        await self.lost(protocol)
        await self.turns()
        self.assertEqual(
            seen,
            {
                "connectionMade": f"{Server.__module__}.Server",
                "dataReceived": "Notes,0,127.0.0.1",
                "connectionLost": "Notes,0,127.0.0.1",
            },
        )
        self.assertEqual(timers, ["-"])
        self.assertEqual(
            len(context.theContextTracker.currentContext().contexts),
            depth,
        )

    @in_reactor
    async def test_client(self) -> None:
        """A client's lines say that it is one."""
        protocol = Notes()
        seen = await self.systems(protocol)
        peer = await self.connected(protocol)
        peer.send(b"x")
        await self.until(lambda: protocol.received)
        peer.close()
        await self.lost(protocol)
        if not self.ours:  # Twisted's knows no better at the beginning
            self.assertEqual(seen.pop("connectionMade"), "Uninitialized")
        self.assertEqual(set(seen.values()), {"Notes,client"})

    @in_reactor
    async def test_kept(self) -> None:
        """What is logged in a connection's name has it, and its errors have."""
        events: list[Any] = []
        log.addObserver(events.append)
        self.addCleanup(log.removeObserver, events.append)

        def say(protocol: Notes, data: bytes) -> None:
            log.msg("a line of the protocol's")
            raise ValueError("a test's")

        protocol = Notes(dataReceived=say)
        peer = await self.accepted(protocol)
        peer.send(b"x")
        await self.lost(protocol)
        self.assertEqual(self.logged(ValueError), [ValueError])
        said = [e for e in events if e.get("message") == ("a line of the protocol's",)]
        self.assertEqual([e["system"] for e in said], ["Notes,0,127.0.0.1"])
        failed = [e for e in events if e.get("isError")]
        self.assertEqual([e["system"] for e in failed], ["Notes,0,127.0.0.1"])


globals().update(on_both_sides(RaisingContract))
globals().update(on_both(OthersGoOnContract, LogContextContract))
