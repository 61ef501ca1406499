"""
How connections end: in order, in one direction, at once, and by whom.
"""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.task import Clock

from sockproto.echo import EchoFactory, EchoProtocol
from tests.reactors import (
    Contract,
    HalfCloseable,
    Notes,
    OnOurs,
    Peer,
    ReactorCase,
    SideContract,
    in_reactor,
    on_both,
    on_both_sides,
)

if TYPE_CHECKING:
    from twisted.python.failure import Failure

BIG = b"0123456789abcdef" * 65_536 * 4
"""More than the kernel takes at once."""


def write_in_pieces(protocol: Notes, *_: object) -> None:
    for piece in (b"220 ", b"hello", b"\r\n"):
        protocol.transport.write(piece)


async def refuse(case: ReactorCase, protocol: Any) -> Any:
    """Have a peer that has asked and closed before it is greeted."""
    port = case.listen(lambda: protocol)
    peer = case.peer_of(port)
    peer.send(b"request")
    peer.close()
    await case.until(lambda: protocol.reason)
    await port.stopListening()
    return protocol


class RefusedContract(Contract):
    """A peer that has closed before it was greeted, and refuses the greeting."""

    @in_reactor
    async def test_heard(self) -> None:
        """What it had sent is received all the same, and the end as it was."""
        protocol = await refuse(self, Notes(connectionMade=write_in_pieces))
        self.assertEqual(protocol.received, b"request")
        self.assertEqual(protocol.lost, ConnectionDone)

    @in_reactor
    async def test_closed_meanwhile(self) -> None:
        """Who closes as it hears it hears no more."""

        def close(protocol: Notes, data: bytes) -> None:
            protocol.transport.loseConnection()

        protocol = await refuse(
            self, Notes(connectionMade=write_in_pieces, dataReceived=close)
        )
        self.assertEqual(
            protocol.happened, ["connectionMade", "dataReceived", "connectionLost"]
        )

    @in_reactor
    async def test_raises(self) -> None:
        """Who raises as it hears it is told of that, and it is logged once."""

        def fail(protocol: Notes, data: bytes) -> None:
            raise ValueError("a test's")

        protocol = await refuse(
            self, Notes(connectionMade=write_in_pieces, dataReceived=fail)
        )
        self.assertEqual(protocol.lost, ValueError)
        self.assertEqual(self.logged(ValueError), [ValueError])


class RefusedAtOnceTests(OnOurs, ReactorCase):  # type: ignore[misc]
    """Twisted's reactors write once in a turn, and do not see the refusal of that."""

    @in_reactor
    async def test_half_closeable(self) -> None:
        """One that knows of half-close is told of each."""
        protocol = await refuse(self, HalfCloseable(connectionMade=write_in_pieces))
        self.assertEqual(
            protocol.happened,
            ["connectionMade", "dataReceived", "readConnectionLost", "connectionLost"],
        )

    @in_reactor
    async def test_paused(self) -> None:
        """Who reads nothing hears nothing."""

        def begin(protocol: Notes) -> None:
            protocol.transport.pauseProducing()
            write_in_pieces(protocol)

        protocol = await refuse(self, Notes(connectionMade=begin))
        self.assertEqual(protocol.happened, ["connectionMade", "connectionLost"])
        self.assertEqual(protocol.lost, ConnectionLost)


