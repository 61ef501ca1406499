"""
Hello over a stream: the service and its client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import trustme
from hypothesis import given, settings as examples, strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import (
    SSL4ServerEndpoint,
    TCP4ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase

from sockproto.errors import (
    ConnectionWasReset,
    LineTooLong,
    MisuseError,
    NameNotSendable,
    NotConnected,
    NothingCame,
    PeerLeftOwing,
    SettingError,
)
from sockproto.hello import (
    QUIET_SECONDS,
    WAITING_SIZE,
    HelloClient,
    HelloFactory,
    HelloProtocol,
    connect_hello,
)
from sockproto.interfaces import Debt
from sockproto.wire.framing import Framing
from tests.contracts import (
    LogLines,
    MemoryTransport,
    StreamServiceContract,
    connect_in_memory,
    forgive_twisted_certificates,
    lose,
    serve_tcp,
    turns_until,
)

if TYPE_CHECKING:
    from sockproto.stream import StreamFactory

# The contract: each framing, with and without a delay.


class HelloContract(StreamServiceContract):
    framing: ClassVar[str]
    delay: ClassVar[float] = 0.0
    frames: ClassVar[tuple[tuple[bytes, bytes], ...]] = ((b"Hello, ", b""), (b"!", b""))

    def make_factory(self, clock: Any) -> StreamFactory:
        return HelloFactory(clock, framing=self.framing, delay=self.delay)

    def said_back(self, output: bytes) -> bytes:
        for said, heard in self.frames:
            output = output.replace(said, heard)
        return output


class AutoLines(HelloContract):
    framing = "auto"
    greeting = b"Welcome!"
    ask = b"a name" * 100 + b"\n"

    def said_back(self, output: bytes) -> bytes:
        # The first line completes the greeting.
        return super().said_back(output.removeprefix(b"\n"))


class DelayedAutoLines(AutoLines):
    delay = 0.01


class AutoChunks(HelloContract):
    framing = "auto"
    greeting = b"Welcome!"
    ask = b"a name" * 500


class DelayedAutoChunks(AutoChunks):
    delay = 0.01


class Lines(HelloContract):
    framing = "line"
    greeting = b"Welcome!\n"
    ask = b"a name" * 100 + b"\n"


class DelayedLines(Lines):
    delay = 0.01


class Chunks(HelloContract):
    framing = "chunk"
    greeting = b"Welcome!"
    ask = b"a name" * 500


class DelayedChunks(Chunks):
    delay = 0.01


class Netstrings(HelloContract):
    framing = "netstring"
    greeting = b"8:Welcome!,"
    ask = b"600:" + b"a name" * 100 + b","
    frames = ((b"608:Hello, ", b"600:"), (b"!,", b","))


class DelayedNetstrings(Netstrings):
    delay = 0.01


for _contract in (
    AutoLines,
    DelayedAutoLines,
    AutoChunks,
    DelayedAutoChunks,
    Lines,
    DelayedLines,
    Chunks,
    DelayedChunks,
    Netstrings,
    DelayedNetstrings,
):
    globals().update(_contract.on_each_transport())


class HelloFactoryTests(SynchronousTestCase):
    """The factory's arguments."""

    def refused(self, **arguments: Any) -> SettingError:
        with self.assertRaises(SettingError) as caught:
            HelloFactory(Clock(), **arguments)
        error: SettingError = caught.exception
        return error

    def test_bad_arguments(self) -> None:
        """A wrong argument is refused by name, when the factory is made."""
        for name, wrong in (
            ("framing", "lines"),
            ("delay", -1.0),
            ("delay", float("inf")),
            ("delay", float("nan")),
            ("max_name", 0),
            ("answer", "Hello!"),
            ("answer", "NAME NAME"),
            ("log", "loud"),
        ):
            error = self.refused(**{name: wrong})
            self.assertEqual(error.name, name)
            self.assertIn(name, str(error))

    def test_defaults(self) -> None:
        """An embedded factory has no delay and settles the framing by itself."""
        factory = HelloFactory(Clock())
        self.assertEqual(factory.delay, 0)
        self.assertIs(factory.framing, Framing.AUTO)
        self.assertEqual(factory.greeting, b"Welcome!")
        self.assertIsInstance(factory.buildProtocol(None), HelloProtocol)

    def test_text_is_utf_8(self) -> None:
        """Greeting and answer may be given as text."""
        factory = HelloFactory(
            Clock(), greeting="Grüezi!", answer="Hallo, NAME!", framing="chunk"
        )
        protocol, transport = connect_in_memory(factory)
        protocol.dataReceived(b"Eva")
        self.assertEqual(transport.value(), "Grüezi!Hallo, Eva!".encode())
        lose(protocol)


class Conversation(SynchronousTestCase):
    """A conversation in memory; subclasses talk."""

    arguments: ClassVar[dict[str, Any]] = {}

    def setUp(self) -> None:
        self.clock = Clock()
        self.log = LogLines(self)
        self.connect(**self.arguments)

    def connect(self, **arguments: Any) -> None:
        self.factory = HelloFactory(self.clock, **arguments)
        self.protocol, self.transport = connect_in_memory(self.factory)

    def tearDown(self) -> None:
        for connection in list(self.factory.connections):
            lose(connection)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def hear(self, *reads: bytes) -> bytes:
        """Give it these reads; return what it says at once."""
        for read in reads:
            self.protocol.dataReceived(read)
        return self.said()

    def said(self) -> bytes:
        said: bytes = self.transport.value()
        self.transport.clear()
        return said

    def wait(self, seconds: float) -> bytes:
        self.clock.advance(seconds)
        return self.said()


