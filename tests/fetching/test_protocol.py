"""
One exchange over one connection, driven by hand.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings, strategies as st
from OpenSSL import SSL
from twisted.internet.defer import CancelledError
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
)
from twisted.internet.interfaces import (
    IPushProducer,
)
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

import sockproto.tls  # noqa: F401 - what a lost connection is told depends on it
from sockproto.errors import (
    BodyCutShort,
    BodyMalformed,
    CannotWrite,
    CertificateRefused,
    ConnectionWasReset,
    HandshakeFailed,
    HeadMalformed,
    NothingCame,
    TimedOut,
)
from sockproto.fetching import FetchProtocol
from sockproto.fetching.protocol import READ_SIZE
from sockproto.wire.exchange import Exchange
from sockproto.wire.response import HeadCame
from tests.contracts import MemoryTransport
from tests.fetching.fakes import (
    CHUNKED,
    FIVE,
    HEAD,
    LAST,
    REQUEST,
    TO_CLOSE,
    Basket,
    Conversation,
)


class ProtocolTests(SynchronousTestCase):
    """The protocol, without a network."""

    def test_request(self) -> None:
        """The request is sent when the connection is there, once."""
        talk = Conversation()
        self.assertEqual(talk.transport.value(), REQUEST)
        talk.protocol.dataReceived(FIVE)
        talk.protocol.dataReceived(b"hello")
        self.assertEqual(talk.transport.value(), REQUEST)

    def test_complete(self) -> None:
        """A complete response closes the connection, and has its head fire."""
        for body in (FIVE + b"hello", CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"):
            talk = Conversation()
            talk.protocol.dataReceived(body + b"behind")
            self.assertTrue(talk.transport.disconnecting)
            talk.lose(why=ConnectionDone())
            self.assertEqual(talk.basket.body, b"hello")
            self.assertEqual(talk.basket.heads, [talk.outcome])

    def test_complete_then_reset(self) -> None:
        """What becomes of the connection of a complete response is no matter."""
        for why in (ConnectionLost(), ConnectionAborted(), SSL.Error([])):
            talk = Conversation()
            talk.protocol.dataReceived(FIVE + b"hello")
            talk.protocol.dataReceived(b"late")
            talk.lose(why=why)
            self.assertIsInstance(talk.outcome, HeadCame)

    def test_read_to_close(self) -> None:
        """The end of the peer's side ends a body that has no other end."""
        talk = Conversation()
        talk.protocol.dataReceived(TO_CLOSE + b"hel")
        talk.protocol.dataReceived(b"lo")
        talk.protocol.readConnectionLost()
        self.assertTrue(talk.transport.disconnecting)
        talk.lose(why=ConnectionDone())
        self.assertEqual(talk.basket.body, b"hello")
        self.assertIsInstance(talk.outcome, HeadCame)

    def test_interim(self) -> None:
        """Interim responses are passed over; the sink has the final head alone."""
        talk = Conversation()
        talk.protocol.dataReceived(b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + FIVE)
        self.assertEqual([head.raw for head in talk.basket.heads], [FIVE])

    def test_lost_at_every_point(self) -> None:
        """Wherever the connection ends, `done` fires once, with the right kind."""
        for stream, head, complete in (
            (FIVE + b"hello", FIVE, len(FIVE) + 5),
            (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", CHUNKED, len(CHUNKED) + 15),
            (TO_CLOSE + b"hello", TO_CLOSE, len(TO_CLOSE)),
            # Chunks only look as if they were complete without a last one.
            (CHUNKED + b"5\r\nhello\r\n", CHUNKED, 1000),
        ):
            for end in range(len(stream) + 1):
                for half_close in (True, False):
                    talk = Conversation(timeout=30)
                    talk.protocol.dataReceived(stream[:end])
                    talk.lose(why=ConnectionDone(), half_close=half_close)
                    expected: type = BodyCutShort
                    if not end:
                        expected = NothingCame
                    elif end < len(head):
                        expected = HeadMalformed
                    elif end >= complete:
                        expected = HeadCame
                    self.assertIs(type(talk.outcome), expected, stream[:end])
                    self.assertEqual(talk.clock.getDelayedCalls(), [])

    def test_reset_at_every_point(self) -> None:
        """A reset never passes for the end of a response."""
        for stream, complete in (
            (FIVE + b"hello", True),
            (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", True),
            (TO_CLOSE + b"hello", False),
        ):
            for end in range(len(stream) + 1):
                talk = Conversation(timeout=30)
                talk.protocol.dataReceived(stream[:end])
                talk.lose(why=ConnectionLost())
                whole = complete and end == len(stream)
                expected = HeadCame if whole else ConnectionWasReset
                self.assertIs(type(talk.outcome), expected, stream[:end])
                self.assertEqual(talk.clock.getDelayedCalls(), [])

    @settings(deadline=None)
    @given(cuts=st.lists(st.integers(0, 100), max_size=6))
    def test_chopping(self, cuts: list[int]) -> None:
        """Segments change nothing."""
        stream = CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
        talk = Conversation()
        start = 0
        for end in [*sorted(cuts), len(stream)]:
            talk.protocol.dataReceived(stream[start:end])
            start = max(start, min(end, len(stream)))
        talk.lose(why=ConnectionDone())
        self.assertEqual(talk.basket.body, b"hello")
        self.assertIsInstance(talk.outcome, HeadCame)

    def test_malformed(self) -> None:
        """A response that breaks the grammar has the connection aborted."""
        for stream, kind in (
            (b"220 smtp\r\n\r\n", HeadMalformed),
            (CHUNKED + b"zz\r\n", BodyMalformed),
        ):
            talk = Conversation()
            talk.protocol.dataReceived(stream)
            self.assertTrue(talk.transport.disconnected)
            talk.lose(why=ConnectionAborted())
            self.assertIsInstance(talk.outcome, kind)

    def test_silence(self) -> None:
        """A peer that is silent for the whole period is cut off."""
        talk = Conversation(timeout=30)
        talk.clock.advance(29.9)
        self.assertFalse(talk.transport.disconnected)
        talk.clock.advance(0.1)
        self.assertTrue(talk.transport.disconnected)
        talk.lose(why=ConnectionAborted())
        error = talk.outcome
        assert isinstance(error, TimedOut)
        self.assertEqual(error.seconds, 30)
        self.assertEqual(talk.clock.getDelayedCalls(), [])

    def test_slow(self) -> None:
        """Each byte begins the period anew, also one of an interim head."""
        stream = b"HTTP/1.1 100 Continue\r\n\r\n" + FIVE + b"hello"
        talk = Conversation(timeout=30)
        for byte in stream:
            talk.clock.advance(29)
            talk.protocol.dataReceived(bytes([byte]))
        self.assertFalse(talk.transport.disconnected)
        talk.lose(why=ConnectionDone())
        self.assertIsInstance(talk.outcome, HeadCame)

    def test_patience(self) -> None:
        """Without a timeout nothing is waited for on the clock."""
        self.assertEqual(Conversation().clock.getDelayedCalls(), [])

    def test_silence_after_the_end(self) -> None:
        """A connection that does not close makes a complete response no failure."""
        talk = Conversation(timeout=30)
        talk.protocol.dataReceived(FIVE + b"hello")
        talk.clock.advance(30)
        talk.lose(why=ConnectionDone())
        self.assertIsInstance(talk.outcome, HeadCame)

    def test_upload(self) -> None:
        """A peer that takes the request is not silent, and then has one period."""
        request = bytes(1000)
        transport = MemoryTransport()
        transport.dataBuffer = request
        talk = Conversation(request=request, timeout=30, transport=transport)
        for left in (999, 500, 1, 0):
            transport.dataBuffer = bytes(left)
            talk.clock.advance(30)
            self.assertFalse(transport.disconnected, left)
        talk.clock.advance(29.9)
        self.assertFalse(transport.disconnected)
        talk.clock.advance(0.1)
        self.assertTrue(transport.disconnected)
        talk.lose(why=ConnectionAborted())
        self.assertIsInstance(talk.outcome, TimedOut)
        self.assertEqual(talk.clock.getDelayedCalls(), [])

    def test_upload_is_stuck(self) -> None:
        """A peer that takes no more of the request is cut off, at every point."""
        request = bytes(1000)
        for lefts in ([1000], [400, 400], [400, 1, 1]):
            transport = MemoryTransport()
            talk = Conversation(request=request, timeout=30, transport=transport)
            for left in lefts:
                self.assertFalse(transport.disconnected)
                transport.dataBuffer = bytes(left)
                talk.clock.advance(30)
            self.assertTrue(transport.disconnected)
            talk.lose(why=ConnectionAborted())
            error = talk.outcome
            assert isinstance(error, TimedOut)
            self.assertEqual(error.seconds, 30)
            self.assertEqual(talk.clock.getDelayedCalls(), [])

    def test_upload_is_answered(self) -> None:
        """An answer that comes meanwhile begins the period anew, and ends it."""
        transport = MemoryTransport()
        talk = Conversation(request=bytes(1000), timeout=30, transport=transport)
        transport.dataBuffer = bytes(400)
        talk.clock.advance(30)
        talk.clock.advance(29)
        talk.protocol.dataReceived(FIVE + b"hel")
        talk.clock.advance(29)
        self.assertFalse(transport.disconnected)
        talk.protocol.dataReceived(b"lo")
        # What is left of the request is not waited for.
        self.assertTrue(transport.disconnected)
        talk.lose(why=ConnectionAborted())
        self.assertIsInstance(talk.outcome, HeadCame)
        self.assertEqual(talk.clock.getDelayedCalls(), [])

    def test_cancel(self) -> None:
        """To cancel aborts the connection, at every point, and that is all."""
        for came in (b"", HEAD, FIVE, FIVE + b"hel"):
            talk = Conversation(timeout=30)
            talk.protocol.dataReceived(came)
            talk.protocol.done.cancel()
            self.assertTrue(talk.transport.disconnected)
            self.assertIsInstance(talk.outcome, CancelledError)
            talk.protocol.dataReceived(b"lo")
            self.assertEqual(talk.basket.body, b"hel" if came.endswith(b"hel") else b"")
            talk.lose(why=ConnectionAborted())
            self.assertIsInstance(talk.outcome, CancelledError)
            self.assertEqual(talk.clock.getDelayedCalls(), [])

    def test_sink_refuses(self) -> None:
        """An error of ours that a sink raises aborts, and is what `done` has."""
        error = CannotWrite("here", "full")
        for basket in (Basket(begin=error), Basket(write=error)):
            talk = Conversation(basket=basket)
            talk.protocol.dataReceived(FIVE + b"hel")
            self.assertTrue(talk.transport.disconnected)
            talk.protocol.dataReceived(b"lo")
            talk.lose(why=ConnectionAborted())
            self.assertIs(talk.outcome, error)
            self.assertEqual(talk.basket.body, b"")

    def test_sink_breaks(self) -> None:
        """Whatever else a sink raises ends the exchange likewise."""
        error = OSError(28, "No space left on device")
        for basket in (Basket(begin=error), Basket(write=error)):
            talk = Conversation(basket=basket)
            talk.protocol.dataReceived(FIVE + b"hel")
            self.assertTrue(talk.transport.disconnected)
            talk.lose(why=ConnectionAborted())
            self.assertIs(talk.outcome, error)
            self.assertEqual(self.flushLoggedErrors(), [])

    def test_without_close_notify(self) -> None:
        """TLS that is cut off ends only what has an end of its own."""
        for stream, kind in (
            (FIVE + b"hello", HeadCame),
            (FIVE + b"hel", BodyCutShort),
            (CHUNKED + b"5\r\nhel", BodyCutShort),
            (HEAD, HeadMalformed),
            (TO_CLOSE + b"hello", ConnectionWasReset),
            (TO_CLOSE, ConnectionWasReset),
        ):
            for why in (SSL.SysCallError(-1, "Unexpected EOF"), CONNECTION_LOST):
                talk = Conversation(timeout=30)
                talk.protocol.dataReceived(stream)
                talk.lose(why=why)
                self.assertIs(type(talk.outcome), kind, stream)
                self.assertEqual(talk.clock.getDelayedCalls(), [])

    def test_without_close_notify_for_head(self) -> None:
        """An answer that has no body by itself is complete with its head."""
        for method, status in (("HEAD", b"200"), ("GET", b"204"), ("GET", b"304")):
            talk = Conversation(method=method)
            talk.protocol.dataReceived(b"HTTP/1.1 %b X\r\n\r\n" % status)
            talk.lose(why=SSL.SysCallError(-1, "Unexpected EOF"))
            self.assertIsInstance(talk.outcome, HeadCame)

    def test_cut_before_a_word(self) -> None:
        """TLS that is cut off before any byte came is a broken connection."""
        talk = Conversation()
        talk.lose(why=SSL.SysCallError(-1, "Unexpected EOF"))
        self.assertIsInstance(talk.outcome, ConnectionWasReset)

    def test_not_wanted(self) -> None:
        """A body that nobody wants is not waited for; the head is enough."""
        for body in (b"", b"hel", b"5\r\nhello\r\n" * 1000):
            talk = Conversation(wanted=False)
            talk.protocol.dataReceived(CHUNKED + body)
            self.assertTrue(talk.transport.disconnecting)
            talk.protocol.dataReceived(b"zz\r\n")
            talk.lose(why=ConnectionLost())
            self.assertIsInstance(talk.outcome, HeadCame)
            self.assertEqual(talk.basket.body, b"")

    def test_head(self) -> None:
        """An answer to HEAD has no body, whatever its length says."""
        talk = Conversation(method="HEAD")
        talk.protocol.dataReceived(HEAD + b"Content-Length: 999999999999\r\n\r\n")
        self.assertTrue(talk.transport.disconnecting)
        talk.lose(why=ConnectionDone())
        self.assertIsInstance(talk.outcome, HeadCame)

    def test_trailers(self) -> None:
        """Fields behind a chunked body are at hand once it is complete."""
        talk = Conversation()
        self.assertEqual(talk.protocol.trailers, ())
        talk.protocol.dataReceived(CHUNKED + b"0\r\nSum: 1\r\n\r\n")
        self.assertEqual(talk.protocol.trailers, ((b"Sum", b"1"),))
        talk.lose(why=ConnectionDone())

    def test_addresses(self) -> None:
        """The addresses at both ends are at hand once connected."""
        talk = Conversation()
        self.assertEqual(talk.protocol.local, "10.0.0.1:12345")
        self.assertEqual(talk.protocol.peer, "192.168.1.1:54321")

    def test_without_a_clock(self) -> None:
        """Without a clock, nothing is measured."""
        talk = Conversation(clock=None, timeout=1, handshake_timeout=1, tls=True)
        talk.protocol.dataReceived(FIVE + b"hello")
        talk.lose(why=ConnectionDone())

    def test_read_size(self) -> None:
        """A transport that reads by the piece is asked for large ones."""
        protocol = FetchProtocol(Exchange(REQUEST), lambda head: Basket())
        transport: Any = StringTransport()
        transport.bufferSize = 65_536
        protocol.makeConnection(transport)
        self.assertEqual(transport.bufferSize, READ_SIZE)

    def test_handshake_timeout(self) -> None:
        """TLS that is not agreed on in time is given up."""
        talk = Conversation(tls=True, handshake_timeout=5)
        talk.clock.advance(4.9)
        self.assertFalse(talk.transport.disconnected)
        talk.clock.advance(0.1)
        self.assertTrue(talk.transport.disconnected)
        talk.lose(why=ConnectionAborted())
        error = talk.outcome
        assert isinstance(error, TimedOut)
        self.assertEqual((error.awaited, error.seconds), ("the TLS handshake", 5))
        self.assertEqual(talk.clock.getDelayedCalls(), [])

    def test_handshake_in_time(self) -> None:
        """Once TLS is agreed on, that time is over; the body has its own."""
        talk = Conversation(tls=True, handshake_timeout=5)
        talk.protocol.handshakeCompleted()
        self.assertEqual(talk.clock.getDelayedCalls(), [])
        talk.protocol.dataReceived(FIVE + b"hello")
        talk.lose(why=ConnectionDone())
        self.assertIsInstance(talk.outcome, HeadCame)

    def test_handshake_broken(self) -> None:
        """Its end in the handshake is the handshake's failure."""
        for why in (ConnectionDone(), ConnectionLost(), SSL.Error([]), CONNECTION_LOST):
            talk = Conversation(tls=True, handshake_timeout=5, timeout=5)
            talk.lose(why=why)
            self.assertIsInstance(talk.outcome, HandshakeFailed, repr(why))
            self.assertEqual(talk.clock.getDelayedCalls(), [])

    def test_certificate_refused(self) -> None:
        """A certificate that was refused is told as it was."""
        talk = Conversation(tls=True)
        error = CertificateRefused("h", "it has expired")
        talk.lose(why=error)
        self.assertIs(talk.outcome, error)

    def test_no_handshake_to_wait_for(self) -> None:
        """A plain connection has no handshake, and no time for one."""
        talk = Conversation(handshake_timeout=5)
        self.assertEqual(talk.clock.getDelayedCalls(), [])


class ProducerTests(SynchronousTestCase):
    """The protocol as a producer."""

    def test_interface(self) -> None:
        """It goes wherever a push producer goes."""
        self.assertTrue(verifyObject(IPushProducer, Conversation().protocol))

    def test_pause(self) -> None:
        """Paused, it reads no more; resumed, it does."""
        talk = Conversation()
        talk.protocol.dataReceived(FIVE)
        talk.protocol.pauseProducing()
        self.assertEqual(talk.transport.producerState, "paused")
        talk.protocol.dataReceived(b"hel")  # as TLS does, which had it already
        self.assertEqual(talk.basket.body, b"")
        talk.protocol.resumeProducing()
        self.assertEqual(talk.transport.producerState, "producing")
        self.assertEqual(talk.basket.body, b"hel")
        talk.protocol.dataReceived(b"lo")
        talk.lose(why=ConnectionDone())
        self.assertIsInstance(talk.outcome, HeadCame)

    def test_silence_while_paused(self) -> None:
        """A peer that is not read from is not silent."""
        talk = Conversation(timeout=30)
        talk.protocol.dataReceived(FIVE)
        talk.protocol.pauseProducing()
        talk.protocol.pauseProducing()
        self.assertEqual(talk.clock.getDelayedCalls(), [])
        talk.clock.advance(1000)
        self.assertFalse(talk.transport.disconnected)
        talk.protocol.resumeProducing()
        talk.protocol.resumeProducing()
        self.assertEqual(len(talk.clock.getDelayedCalls()), 1)
        talk.clock.advance(29.9)
        self.assertFalse(talk.transport.disconnected)
        talk.clock.advance(0.1)
        self.assertTrue(talk.transport.disconnected)
        talk.lose(why=ConnectionAborted())
        self.assertIsInstance(talk.outcome, TimedOut)

    def test_lost_while_paused(self) -> None:
        """
        What had come before the end is handed over, though the consumer be slow.

        TLS hands on what it has, paused or not, the end of the connection too.
        """
        for end in (ConnectionDone(), None):
            for start, stream in (
                (TO_CLOSE, b"hello"),
                (FIVE, b"hello"),
                (CHUNKED, b"".join(b"1\r\n%c\r\n" % c for c in b"hello") + LAST),
            ):
                talk = Conversation(timeout=30)
                write = talk.basket.write

                def slowly(data: bytes, talk: Any = talk, write: Any = write) -> None:
                    write(data)
                    talk.protocol.pauseProducing()

                talk.basket.write = slowly  # type: ignore[method-assign]
                talk.protocol.dataReceived(start + stream[:1])
                talk.protocol.dataReceived(stream[1:])
                if end is None:
                    talk.protocol.readConnectionLost()
                else:
                    talk.lose(why=end)
                for _ in range(10):
                    talk.protocol.resumeProducing()
                if end is None:
                    talk.lose(why=ConnectionDone())
                self.assertEqual(talk.basket.body, b"hello", repr(start))
                self.assertIsInstance(talk.outcome, HeadCame, repr(start))
                self.assertEqual(talk.clock.getDelayedCalls(), [])

    def test_reset_while_paused(self) -> None:
        """A reset is one, whatever has not been handed over yet."""
        talk = Conversation(timeout=30)
        talk.protocol.dataReceived(TO_CLOSE)
        talk.protocol.pauseProducing()
        talk.protocol.dataReceived(b"hello")
        talk.lose(why=ConnectionLost())
        self.assertIsInstance(talk.outcome, ConnectionWasReset)
        talk.protocol.resumeProducing()
        self.assertEqual(talk.clock.getDelayedCalls(), [])

    def test_stop(self) -> None:
        """Stopped, it aborts, and says that the body was not wanted."""
        talk = Conversation(timeout=30)
        talk.protocol.dataReceived(FIVE + b"hel")
        talk.protocol.stopProducing()
        self.assertTrue(talk.transport.disconnected)
        talk.protocol.dataReceived(b"lo")
        talk.lose(why=ConnectionAborted())
        self.assertIsInstance(talk.outcome, ConnectionWasReset)
        self.assertIn("not wanted", str(talk.outcome))
        self.assertEqual(talk.basket.body, b"hel")
        self.assertEqual(talk.clock.getDelayedCalls(), [])

    def test_resumed_too_late(self) -> None:
        """To go on after it was aborted, or has ended, changes nothing."""
        talk = Conversation(timeout=30)
        talk.protocol.dataReceived(FIVE + b"hel")
        talk.protocol.pauseProducing()
        talk.protocol.done.cancel()
        talk.protocol.resumeProducing()
        self.assertEqual(talk.clock.getDelayedCalls(), [])
        talk.lose(why=ConnectionAborted())
        talk.protocol.resumeProducing()
        self.assertEqual(talk.clock.getDelayedCalls(), [])

        talk = Conversation(timeout=30)
        talk.protocol.dataReceived(FIVE + b"hello")
        talk.protocol.pauseProducing()
        talk.protocol.resumeProducing()
        talk.lose(why=ConnectionDone())
        self.assertIsInstance(talk.outcome, HeadCame)
        self.assertEqual(talk.clock.getDelayedCalls(), [])