class ClosingContract(SideContract):
    @in_reactor
    async def test_written_in_the_same_turn(self) -> None:
        """What is written after `loseConnection`, in the same turn, is sent."""

        def end(protocol: Notes, data: bytes) -> None:
            protocol.transport.write(b"before")
            protocol.transport.loseConnection()
            protocol.transport.write(b" and after")
            protocol.transport.writeSequence([b" and", b" more"])

        protocol = Notes(dataReceived=end)
        peer = await self.connection(protocol)
        peer.send(b"x")
        self.assertEqual(await peer.end(), "closed")
        self.assertEqual(peer.received, b"before and after and more")
        self.assertEqual(await self.lost(protocol), ConnectionDone)

    @in_reactor
    async def test_written_later(self) -> None:
        """Who writes after the connection is lost is not heard, and not harmed."""

        def write(protocol: Notes, *_: object) -> None:
            protocol.transport.write(b"late")
            protocol.transport.writeSequence([b"late"])
            protocol.transport.loseConnection()
            protocol.transport.abortConnection()

        protocol = Notes(connectionLost=write)
        peer = await self.connection(protocol)
        kept = protocol.transport.write
        peer.close()
        await self.lost(protocol)
        write(protocol)
        kept(b"late")
        await self.turns()
        write(protocol)
        kept(b"late")
        self.assertEqual(protocol.happened, ["connectionMade", "connectionLost"])

    @in_reactor
    async def test_all_is_sent_first(self) -> None:
        """A connection is closed when all that was written is sent."""
        protocol = Notes()
        peer = await self.connection(protocol)
        protocol.transport.write(BIG)
        protocol.transport.loseConnection()
        await self.turns()
        self.assertIsNone(protocol.reason)
        self.assertEqual(await peer.end(), "closed")
        self.assertEqual(peer.received, BIG)
        self.assertEqual(await self.lost(protocol), ConnectionDone)

    @in_reactor
    async def test_reasons(self) -> None:
        """
        The reasons say what Twisted's say; that of a reset is not `CONNECTION_LOST`,
        which is how TLS tells of an end without notice.
        """
        reasons = []
        for end in (Peer.close, Peer.reset):
            protocol = Notes()
            end(await self.connection(protocol))
            await self.lost(protocol)
            reasons.append(protocol.reason)
        closed, reset = (cast("Failure", each).value for each in reasons)
        self.assertEqual(str(closed), str(ConnectionDone()))
        self.assertEqual(str(reset), str(self.of_reset()))
        self.assertIsNot(reset, CONNECTION_LOST)

    @in_reactor
    async def test_answered_a_peer_that_has_closed(self) -> None:
        """Who asks, closes, and refuses the answer, was heard and has closed."""
        protocol = Notes(dataReceived=write_in_pieces)
        peer = await self.connection(protocol)
        peer.send(b"request")
        peer.close()
        self.assertEqual(await self.lost(protocol), ConnectionDone)
        self.assertEqual(protocol.received, b"request")

    @in_reactor
    async def test_nothing_is_read_after(self) -> None:
        """After `loseConnection` nothing more is received."""
        protocol = Notes(dataReceived=lambda p, _: p.transport.loseConnection())
        peer = await self.connection(protocol)
        protocol.transport.write(BIG)
        peer.send(b"a")
        await self.until(lambda: protocol.received)
        peer.send(b"b")
        await self.turns()
        await peer.has(len(BIG))
        await self.lost(protocol)
        self.assertEqual(protocol.received, b"a")

    @in_reactor
    async def test_nothing_is_read_after_a_close_when_made(self) -> None:
        """Who closes in `connectionMade` receives nothing, even while it sends."""

        def begin(protocol: Notes) -> None:
            protocol.transport.write(BIG)
            protocol.transport.loseConnection()

        protocol = Notes(connectionMade=begin)
        peer = await self.connection(protocol)
        peer.send(b"unwanted")
        await self.turns()
        self.assertEqual(protocol.happened, ["connectionMade"])
        await peer.has(len(BIG))
        await self.lost(protocol)
        self.assertEqual(protocol.happened, ["connectionMade", "connectionLost"])

    @in_reactor
    async def test_peer_closes(self) -> None:
        """That the peer has closed is told once, as `ConnectionDone`."""
        protocol = Notes()
        peer = await self.connection(protocol)
        peer.send(b"all")
        peer.close()
        self.assertEqual(await self.lost(protocol), ConnectionDone)
        await self.turns()
        self.assertEqual(
            protocol.happened, ["connectionMade", "dataReceived", "connectionLost"]
        )

    @in_reactor
    async def test_peer_ends_and_reads_nothing(self) -> None:
        """The end of a peer's stream ends the connection, whatever is unsent."""
        protocol = Notes()
        peer = await self.connection(protocol)
        protocol.transport.write(BIG)
        await self.turns()
        peer.shut()
        await self.turns(20)
        self.assertEqual(protocol.lost, ConnectionDone)

    @in_reactor
    async def test_peer_resets(self) -> None:
        """A reset is `ConnectionLost`."""
        protocol = Notes()
        peer = await self.connection(protocol)
        peer.reset()
        self.assertEqual(await self.lost(protocol), self.of_reset)

    @in_reactor
    async def test_peer_resets_who_is_written_to(self) -> None:
        """So it is if a write finds it out, with or without something unsent."""
        for unsent in (b"", BIG):
            protocol = Notes()
            peer = await self.connection(protocol)
            protocol.transport.pauseProducing()
            if unsent:
                protocol.transport.write(unsent)
            await self.turns()
            peer.reset()
            await self.turns()
            for _ in range(3):
                protocol.transport.write(b"x")
                await self.turns()
            self.assertEqual(await self.lost(protocol), ConnectionLost)

    @in_reactor
    async def test_closed_twice(self) -> None:
        """A second close changes nothing."""
        protocol = Notes()
        peer = await self.connection(protocol)
        protocol.transport.loseConnection()
        protocol.transport.loseConnection()
        await peer.end()
        await self.lost(protocol)
        protocol.transport.loseConnection()
        await self.turns()
        self.assertEqual(protocol.happened, ["connectionMade", "connectionLost"])