class AutoFramingTests(Conversation):
    """How `auto` finds out what it talks to."""

    def setUp(self) -> None:
        super().setUp()
        self.assertEqual(self.said(), b"Welcome!")

    def test_line(self) -> None:
        """A line is answered at once, by lines; an LF completes the greeting."""
        self.assertEqual(self.hear(b"Eva\n"), b"\nHello, Eva!\n")
        self.assertEqual(self.hear(b"Bob\r\n"), b"Hello, Bob!\n")

    def test_line_in_pieces(self) -> None:
        """Pieces of a line that follow each other within 50 ms are one line."""
        for piece in (b"M", b"ich", b"ael"):
            self.assertEqual(self.hear(piece), b"")
            self.assertEqual(self.wait(QUIET_SECONDS * 0.9), b"")
        self.assertEqual(self.hear(b"\n"), b"\nHello, Michael!\n")
        # From here on it may pause.
        self.assertEqual(self.hear(b"Tra"), b"")
        self.assertEqual(self.wait(10), b"")
        self.assertEqual(self.hear(b"cy\n"), b"Hello, Tracy!\n")

    def test_pause(self) -> None:
        """A name without a line end is answered after 50 ms, bare."""
        self.assertEqual(self.hear(b"Michael"), b"")
        self.assertEqual(self.wait(0.049), b"")
        self.assertEqual(self.wait(0.0011), b"Hello, Michael!")
        self.assertEqual(self.hear(b"Tracy"), b"Hello, Tracy!")
        self.assertEqual(self.hear(b"a\nb"), b"Hello, a\nb!")

    def test_silence_decides_nothing(self) -> None:
        """Who has not said anything yet may say lines, however late."""
        self.assertEqual(self.wait(100), b"")
        self.assertEqual(self.hear(b"Eva\n"), b"\nHello, Eva!\n")

    def test_end_of_input(self) -> None:
        """The end of the input decides at once; the name before it is answered."""
        self.hear(b"Eva")
        self.protocol.readConnectionLost()
        self.assertEqual(self.said(), b"Hello, Eva!")
        self.assertTrue(self.transport.disconnecting)

    def test_end_of_input_without_a_word(self) -> None:
        """Who says nothing and ends its input is closed."""
        self.protocol.readConnectionLost()
        self.assertEqual(self.said(), b"")
        self.assertTrue(self.transport.disconnecting)
        lose(self.protocol)
        self.assertIn("the client closed)", self.log.lines[-1])

    def test_exit_at_the_end_of_input(self) -> None:
        """`exit` and the end of the input together close without a farewell."""
        self.hear(b"exit")
        self.protocol.readConnectionLost()
        self.assertEqual(self.said(), b"")
        self.assertTrue(self.transport.disconnecting)

    def test_longest_line(self) -> None:
        """1,024 bytes, CR and LF are a line, though they come one by one."""
        name = b"x" * 1024
        self.assertEqual(self.hear(*(b"x" for _ in name), b"\r"), b"")
        self.assertEqual(self.hear(b"\n"), b"\nHello, " + name + b"!\n")

    def test_line_feed_as_byte_1026(self) -> None:
        """An LF as byte 1,026 makes it a conversation of lines."""
        said = self.hear(b"x" * 1000, b"x" * 24 + b"\r\n" + b"Eva\n")
        self.assertEqual(said, b"\nHello, " + b"x" * 1024 + b"!\nHello, Eva!\n")

    def test_line_feed_as_byte_1027(self) -> None:
        """1,027 bytes, of which the last is the first LF, are chunks."""
        said = self.hear(b"x" * 1026 + b"\n")
        self.assertEqual(said, b"Hello, " + b"x" * 1024 + b"!Hello, xx\n!")

    def test_1026_bytes_wait(self) -> None:
        """1,026 bytes without an LF may still become... nothing but chunks, later."""
        self.assertEqual(self.hear(b"x" * 1026), b"")
        self.assertEqual(
            self.wait(QUIET_SECONDS), b"Hello, " + b"x" * 1024 + b"!Hello, xx!"
        )

    def test_1027_bytes(self) -> None:
        """1,027 bytes without an LF are chunks at once, in whatever pieces."""
        said = self.hear(b"x" * 1000, b"x" * 26, b"x")
        self.assertEqual(said, b"Hello, " + b"x" * 1024 + b"!Hello, xxx!")

    def test_delay_counts_from_arrival(self) -> None:
        """The pause that decides the framing is not added to the delay."""
        self.connect(delay=1.0)
        self.said()
        self.hear(b"Eva")
        self.assertEqual(self.wait(0.99), b"")
        self.assertEqual(self.wait(0.011), b"Hello, Eva!")

    def test_delay_below_the_pause(self) -> None:
        """With a delay shorter than the pause, the answer leaves as it is settled."""
        self.connect(delay=0.01)
        self.said()
        self.hear(b"Eva")
        self.assertEqual(self.wait(0.049), b"")
        self.assertEqual(self.wait(0.0011), b"Hello, Eva!")

    def test_no_greeting(self) -> None:
        """Where nothing was said first, there is nothing to complete."""
        self.connect(greeting="")
        self.assertEqual(self.said(), b"")
        self.assertEqual(self.hear(b"Eva\n"), b"Hello, Eva!\n")

    def test_owes_what_is_undecided(self) -> None:
        """A name whose framing is not settled yet is owed an answer."""
        self.hear(b"Eva")
        self.assertEqual(self.protocol.owed(), Debt(unanswered=3))

    def test_lost_while_undecided(self) -> None:
        """A connection that is lost in the opening leaves nothing behind."""
        self.hear(b"Eva")
        lose(self.protocol, ConnectionLost())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_paused_while_undecided(self) -> None:
        """A transport that is full in the opening, and then not, harms nothing."""
        self.protocol.pauseProducing()
        self.protocol.resumeProducing()
        self.assertEqual(self.transport.producerState, "producing")
        self.hear(b"Ev")
        self.protocol.pauseProducing()
        self.protocol.resumeProducing()
        self.assertEqual(self.hear(b"a\n"), b"\nHello, Eva!\n")