class AbortingContract(SideContract):
    async def check_aborted(self, protocol: Notes, peer: Any) -> None:
        self.assertEqual(await self.lost(protocol), ConnectionAborted)
        ends = ("reset",) if self.over_tcp else ("closed", "reset")
        self.assertIn(await peer.end(), ends)
        await self.turns()
        self.assertEqual(protocol.happened.count("connectionLost"), 1)

    @in_reactor
    async def test_abort(self) -> None:
        """The peer sees a reset, and what was unsent is lost."""
        protocol = Notes()
        peer = await self.connection(protocol)
        protocol.transport.write(BIG)
        protocol.transport.abortConnection()
        protocol.transport.write(b"late")
        await self.check_aborted(protocol, peer)
        self.assertLess(len(peer.received), len(BIG))

    @in_reactor
    async def test_twice(self) -> None:
        """A second abort changes nothing, nor does a close after it."""
        protocol = Notes()
        peer = await self.connection(protocol)
        protocol.transport.abortConnection()
        protocol.transport.abortConnection()
        protocol.transport.loseConnection()
        protocol.transport.loseWriteConnection()
        await self.check_aborted(protocol, peer)

    @in_reactor
    async def test_while_closing(self) -> None:
        """A close that waits can be cut short, in its turn or later."""
        for turns in (0, 5):
            protocol = Notes()
            peer = await self.connection(protocol)
            protocol.transport.write(BIG)
            protocol.transport.loseConnection()
            await self.turns(turns)
            protocol.transport.abortConnection()
            await self.check_aborted(protocol, peer)

    @in_reactor
    async def test_while_half_closing(self) -> None:
        """So can a half-close."""
        protocol = Notes()
        peer = await self.connection(protocol)
        protocol.transport.write(BIG)
        protocol.transport.loseWriteConnection()
        await self.turns()
        protocol.transport.abortConnection()
        await self.check_aborted(protocol, peer)

    @in_reactor
    async def test_when_made(self) -> None:
        """It may be the first thing that is done."""
        protocol = Notes(connectionMade=lambda p: p.transport.abortConnection())
        peer = await self.connection(protocol)
        peer.socket.setblocking(False)
        await self.check_aborted(protocol, peer)

    @in_reactor
    async def test_when_received(self) -> None:
        """It may be done in `dataReceived`, which is not called again."""
        protocol = Notes(dataReceived=lambda p, _: p.transport.abortConnection())
        peer = await self.connection(protocol)
        peer.send(b"x" * 300_000)
        await self.check_aborted(protocol, peer)
        self.assertLess(len(protocol.received), 300_000)

    @in_reactor
    async def test_when_paused(self) -> None:
        """It may be the answer to a pause."""

        class Aborting:
            def pauseProducing(self) -> None:
                protocol.transport.abortConnection()

            def resumeProducing(self) -> None:
                raise NotImplementedError

            def stopProducing(self) -> None:
                protocol.note("stopProducing")

        protocol = Notes()
        peer = await self.connection(protocol)
        protocol.transport.registerProducer(Aborting(), True)
        protocol.transport.write(BIG)
        await self.check_aborted(protocol, peer)
        self.assertIn("stopProducing", protocol.happened)

    @in_reactor
    async def test_after_the_peers_end(self) -> None:
        """It may be done when the peer has ended its direction."""
        protocol = HalfCloseable(
            readConnectionLost=lambda p: p.transport.abortConnection()
        )
        peer = await self.connection(protocol)
        peer.shut()
        await self.check_aborted(protocol, peer)