class FramingTests(Conversation):
    """The framings that are set."""

    def test_line(self) -> None:
        """Lines end in LF or CRLF, an empty one is no name, the last needs no end."""
        self.connect(framing="line")
        self.assertEqual(self.said(), b"Welcome!\n")
        said = self.hear(b"Eva\n\n\r\nBob\r\nlast")
        self.assertEqual(said, b"Hello, Eva!\nHello, Bob!\n")
        self.protocol.readConnectionLost()
        self.assertEqual(self.said(), b"Hello, last!\n")
        self.assertTrue(self.transport.disconnecting)

    def test_chunk(self) -> None:
        """Each read is a name, cut every 1,024 bytes."""
        self.connect(framing=Framing.CHUNK)
        self.assertEqual(self.said(), b"Welcome!")
        self.assertEqual(self.hear(b"Eva"), b"Hello, Eva!")
        said = self.hear(b"x" * 1025)
        self.assertEqual(said, b"Hello, " + b"x" * 1024 + b"!Hello, x!")

    def test_netstring(self) -> None:
        """Names and all that is said are netstrings."""
        self.connect(framing="netstring")
        self.assertEqual(self.said(), b"8:Welcome!,")
        self.assertEqual(self.hear(b"3:E", b"va,0:,"), b"11:Hello, Eva!,")

    def test_bytes_are_bytes(self) -> None:
        """A name comes back as it came, also where it is no text."""
        self.connect(framing="line", greeting="")
        self.assertEqual(self.hear(b"\0\xff\x1b[m\n"), b"Hello, \0\xff\x1b[m!\n")

    def test_answer(self) -> None:
        """The answer is a setting."""
        self.connect(framing="chunk", greeting="Welcome", answer="Hello,NAME!")
        self.assertEqual(self.hear(b"Eva"), b"WelcomeHello,Eva!")

    def test_exit(self) -> None:
        """`exit` closes without a farewell; what follows it is discarded."""
        self.connect(framing="line", greeting="")
        self.assertEqual(self.hear(b"Eva\nexit\nBob\n"), b"Hello, Eva!\n")
        self.assertTrue(self.transport.half_closed)
        self.assertEqual(self.hear(b"Tracy\n"), b"")
        lose(self.protocol)
        self.assertIn("it said exit)", self.log.lines[-1])

    def test_works_with_a_plain_string_transport(self) -> None:
        """A unit test of a user's needs no more than Twisted's StringTransport."""
        factory = HelloFactory(self.clock, framing="line", greeting="")
        protocol, transport = connect_in_memory(factory, StringTransport())
        protocol.dataReceived(b"Eva\nexit\n")
        self.assertEqual(transport.value(), b"Hello, Eva!\n")
        self.assertTrue(transport.disconnecting)
        lose(protocol)


class TooLongTests(Conversation):
    """Names that are longer than is allowed."""

    def refused(self, framing: str, heard: bytes, *, eof: bool = False) -> str:
        self.connect(framing=framing, greeting="", max_name=8)
        self.log.events.clear()
        self.hear_all(heard)
        if eof:
            self.protocol.readConnectionLost()
            self.assertTrue(self.transport.disconnecting)
        else:
            self.assertTrue(self.transport.half_closed)
        lose(self.protocol)
        self.assertEqual(self.flushLoggedErrors(), [])
        (line,) = self.log.lines
        return line

    def hear_all(self, heard: bytes) -> None:
        self.protocol.dataReceived(heard)

    def test_line(self) -> None:
        """Names before it are answered; then it closes, with one line of the log."""
        line = self.refused("line", b"Eva\nBob\n123456789\nTracy\n")
        self.assertEqual(self.said(), b"Hello, Eva!\nHello, Bob!\n")
        self.assertIn("9 bytes or more, where 8 are allowed", line)

    def test_unfinished_line(self) -> None:
        """A line that is too long already need not end."""
        line = self.refused("line", b"Eva\n1234567890")
        self.assertEqual(self.said(), b"Hello, Eva!\n")
        self.assertIn("where 8 are allowed", line)

    def test_last_line(self) -> None:
        """The CR of a last line without LF counts, and nobody else's trouble it is."""
        line = self.refused("line", b"Eva\n12345678\r", eof=True)
        self.assertEqual(self.said(), b"Hello, Eva!\n")
        self.assertIn("where 8 are allowed", line)

    def test_netstring(self) -> None:
        """The same holds of netstrings."""
        line = self.refused("netstring", b"3:Eva,9:123456789,")
        self.assertEqual(self.said(), b"11:Hello, Eva!,")
        self.assertIn("netstring of 9 bytes or more, where 8 are allowed", line)

    def test_malformed_netstring(self) -> None:
        """Bad bytes close the connection, with one line of the log."""
        line = self.refused("netstring", b"3:Eva,hello")
        self.assertEqual(self.said(), b"11:Hello, Eva!,")
        self.assertIn("no netstring: b'h'", line)

    def test_after_the_delay(self) -> None:
        """With a delay, the answers before it still leave in time."""
        self.connect(framing="line", greeting="", max_name=8, delay=1.0)
        self.assertEqual(self.hear(b"Eva\n123456789\n"), b"")
        self.assertEqual(self.wait(1.0), b"Hello, Eva!\n")
        self.assertTrue(self.transport.half_closed)

    def test_longest(self) -> None:
        """A name of just the allowed size is answered."""
        self.connect(framing="line", greeting="", max_name=8)
        self.assertEqual(self.hear(b"12345678\r\n"), b"Hello, 12345678!\n")