class HalfClosingContract(SideContract):
    @in_reactor
    async def test_write_side(self) -> None:
        """All is sent, then an end; reading goes on; both ends are told."""
        protocol = HalfCloseable()
        peer = await self.connection(protocol)
        protocol.transport.write(BIG)
        protocol.transport.loseWriteConnection()
        protocol.transport.write(b" and this")
        await self.turns()
        self.assertNotIn("writeConnectionLost", protocol.happened)
        self.assertEqual(await peer.end(), "closed")
        self.assertEqual(peer.received, BIG + b" and this")
        await self.until(lambda: "writeConnectionLost" in protocol.happened)
        protocol.transport.write(b"too late")
        peer.send(b"still heard")
        await self.until(lambda: protocol.received)
        peer.close()
        await self.until(lambda: "readConnectionLost" in protocol.happened)
        protocol.transport.loseConnection()
        self.assertEqual(await self.lost(protocol), ConnectionDone)
        self.assertEqual(
            protocol.happened,
            [
                "connectionMade",
                "writeConnectionLost",
                "dataReceived",
                "readConnectionLost",
                "connectionLost",
            ],
        )

    @in_reactor
    async def test_read_side(self) -> None:
        """Who is half-closed can go on to send."""
        protocol = HalfCloseable()
        peer = await self.connection(protocol)
        peer.send(b"question")
        peer.shut()
        await self.until(lambda: "readConnectionLost" in protocol.happened)
        await self.turns()
        protocol.transport.write(BIG)
        protocol.transport.loseConnection()
        self.assertEqual(await peer.end(), "closed")
        self.assertEqual(peer.received, BIG)
        self.assertEqual(await self.lost(protocol), ConnectionDone)
        self.assertEqual(
            protocol.happened,
            ["connectionMade", "dataReceived", "readConnectionLost", "connectionLost"],
        )

    @in_reactor
    async def test_resumed_after_the_end(self) -> None:
        """Once the peer has ended, pausing and resuming tell nothing again."""
        protocol = HalfCloseable()
        peer = await self.connection(protocol)
        peer.shut()
        await self.until(lambda: "readConnectionLost" in protocol.happened)
        protocol.transport.pauseProducing()
        await self.turns()
        self.assertEqual(protocol.happened, ["connectionMade", "readConnectionLost"])
        protocol.transport.loseConnection()
        await self.lost(protocol)

    @in_reactor
    async def test_write_side_of_one_not_told(self) -> None:
        """A protocol that knows of no halves can end its direction all the same."""
        protocol = Notes()
        peer = await self.connection(protocol)
        protocol.transport.write(b"all")
        protocol.transport.loseWriteConnection()
        self.assertEqual(await peer.end(), "closed")
        self.assertEqual(peer.received, b"all")
        peer.send(b"heard")
        await self.until(lambda: protocol.received)
        peer.close()
        self.assertEqual(await self.lost(protocol), ConnectionDone)

    @in_reactor
    async def test_closed_when_half_closed(self) -> None:
        """`loseConnection` in `writeConnectionLost` ends it."""
        protocol = HalfCloseable(
            writeConnectionLost=lambda p: p.transport.loseConnection()
        )
        peer = await self.connection(protocol)
        protocol.transport.loseWriteConnection()
        self.assertEqual(await peer.end(), "closed")
        self.assertEqual(await self.lost(protocol), ConnectionDone)
        self.assertEqual(
            protocol.happened,
            ["connectionMade", "writeConnectionLost", "connectionLost"],
        )

    @in_reactor
    async def test_both_in_a_turn(self) -> None:
        """Both directions are ended in one turn; all is sent."""
        for first, second in (
            ("loseConnection", "loseWriteConnection"),
            ("loseWriteConnection", "loseConnection"),
        ):
            protocol = HalfCloseable()
            peer = await self.connection(protocol)
            protocol.transport.write(BIG)
            getattr(protocol.transport, first)()
            getattr(protocol.transport, second)()
            await peer.end()
            self.assertEqual(peer.received, BIG)
            self.assertEqual(await self.lost(protocol), ConnectionDone)

    @in_reactor
    async def test_twice(self) -> None:
        """A second half-close changes nothing, before it is told or after."""
        protocol = HalfCloseable()
        peer = await self.connection(protocol)
        protocol.transport.loseWriteConnection()
        protocol.transport.loseWriteConnection()
        await peer.end()
        await self.turns()
        peer.close()
        await self.until(lambda: "readConnectionLost" in protocol.happened)
        protocol.transport.loseConnection()
        await self.lost(protocol)
        self.assertEqual(protocol.happened.count("writeConnectionLost"), 1)

    @in_reactor
    async def test_producer_after_it(self) -> None:
        """What a producer writes to an ended direction is ignored; a close is one."""

        class Late:
            pauseProducing = stopProducing = lambda self: None

            def resumeProducing(self) -> None:
                protocol.transport.write(b"late")

        for streaming in (True, False):
            protocol = HalfCloseable()
            peer = await self.connection(protocol)
            protocol.transport.loseWriteConnection()
            self.assertEqual(await peer.end(), "closed")
            protocol.transport.registerProducer(Late(), streaming)
            protocol.transport.write(b"late")
            protocol.transport.writeSequence([b"late"])
            peer.send(b"heard")
            await self.until(lambda protocol=protocol: protocol.received)
            protocol.transport.loseConnection()
            protocol.transport.unregisterProducer()
            self.assertEqual(await self.lost(protocol), ConnectionDone)
            self.assertEqual(peer.received, b"")

    @in_reactor
    async def test_closed_with_a_producer_after_it(self) -> None:
        """When there is nothing to be sent any more, a close waits for nobody."""

        class Idle:
            stopProducing = resumeProducing = lambda self: None

        protocol = HalfCloseable()
        peer = await self.connection(protocol)
        protocol.transport.loseWriteConnection()
        self.assertEqual(await peer.end(), "closed")
        await self.until(lambda: "writeConnectionLost" in protocol.happened)
        protocol.transport.registerProducer(Idle(), False)
        protocol.transport.loseConnection()
        self.assertEqual(await self.lost(protocol), ConnectionDone)

    @in_reactor
    async def test_half_closed_when_made(self) -> None:
        """It may be the first thing that is done."""

        def begin(protocol: Notes) -> None:
            protocol.transport.write(b"hello")
            protocol.transport.loseWriteConnection()

        protocol = HalfCloseable(connectionMade=begin)
        peer = await self.connection(protocol)
        self.assertEqual(await peer.end(), "closed")
        self.assertEqual(peer.received, b"hello")
        peer.send(b"and you")
        await self.until(lambda: protocol.received)
        protocol.transport.loseConnection()
        await self.lost(protocol)