class DelayTests(Conversation):
    """A second between a name and its answer."""

    arguments: ClassVar[dict[str, Any]] = {
        "framing": "line",
        "greeting": "",
        "delay": 1.0,
    }

    def test_answer_leaves_after_the_delay(self) -> None:
        """Neither earlier nor later."""
        self.assertEqual(self.hear(b"Eva\n"), b"")
        self.assertEqual(self.wait(0.75), b"")
        self.assertEqual(self.wait(0.25), b"Hello, Eva!\n")

    def test_greeting_does_not_wait(self) -> None:
        """The greeting leaves at once."""
        self.connect(delay=1.0)
        self.assertEqual(self.said(), b"Welcome!")

    def test_together(self) -> None:
        """Names that arrive together are answered together."""
        self.hear(b"Eva\nBob\n")
        self.assertEqual(self.wait(1.0), b"Hello, Eva!\nHello, Bob!\n")

    def test_each_in_its_time(self) -> None:
        """Names that arrive apart are answered apart, in order."""
        self.hear(b"Eva\n")
        self.wait(0.5)
        self.hear(b"Bob\n")
        self.assertEqual(self.wait(0.5), b"Hello, Eva!\n")
        self.assertEqual(self.wait(0.25), b"")
        self.assertEqual(self.wait(0.25), b"Hello, Bob!\n")

    def test_exit_waits_too(self) -> None:
        """`exit` closes after the delay, and the rest is discarded."""
        self.hear(b"Eva\n")
        self.wait(0.5)
        self.hear(b"exit\n")
        self.hear(b"Bob\n")
        self.assertEqual(self.wait(0.5), b"Hello, Eva!\n")
        self.assertFalse(self.transport.half_closed)
        self.assertEqual(self.wait(0.5), b"")
        self.assertTrue(self.transport.half_closed)
        self.assertFalse(self.protocol.owed())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_end_of_input(self) -> None:
        """Who has ended its input is answered in time, and closed then."""
        self.hear(b"Eva\nlast")
        self.protocol.readConnectionLost()
        self.assertFalse(self.transport.disconnecting)
        self.assertEqual(self.wait(1.0), b"Hello, Eva!\nHello, last!\n")
        self.assertTrue(self.transport.disconnecting)

    def test_holds_up_nobody(self) -> None:
        """Another connection's answers do not wait for this one's."""
        other, transport = connect_in_memory(self.factory)
        other.dataReceived(b"Bob\n")
        self.clock.advance(0.5)
        self.hear(b"Eva\n")
        self.clock.advance(0.5)
        self.assertEqual(transport.value(), b"Hello, Bob!\n")
        self.assertEqual(self.said(), b"")

    def test_lost(self) -> None:
        """A connection that is lost leaves nothing on the clock."""
        self.hear(b"Eva\n")
        lose(self.protocol, ConnectionLost())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(self.protocol.owed())

    def test_owed(self) -> None:
        """What waits for its delay is owed."""
        self.hear(b"Eva\n")
        self.transport.dataBuffer = b"12"
        self.assertEqual(self.protocol.owed(), Debt(unanswered=4, unsent=2))

    def test_what_waits_is_bounded(self) -> None:
        """Enough that waits stops the reading, until it is answered."""
        name = b"x" * 1000 + b"\n"
        taken = 0
        while self.transport.producerState == "producing":
            self.hear(name)
            taken += len(name)
        self.assertLessEqual(taken, WAITING_SIZE + len(name))
        said = self.wait(1.0)
        self.assertEqual(said.count(b"Hello"), taken // len(name))
        self.assertEqual(self.transport.producerState, "producing")

    def test_tiny_reads_are_bounded_too(self) -> None:
        """A peer that sends byte by byte cannot make the process hold more."""
        taken = 0
        while self.transport.producerState == "producing":
            self.hear(b"\n")
            taken += 1
        self.assertLessEqual(taken, 1000)
        self.wait(1.0)
        self.assertEqual(self.transport.producerState, "producing")

    def test_reading_goes_on_as_it_is_answered(self) -> None:
        """Reading goes on once what waits is below the bound, not when all is gone."""
        self.hear(b"x" * 1000 + b"\n")
        self.wait(0.5)
        self.hear((b"y" * 1000 + b"\n") * 32)
        self.assertEqual(self.transport.producerState, "paused")
        self.wait(0.5)
        self.assertEqual(self.transport.producerState, "producing")

    def test_end_of_input_is_taken_while_it_waits(self) -> None:
        """The end of the input may come while reading is stopped."""
        names = (b"x" * 1000 + b"\n") * 40
        self.hear(names)
        self.assertEqual(self.transport.producerState, "paused")
        self.protocol.readConnectionLost()
        self.assertEqual(self.wait(1.0).count(b"Hello"), 40)
        self.assertTrue(self.transport.disconnecting)


class BackPressureTests(Conversation):
    """What happens while the transport is full."""

    arguments: ClassVar[dict[str, Any]] = {"framing": "line", "greeting": ""}

    def pause_after(self, size: int) -> None:
        """Have the transport be full once so many bytes were written."""
        write = self.transport.write

        def writing(data: bytes) -> None:
            write(data)
            if len(self.transport.value()) >= size:
                self.transport.producer.pauseProducing()

        self.transport.write = writing

    def test_registered(self) -> None:
        """The transport can pause the protocol, which says more than it hears."""
        self.assertIs(self.transport.producer, self.protocol)
        self.assertTrue(self.transport.streaming)

    def test_paused_is_silent_and_deaf(self) -> None:
        """A full transport gets no more, and is not read from."""
        self.hear(b"Eva\n")
        self.said()
        self.protocol.pauseProducing()
        self.assertEqual(self.transport.producerState, "paused")
        self.assertEqual(self.hear(b"Bob\n"), b"")  # it was under way
        self.protocol.resumeProducing()
        self.assertEqual(self.said(), b"Hello, Bob!\n")
        self.assertEqual(self.transport.producerState, "producing")

    def test_paused_in_the_middle(self) -> None:
        """A read of many names is answered in parts, as the transport takes them."""
        names = b"a\n" * 10_000
        self.pause_after(16_384)
        said = self.hear(names)
        self.assertLess(len(said), 2 * 16_384)
        while self.transport.producerState == "paused":
            self.protocol.resumeProducing()
            part = self.said()
            self.assertLess(len(part), 2 * 16_384)
            said += part
        self.assertEqual(said, b"Hello, a!\n" * 10_000)

    def test_paused_while_names_wait(self) -> None:
        """Names that fall due while the transport is full are answered after."""
        self.connect(framing="line", greeting="", delay=1.0)
        self.hear(b"Eva\n")
        self.protocol.pauseProducing()
        self.assertEqual(self.wait(2.0), b"")
        self.protocol.resumeProducing()
        self.assertEqual(self.wait(0), b"Hello, Eva!\n")

    def test_resumed_before_names_are_due(self) -> None:
        """A transport that has room again does not shorten the delay."""
        self.connect(framing="line", greeting="", delay=1.0)
        self.hear(b"Eva\n")
        self.protocol.pauseProducing()
        self.protocol.resumeProducing()
        self.assertEqual(self.wait(0.5), b"")
        self.assertEqual(self.wait(0.5), b"Hello, Eva!\n")

    def test_end_of_input_while_paused(self) -> None:
        """Who ends its input while the transport is full is still answered."""
        self.hear(b"Eva\n")
        self.said()
        self.protocol.pauseProducing()
        self.hear(b"Bob\nlast")
        self.protocol.readConnectionLost()
        self.assertFalse(self.transport.disconnecting)
        self.protocol.resumeProducing()
        self.assertEqual(self.said(), b"Hello, Bob!\nHello, last!\n")
        self.assertTrue(self.transport.disconnecting)

    def test_exit_while_paused(self) -> None:
        """`exit` waits for the answers before it."""
        self.pause_after(1)
        said = self.hear((b"a\n" * 10_000) + b"exit\n")
        self.assertFalse(self.transport.half_closed)
        while not self.transport.half_closed:
            self.protocol.resumeProducing()
            said += self.said()
        self.assertEqual(said, b"Hello, a!\n" * 10_000)

    def test_lost_while_paused(self) -> None:
        """A connection may be lost while the transport is full."""
        self.hear(b"Eva\n")
        self.protocol.pauseProducing()
        self.hear(b"Bob\n")
        self.protocol.stopProducing()
        lose(self.protocol, ConnectionLost())

    def test_no_answer_is_a_connection_s_worth(self) -> None:
        """What is unanswered while the transport is full is owed."""
        self.hear(b"a\n")
        self.protocol.pauseProducing()
        self.hear(b"Bob\n")
        self.assertEqual(self.protocol.owed().unanswered, 4)

    def test_names_cut_but_unanswered_are_owed(self) -> None:
        """Also of a read that was answered in part, the rest is owed."""
        self.pause_after(16_384)
        names = b"a\n" * 10_000
        said = self.hear(names)
        answered = said.count(b"Hello") * 2
        self.assertEqual(self.protocol.owed().unanswered, len(names) - answered)


happenings = st.lists(
    st.one_of(
        st.text("ab\n\r", max_size=12).map(str.encode),
        st.sampled_from(["pause", "resume", 0.25, 0.5]),
    )
)


class ChoppingTests(SynchronousTestCase):
    """Neither chopping nor pausing nor waiting changes what is said."""

    def talk(self, happened: list[Any], **arguments: Any) -> bytes:
        clock = Clock()
        factory = HelloFactory(
            clock, framing="line", greeting="", log="none", **arguments
        )
        protocol, transport = connect_in_memory(factory)
        held = bytearray()  # by the kernel, while we do not read
        for happening in [*happened, "resume"]:
            if isinstance(happening, bytes):
                held += happening
            elif isinstance(happening, float):
                clock.advance(happening)
            elif happening == "pause":
                protocol.pauseProducing()
            else:
                protocol.resumeProducing()
            if transport.producerState == "producing" and held:
                protocol.dataReceived(bytes(held))
                held.clear()
        clock.advance(10)
        if held:
            protocol.dataReceived(bytes(held))
        protocol.readConnectionLost()
        clock.advance(10)
        self.assertTrue(transport.disconnecting)
        lose(protocol)
        self.assertEqual(clock.getDelayedCalls(), [])
        said: bytes = transport.value()
        return said

    def expected(self, happened: list[Any]) -> bytes:
        heard = b"".join(each for each in happened if isinstance(each, bytes))
        lines = [line.removesuffix(b"\r") for line in heard.split(b"\n")]
        if heard.endswith(b"\r"):  # no LF came that it could belong to
            lines[-1] = heard.split(b"\n")[-1]
        return b"".join(b"Hello, " + line + b"!\n" for line in lines if line)

    @given(happenings)
    def test_at_once(self, happened: list[Any]) -> None:
        """Without a delay, the same names are answered, in order."""
        self.assertEqual(self.talk(happened), self.expected(happened))

    @given(happenings)
    @examples(max_examples=200)
    def test_delayed(self, happened: list[Any]) -> None:
        """With a delay, the same names are answered, in order."""
        self.assertEqual(self.talk(happened, delay=0.75), self.expected(happened))


class LogTests(Conversation):
    """What the service logs."""

    def test_messages(self) -> None:
        """With `messages`, each name is logged, escaped."""
        self.connect(framing="line", log="messages")
        self.log.events.clear()
        self.hear(b"Eva\x1b[2J\xff\n")
        self.assertEqual(
            self.log.lines,
            [r"Received b'Eva\x1b[2J\xff' from 192.168.1.1:54321."],
        )

    def test_connections(self) -> None:
        """By default names are not logged."""
        self.log.events.clear()
        self.hear(b"Eva\n")
        self.assertEqual(self.log.lines, [])

    def test_none(self) -> None:
        """With `none`, neither names nor connections are."""
        self.log.events.clear()
        self.connect(framing="line", log="none")
        self.hear(b"Eva\n")
        lose(self.protocol)
        self.assertEqual(self.log.lines, [])


class HelloClientTests(SynchronousTestCase):
    """The client, in memory."""

    def connect(self, framing: str = "chunk", **arguments: Any) -> None:
        self.client = HelloClient(framing, **arguments)
        self.transport = MemoryTransport()
        self.client.makeConnection(self.transport)

    def sent(self) -> bytes:
        sent: bytes = self.transport.value()
        self.transport.clear()
        return sent

    def test_bad_framing(self) -> None:
        """`auto` is a server's; what is no framing is refused by name."""
        for wrong in ("auto", "lines"):
            with self.assertRaises(SettingError) as caught:
                HelloClient(wrong)
            self.assertEqual(caught.exception.name, "framing")

    def test_greeting(self) -> None:
        """The greeting can be waited for, before and after it came."""
        self.connect()
        before = self.client.greeting()
        self.client.dataReceived(b"Welcome!")
        self.assertEqual(self.successResultOf(before), b"Welcome!")
        self.assertEqual(self.successResultOf(self.client.greeting()), b"Welcome!")

    def test_cancelling_the_greeting(self) -> None:
        """Who does not wait for the greeting any more loses nothing else."""
        self.connect()
        greeting = self.client.greeting()
        greeting.cancel()
        self.failureResultOf(greeting, CancelledError)
        answer = self.client.greet("Eva")
        self.client.dataReceived(b"Welcome!")
        self.client.dataReceived(b"Hello, Eva!")
        self.assertEqual(self.successResultOf(answer), b"Hello, Eva!")

    def test_cancelling_the_greeting_and_closing(self) -> None:
        """A greeting that was given up is not owed when the server closes."""
        self.connect("line")
        greeting = self.client.greeting()
        greeting.cancel()
        self.failureResultOf(greeting, CancelledError)
        closed = self.client.close()
        lose(self.client)
        self.assertIsNone(self.successResultOf(closed))

    def test_cancelling_a_greeting_in_answer_to_another(self) -> None:
        """What a greeting sets off may give up its twin."""
        self.connect()
        first, twin = self.client.greeting(), self.client.greeting()
        first.addCallback(lambda _: twin.cancel())
        self.client.dataReceived(b"Welcome!")
        self.assertIsNone(self.successResultOf(first))
        self.failureResultOf(twin, CancelledError)

    def test_cancelling_the_greeting_and_losing(self) -> None:
        """A greeting that was given up does not disturb the end."""
        self.connect()
        greeting = self.client.greeting()
        greeting.cancel()
        self.failureResultOf(greeting, CancelledError)
        closed = self.client.closed()
        lose(self.client, ConnectionLost())
        self.failureResultOf(closed, ConnectionWasReset)

    def test_chunk_one_at_a_time(self) -> None:
        """In chunk framing the next name waits for the answer before it."""
        self.connect()
        first, second = self.client.greet("Eva"), self.client.greet(b"Bob")
        self.assertEqual(self.sent(), b"")  # not before the greeting
        self.client.dataReceived(b"Welcome!")
        self.assertEqual(self.sent(), b"Eva")
        self.client.dataReceived(b"Hello, Eva!")
        self.assertEqual(self.successResultOf(first), b"Hello, Eva!")
        self.assertEqual(self.sent(), b"Bob")
        self.client.dataReceived(b"Hello, Bob!")
        self.assertEqual(self.successResultOf(second), b"Hello, Bob!")

    def test_chunk_without_a_greeting(self) -> None:
        """A server that waits to be asked is asked at once."""
        self.connect(greeted=False)
        answer = self.client.greet("Eva")
        self.assertEqual(self.sent(), b"Eva")
        self.client.dataReceived(b"Hello, Eva!")
        self.assertEqual(self.successResultOf(answer), b"Hello, Eva!")

    def test_lines_overlap(self) -> None:
        """In line framing names leave at once; answers come in their order."""
        self.connect("line")
        first, second = self.client.greet("Eva"), self.client.greet("Bob")
        self.assertEqual(self.sent(), b"Eva\nBob\n")
        self.client.dataReceived(b"Welcome!\nHello, Eva!\nHel")
        self.assertEqual(self.successResultOf(first), b"Hello, Eva!")
        self.assertNoResult(second)
        self.client.dataReceived(b"lo, Bob!\n")
        self.assertEqual(self.successResultOf(second), b"Hello, Bob!")

    def test_netstrings_overlap(self) -> None:
        """So it is in netstring framing, which takes any byte."""
        self.connect("netstring")
        first, second = self.client.greet("E\nva"), self.client.greet("Bob")
        self.assertEqual(self.sent(), b"4:E\nva,3:Bob,")
        self.client.dataReceived(b"8:Welcome!,12:Hello, E\nva!,11:Hello, Bob!,")
        self.assertEqual(self.successResultOf(first), b"Hello, E\nva!")
        self.assertEqual(self.successResultOf(second), b"Hello, Bob!")

    def test_before_the_connection(self) -> None:
        """Names may be given before the connection is there."""
        client, transport = HelloClient("line"), MemoryTransport()
        client.greet("Eva").addErrback(lambda _: None)
        client.makeConnection(transport)
        self.assertEqual(transport.value(), b"Eva\n")

    def test_names_that_cannot_be_sent(self) -> None:
        """What would not arrive as one name is refused, and nothing is sent."""
        for framing, name in (
            ("chunk", ""),
            ("chunk", "exit"),
            ("chunk", "a\nb"),
            ("chunk", "x" * 1025),
            ("line", "a\nb"),
            ("line", "a\r"),
            ("netstring", "exit"),
        ):
            self.connect(framing)
            with self.assertRaises(NameNotSendable):
                self.client.greet(name)
            self.assertEqual(self.sent(), b"")

    def test_close(self) -> None:
        """Closing says `exit` after the names before it, and awaits the end."""
        self.connect()
        self.client.dataReceived(b"Welcome!")
        answer = self.client.greet("Eva")
        closed = self.client.close()
        self.assertEqual(self.sent(), b"Eva")
        self.client.dataReceived(b"Hello, Eva!")
        self.assertEqual(self.sent(), b"exit")
        self.client.readConnectionLost()
        self.assertTrue(self.transport.disconnecting)
        lose(self.client)
        self.assertIsNone(self.successResultOf(closed))
        self.assertEqual(self.successResultOf(answer), b"Hello, Eva!")

    def test_close_twice(self) -> None:
        """Closing twice says `exit` once; both are told of the end."""
        self.connect("line")
        first, second = self.client.close(), self.client.close()
        self.assertEqual(self.sent(), b"exit\n")
        lose(self.client)
        self.successResultOf(first)
        self.successResultOf(second)

    def test_greeting_someone_after_closing(self) -> None:
        """Who asks after `close` is told so."""
        self.connect()
        self.client.close().addErrback(lambda _: None)
        with self.assertRaises(MisuseError):
            self.client.greet("Eva")

    def test_server_leaves_owing(self) -> None:
        """A server that closes too early fails what it owes, and says how much."""
        self.connect("line")
        first, second = self.client.greet("Eva"), self.client.greet("Bob")
        closed = self.client.close()
        self.client.dataReceived(b"Welcome!\n")
        lose(self.client)
        for failed in (first, second, closed):
            error = self.failureResultOf(failed, PeerLeftOwing).value
            self.assertIn("2 answers", str(error))

    def test_server_leaves_owing_one(self) -> None:
        """One answer is called one."""
        self.connect()
        answer = self.client.greet("Eva")
        self.client.dataReceived(b"Welcome!")
        self.client.readConnectionLost()
        lose(self.client)
        error = self.failureResultOf(answer, PeerLeftOwing).value
        self.assertIn("an answer", str(error))
        self.failureResultOf(self.client.greet("Bob"), PeerLeftOwing)

    def test_server_owes_the_greeting(self) -> None:
        """A greeting that is waited for is owed, too."""
        self.connect("line")
        greeting = self.client.greeting()
        self.client.dataReceived(b"Wel")
        lose(self.client)
        self.failureResultOf(greeting, PeerLeftOwing)

    def test_an_unfinished_line_is_one(self) -> None:
        """An answer whose line was not ended counts when the server has closed."""
        self.connect("line")
        answer = self.client.greet("Eva")
        self.client.dataReceived(b"Welcome!\nHello, Eva!")
        self.assertNoResult(answer)
        self.client.readConnectionLost()
        self.assertEqual(self.successResultOf(answer), b"Hello, Eva!")
        lose(self.client)

    def test_nothing_came(self) -> None:
        """A server that closes without a byte is told from one that owes."""
        self.connect()
        answer, greeting = self.client.greet("Eva"), self.client.greeting()
        lose(self.client)
        self.failureResultOf(answer, NothingCame)
        self.failureResultOf(greeting, NothingCame)
        self.failureResultOf(self.client.greeting(), NothingCame)

    def test_reset(self) -> None:
        """A connection that breaks fails what is awaited."""
        self.connect()
        answer = self.client.greet("Eva")
        lose(self.client, ConnectionLost())
        self.failureResultOf(answer, ConnectionWasReset)

    def test_after_an_orderly_end(self) -> None:
        """Who asks after the end is told that the connection is closed."""
        self.connect(greeted=False)
        lose(self.client)
        self.failureResultOf(self.client.greet("Eva"), NotConnected)
        self.assertIsNone(self.successResultOf(self.client.close()))

    def test_cancelling_aborts(self) -> None:
        """Cancelling a name aborts the connection, and fails the others."""
        self.connect("line")
        first, second = self.client.greet("Eva"), self.client.greet("Bob")
        closed = self.client.closed()
        first.cancel()
        self.assertTrue(self.transport.disconnected)
        self.client.dataReceived(b"Welcome!\nHello, Eva!\nHello, Bob!\n")
        lose(self.client, ConnectionAborted())
        self.failureResultOf(first, CancelledError, ConnectionWasReset)
        self.failureResultOf(second, ConnectionWasReset)
        self.failureResultOf(closed, ConnectionWasReset)

    def test_cancelling_closed(self) -> None:
        """Who gives up waiting for the end ends it."""
        self.connect()
        closed = self.client.close()
        closed.cancel()
        self.assertTrue(self.transport.disconnected)
        lose(self.client, ConnectionAborted())
        self.failureResultOf(closed, CancelledError, ConnectionWasReset)

    def test_cancelling_while_answers_come(self) -> None:
        """A name can be cancelled by what another one's answer sets off."""
        self.connect("line")
        first, second = self.client.greet("Eva"), self.client.greet("Bob")
        first.addCallback(lambda _: second.cancel())
        self.client.dataReceived(b"Welcome!\nHello, Eva!\nHello, Bob!\n")
        self.assertIsNone(self.successResultOf(first))
        lose(self.client, ConnectionAborted())
        self.failureResultOf(second, CancelledError, ConnectionWasReset)

    def test_asking_in_answer_to_an_answer(self) -> None:
        """A name may be given when an answer has come."""
        self.connect(greeted=False)
        answer = self.client.greet("Eva").addCallback(
            lambda _: self.client.greet("Bob")
        )
        self.client.dataReceived(b"Hello, Eva!")
        self.assertEqual(self.sent(), b"EvaBob")
        self.client.dataReceived(b"Hello, Bob!")
        self.assertEqual(self.successResultOf(answer), b"Hello, Bob!")

    def test_an_answer_to_nothing(self) -> None:
        """What nobody asked for is not taken for an answer to a later name."""
        self.connect("line", greeted=False)
        self.client.dataReceived(b"What?\n")
        answer = self.client.greet("Eva")
        self.client.dataReceived(b"Hello, Eva!\n")
        self.assertEqual(self.successResultOf(answer), b"Hello, Eva!")

    def test_a_line_without_end(self) -> None:
        """A server that floods is cut off; what is awaited fails."""
        self.connect("line", greeted=False)
        answer = self.client.greet("Eva")
        self.client.dataReceived(b"x" * 70_000)
        self.assertTrue(self.transport.disconnected)
        lose(self.client, ConnectionAborted())
        self.failureResultOf(answer, LineTooLong)


class ConversationTests(TestCase):
    """Client and service, over sockets."""

    timeout = 30

    async def talk(self, framing: str, server: str) -> None:
        from twisted.internet import reactor

        factory = HelloFactory(reactor, framing=server, delay=0.01)
        port: Any = await serve_tcp(self, factory)
        client = await connect_hello(
            TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port),
            framing=framing,
        )
        answers = [client.greet(name) for name in ("Michael", "Tracy", b"\xff\0")]
        self.assertEqual(await answers[0], b"Hello, Michael!")
        self.assertEqual(await answers[1], b"Hello, Tracy!")
        self.assertEqual(await answers[2], b"Hello, \xff\0!")
        self.assertEqual(await client.greeting(), b"Welcome!")
        await client.close()
        await turns_until(lambda: not factory.connections)

    async def test_chunk(self) -> None:
        """A tutorial's conversation of chunks goes as it should."""
        await self.talk("chunk", "chunk")

    async def test_line(self) -> None:
        """So does one of lines."""
        await self.talk("line", "line")

    async def test_netstring(self) -> None:
        """So does one of netstrings."""
        await self.talk("netstring", "netstring")

    async def test_chunk_with_auto(self) -> None:
        """A client of chunks is understood by a server that finds out."""
        await self.talk("chunk", "auto")

    async def test_line_with_auto(self) -> None:
        """A client of lines is, too."""
        await self.talk("line", "auto")

    async def test_cancelling(self) -> None:
        """A cancelled name ends the connection in order, at both ends."""
        from twisted.internet import reactor

        factory = HelloFactory(reactor, delay=100.0)
        port: Any = await serve_tcp(self, factory)
        client = await connect_hello(
            TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        )
        await client.greeting()
        closed = client.closed()
        answer = client.greet("Eva")
        answer.cancel()
        answer.addErrback(
            lambda failure: failure.trap(CancelledError, ConnectionWasReset)
        )
        await turns_until(lambda: not factory.connections)
        self.failureResultOf(closed, ConnectionWasReset)

    async def test_haproxy(self) -> None:
        """Behind a proxy, the log has the client's address."""
        from twisted.internet import reactor

        log = LogLines(self)
        factory = HelloFactory(reactor, framing="line")
        port: Any = await serve_tcp(self, HAProxyWrappingFactory(factory))

        class Proxied(HelloClient):
            def connectionMade(self) -> None:
                self.transport.write(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 9999\r\n")
                super().connectionMade()

        client: Any = await TCP4ClientEndpoint(
            reactor, "127.0.0.1", port.getHost().port
        ).connect(Factory.forProtocol(lambda: Proxied("line")))
        self.assertEqual(await client.greet("Eva"), b"Hello, Eva!")
        await client.close()
        await turns_until(lambda: not factory.connections)
        self.assertIn("192.0.2.7:4711", log.lines[-1])


class OverTlsTests(TestCase):
    """The service inside Twisted's TLS."""

    timeout = 10

    def setUp(self) -> None:
        forgive_twisted_certificates(self)

    async def talk(self, framing: str, server: str) -> None:
        from twisted.internet import reactor

        authority = trustme.CA()
        leaf = authority.issue_cert("localhost")
        own = PrivateCertificate.loadPEM(leaf.private_key_and_cert_chain_pem.bytes())
        root = trustRootFromCertificates(
            [Certificate.loadPEM(authority.cert_pem.bytes())]
        )
        factory = HelloFactory(reactor, framing=server)
        endpoint = SSL4ServerEndpoint(reactor, 0, own.options(), interface="127.0.0.1")
        port: Any = await endpoint.listen(factory)
        self.addCleanup(port.stopListening)
        client = await connect_hello(
            wrapClientTLS(
                optionsForClientTLS("localhost", trustRoot=root),
                TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port),
            ),
            framing=framing,
        )
        client.closed().addErrback(lambda _: None)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.forget(factory, client)))
        self.assertEqual(await client.greet("Eva"), b"Hello, Eva!")
        self.assertEqual(await client.greet("Bob"), b"Hello, Bob!")
        await client.close()
        await turns_until(lambda: not factory.connections)

    async def forget(self, factory: HelloFactory, client: HelloClient) -> None:
        if client.ended is None:
            client.abort()
        for connection in list(factory.connections):
            connection.transport.abortConnection()
        await turns_until(lambda: not factory.connections and client.ended)

    async def test_auto(self) -> None:
        """The greeting does not get into the way of the handshake."""
        await self.talk("chunk", "auto")

    async def test_chunk(self) -> None:
        """Names are answered in chunk framing."""
        await self.talk("chunk", "chunk")

    async def test_line(self) -> None:
        """Names are answered in line framing, `exit` closes."""
        await self.talk("line", "line")

    async def test_netstring(self) -> None:
        """Names are answered in netstring framing."""
        await self.talk("netstring", "netstring")


class SilentServerTests(TestCase):
    """A server that is not what the client takes it for."""

    timeout = 30

    async def test_closes_at_once(self) -> None:
        """A server that hangs up before it speaks is reported as such."""
        from twisted.internet import reactor

        class HangsUp(Protocol):
            transport: Any

            def connectionMade(self) -> None:
                self.transport.loseConnection()

        port: Any = await serve_tcp(self, Factory.forProtocol(HangsUp))
        client = await connect_hello(
            TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        )
        await self.assertFailure(client.greet("Eva"), NothingCame)