class AcceptingContract(Contract):
    @in_reactor
    async def test_refused(self) -> None:
        """Whom the factory builds nothing for is closed; the others are served."""
        answers = iter([None, Notes()])
        port = self.listen(lambda: next(answers))
        refused = self.peer_of(port)
        self.assertIn(await refused.end(), ("closed", "reset"))
        served = self.peer_of(port)
        await self.until(lambda: port.factory.built)
        served.close()
        await self.lost(port.factory.built[0])
        await port.stopListening()


class GoneContract(SideContract):
    @in_reactor
    async def test_names(self) -> None:
        """The log still knows whose it was; the transport has no protocol any more."""
        protocol = Notes()
        peer = await self.connection(protocol)
        transport = protocol.transport
        before = transport.logPrefix()
        peer.close()
        await self.lost(protocol)
        self.assertEqual(transport.logPrefix(), before)
        self.assertIn("Notes", before)
        self.assertFalse(hasattr(transport, "protocol"))

    @in_reactor
    async def test_another_protocol(self) -> None:
        """Who takes over too late is not told anything."""
        protocol: Any = connected_echo()
        late = Notes()
        peer = await self.connection(protocol)
        transport = protocol.transport
        peer.close()
        await self.until(lambda: not protocol.factory.connections)
        transport.protocol = late
        transport.loseConnection()
        await self.turns()
        self.assertEqual(late.happened, [])


def connected_echo() -> EchoProtocol:
    """A steady receiver that has `happened`, too."""
    protocol: Any = EchoFactory(Clock(), log="none").buildProtocol(None)
    protocol.happened = protocol.factory.connections
    return cast("EchoProtocol", protocol)


class GarbageContract(Contract):
    @in_reactor
    async def test_no_garbage(self) -> None:
        """What is lost needs no collector: nothing of it holds itself."""
        gc.disable()
        self.addCleanup(gc.enable)
        port = self.listen(Notes)
        peer = self.peer_of(port)
        built = port.factory.built
        await self.until(lambda: built)
        peer.send(b"x")
        await self.until(lambda: built[0].received)
        transport = weakref.ref(built[0].transport)
        peer.close()
        await self.lost(built[0])
        built.clear()
        await self.until(lambda: transport() is None)
        await port.stopListening()


globals().update(
    on_both_sides(ClosingContract, AbortingContract, HalfClosingContract, GoneContract)
)
globals().update(on_both(RefusedContract, GarbageContract, AcceptingContract))
