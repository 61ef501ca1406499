"""
Hello and echo over UDP: the services, and hello's client.
"""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import MessageLengthError
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from sockproto.connecting import Observer
from sockproto.datagram import (
    BURST,
    DatagramHelloClient,
    EchoDatagramProtocol,
    HelloDatagramProtocol,
    OwnPlaces,
    ServiceDatagramProtocol,
    connect_datagram_hello,
)
from sockproto.errors import (
    MisuseError,
    NameNotResolved,
    NameNotSendable,
    NotConnected,
    SettingError,
    TimedOut,
)
from sockproto.wire.datagram import LARGEST_DATAGRAM
from tests.contracts import LogLines, turns_until

THERE = ("192.0.2.1", 4711)


class MemorySocket:
    """
    A UDP socket in memory; `trouble` is raised by the next writes.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 9999) -> None:
        self.host = IPv4Address("UDP", host, port)
        self.written: list[tuple[bytes, tuple[str, int] | None]] = []
        self.trouble: Exception | None = None
        self.protocol: Any = None
        self.stopped = False

    def write(self, datagram: bytes, addr: tuple[str, int] | None = None) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.written.append((datagram, addr))

    def getHost(self) -> IPv4Address:
        return self.host

    def stopListening(self) -> None:
        self.stopped = True
        self.protocol.doStop()

    def take(self) -> list[bytes]:
        """What was written since the last call."""
        taken = [datagram for datagram, _ in self.written]
        self.written.clear()
        return taken


def bind(protocol: Any, host: str = "127.0.0.1", port: int = 9999) -> MemorySocket:
    """Give a protocol a socket."""
    udp = MemorySocket(host, port)
    udp.protocol = protocol
    protocol.makeConnection(udp)
    return udp


class HelloDatagramTests(SynchronousTestCase):
    """The hello service, in memory."""

    def setUp(self) -> None:
        self.service = HelloDatagramProtocol()
        self.socket = bind(self.service)

    def answers(self, datagram: bytes, addr: tuple[str, int] = THERE) -> list[bytes]:
        self.service.datagramReceived(datagram, addr)
        return self.socket.take()

    def test_answer(self) -> None:
        """Each datagram is a name, answered at once to where it came from."""
        self.service.datagramReceived(b"Eva", THERE)
        self.assertEqual(self.socket.written, [(b"Hello, Eva!", THERE)])

    def test_bytes_are_bytes(self) -> None:
        """A name comes back as it came: line ends, NULs, `exit` and all."""
        for name in (b"\0\xff\r\n", b"exit"):
            self.assertEqual(self.answers(name), [b"Hello, " + name + b"!"])

    def test_large(self) -> None:
        """A name of any size is one name."""
        name = b"x" * 60_000
        self.assertEqual(self.answers(name), [b"Hello, " + name + b"!"])

    def test_empty(self) -> None:
        """An empty datagram is no name."""
        self.assertEqual(self.answers(b""), [])
        self.assertEqual(self.service.dropped, {"no name": 1})

    def test_looks_like_an_answer(self) -> None:
        """What starts and ends as an answer does gets none: no two talk forever."""
        self.assertEqual(self.answers(b"Hello, Eva!"), [])
        self.assertEqual(self.answers(b"Hello, !"), [])
        self.assertEqual(self.service.dropped, {"no name": 2})
        self.assertEqual(self.answers(b"Hello, Eva"), [b"Hello, Hello, Eva!"])

    def test_port_0(self) -> None:
        """Nobody is at port 0."""
        self.assertEqual(self.answers(b"Eva", ("192.0.2.1", 0)), [])
        self.assertEqual(self.service.dropped, {"port": 1})

    def test_ports_of_services(self) -> None:
        """Ports below 1024 are services', which could answer back; 1024 is not."""
        self.assertEqual(self.answers(b"Eva", ("192.0.2.1", 1023)), [])
        self.assertEqual(self.service.dropped, {"port": 1})
        self.assertEqual(len(self.answers(b"Eva", ("192.0.2.1", 1024))), 1)

    def test_any_port(self) -> None:
        """Where it is asked for, ports below 1024 are answered, but never port 0."""
        service = HelloDatagramProtocol(any_port=True)
        udp = bind(service)
        service.datagramReceived(b"Eva", ("192.0.2.1", 7))
        service.datagramReceived(b"Eva", ("192.0.2.1", 0))
        self.assertEqual(udp.written, [(b"Hello, Eva!", ("192.0.2.1", 7))])

    def test_too_large(self) -> None:
        """Where the answer fits no datagram, there is none, and no traceback."""
        self.socket.trouble = MessageLengthError("message too long")
        self.assertEqual(self.answers(b"x" * 65_507), [])
        self.assertEqual(self.service.dropped, {"too large": 1})

    def test_not_sent(self) -> None:
        """An answer that the kernel does not take is lost, as UDP may lose it."""
        for trouble in (OSError(1, "not permitted"), OSError(101, "unreachable")):
            self.socket.trouble = trouble
            self.assertEqual(self.answers(b"Eva"), [])
        self.assertEqual(self.service.dropped, {"not sent": 2})
        self.socket.trouble = None
        self.assertEqual(self.answers(b"Eva"), [b"Hello, Eva!"])

    def test_answer_is_a_setting(self) -> None:
        """Answers may differ, but must be told from names."""
        service = HelloDatagramProtocol(answer="Hallo, NAME.")
        udp = bind(service)
        service.datagramReceived(b"Eva", THERE)
        self.assertEqual(udp.take(), [b"Hallo, Eva."])
        for wrong in ("NAME", "Hello!"):
            with self.assertRaises(SettingError) as caught:
                HelloDatagramProtocol(answer=wrong)
            self.assertEqual(caught.exception.name, "answer")

    def test_log_is_checked(self) -> None:
        """A wrong log is refused by name."""
        with self.assertRaises(SettingError) as caught:
            HelloDatagramProtocol(log="loud")
        self.assertEqual(caught.exception.name, "log")

    def test_a_subclass_says_what_it_does(self) -> None:
        """The base answers nothing by itself."""
        service = ServiceDatagramProtocol()
        bind(service)
        with self.assertRaises(NotImplementedError):
            service.datagramReceived(b"Eva", THERE)


class EchoDatagramTests(SynchronousTestCase):
    """The echo service, in memory."""

    def test_answer(self) -> None:
        """Each datagram comes back, also empty ones, and what looks answered."""
        service = EchoDatagramProtocol()
        udp = bind(service)
        for datagram in (b"hello", b"", b"Hello, Eva!", b"x" * 65_000):
            service.datagramReceived(datagram, THERE)
            self.assertEqual(udp.take(), [datagram])

    def test_ports_of_services(self) -> None:
        """Where another service could be, there is no answer."""
        service = EchoDatagramProtocol()
        udp = bind(service)
        for port in (0, 7, 1023):
            service.datagramReceived(b"hello", ("192.0.2.1", port))
        self.assertEqual(udp.written, [])
        self.assertEqual(service.dropped, {"port": 3})


class OwnPlacesTests(SynchronousTestCase):
    """Services that belong together do not answer each other."""

    def test_own_place(self) -> None:
        """What comes from a place of our own is dropped and counted."""
        own = OwnPlaces()
        hello, echo = (
            HelloDatagramProtocol(own_places=own),
            EchoDatagramProtocol(own_places=own),
        )
        bind(hello, port=9999)
        udp = bind(echo, port=10_007)
        echo.datagramReceived(b"hello", ("127.0.0.1", 9999))
        echo.datagramReceived(b"hello", ("127.0.0.1", 10_007))
        self.assertEqual(udp.written, [])
        self.assertEqual(echo.dropped, {"own": 2})
        # Another host, or another port, is somebody else.
        echo.datagramReceived(b"hello", ("192.0.2.1", 9999))
        echo.datagramReceived(b"hello", ("127.0.0.1", 9998))
        self.assertEqual(len(udp.written), 2)

    def test_closed(self) -> None:
        """A place that was closed is somebody else's from then on."""
        own = OwnPlaces()
        hello, echo = (
            HelloDatagramProtocol(own_places=own),
            EchoDatagramProtocol(own_places=own),
        )
        bind(hello, port=9999)
        udp = bind(echo, port=10_007)
        hello.doStop()
        echo.datagramReceived(b"hello", ("127.0.0.1", 9999))
        self.assertEqual(len(udp.written), 1)
        echo.doStop()
        self.assertEqual(own.ports, frozenset())

    def test_alone(self) -> None:
        """A service that was not told of others knows its own place."""
        service = EchoDatagramProtocol()
        udp = bind(service, port=9999)
        service.datagramReceived(b"hello", ("127.0.0.1", 9999))
        self.assertEqual(udp.written, [])
        self.assertEqual(service.dropped, {"own": 1})

    def test_bound_everywhere(self) -> None:
        """Bound to all interfaces, each address of this machine is our own."""
        for everywhere in ("0.0.0.0", "::", ""):
            own = OwnPlaces()
            own.add(everywhere, 9999)
            self.assertTrue(own.has("127.0.0.1", 9999))
            self.assertTrue(own.has("127.0.0.2", 9999))
            self.assertTrue(own.has("::ffff:127.0.0.1", 9999))
            self.assertFalse(own.has("192.0.2.1", 9999))
            self.assertFalse(own.has("127.0.0.1", 9998))

    def test_bound_everywhere_v6(self) -> None:
        """So it is with IPv6 addresses."""
        own = OwnPlaces()
        own.add("::", 9999)
        if not socket.has_ipv6:
            raise SkipTest("no IPv6 here")
        self.assertTrue(own.has("::1", 9999))
        self.assertFalse(own.has("2001:db8::1", 9999))

    def test_bound_everywhere_out_of_files(self) -> None:
        """Where nobody can tell whose address it is, there is no answer: no loop."""

        def no_socket(*_: object) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        service = EchoDatagramProtocol()
        udp = bind(service, "0.0.0.0")
        self.patch(socket, "socket", no_socket)
        service.datagramReceived(b"hello", ("192.0.2.1", 9999))
        self.assertEqual(udp.written, [])
        self.assertEqual(service.dropped, {"own": 1})

    def test_mapped(self) -> None:
        """An IPv4 address that an IPv6 socket shows is that IPv4 address."""
        own = OwnPlaces()
        own.add("127.0.0.1", 9999)
        self.assertTrue(own.has("::ffff:127.0.0.1", 9999))
        self.assertFalse(own.has("::ffff:127.0.0.2", 9999))
        own.add("::ffff:192.0.2.1", 9999)
        self.assertTrue(own.has("192.0.2.1", 9999))
        self.assertFalse(own.has("::ffff:0:1:2", 9999))


class DatagramLogTests(SynchronousTestCase):
    """What the services log."""

    def test_words(self) -> None:
        """The log has the tutorials' words; datagrams only with `messages`."""
        for level, expected in (
            ("none", []),
            ("connections", ["Bind UDP on 9999..."]),
            ("messages", ["Bind UDP on 9999...", "Received from 192.0.2.1:4711."]),
        ):
            log = LogLines(self)
            service = HelloDatagramProtocol(log=level)
            bind(service)
            service.datagramReceived(b"Eva", THERE)
            self.assertEqual(log.lines, expected)


class ServingTests(TestCase):
    """The services on sockets."""

    timeout = 30

    def serve(self, service: Any, interface: str = "127.0.0.1") -> Any:
        from twisted.internet import reactor

        port = reactor.listenUDP(  # type: ignore[attr-defined]
            0, service, interface=interface, maxPacketSize=LARGEST_DATAGRAM
        )
        self.addCleanup(port.stopListening)
        return port

    async def ask(self, there: Any, *datagrams: bytes, answers: int = 1) -> list[bytes]:
        """Send datagrams; wait for so many answers."""
        got: list[bytes] = []

        class Asking(DatagramProtocol):
            def datagramReceived(self, datagram: bytes, addr: object) -> None:
                got.append(datagram)

        asking: Any = Asking()
        self.serve(asking, there.host)
        for datagram in datagrams:
            asking.transport.write(datagram, (there.host, there.port))
        await turns_until(lambda: len(got) >= answers)
        return got

    async def test_whole(self) -> None:
        """Datagrams are received whole and answered whole, whatever their size."""
        port = self.serve(HelloDatagramProtocol())
        for name in (b"x", b"x" * 9_000, b"x" * 65_499):
            answer = await self.ask(port.getHost(), name)
            self.assertEqual(answer, [b"Hello, " + name + b"!"])

    async def test_answer_too_large(self) -> None:
        """A name whose answer fits no datagram gets none, and service goes on."""
        service = HelloDatagramProtocol()
        port = self.serve(service)
        answers = await self.ask(port.getHost(), b"x" * 65_500, b"Eva")
        self.assertEqual(answers, [b"Hello, Eva!"])
        self.assertEqual(service.dropped, {"too large": 1})
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_two_services(self) -> None:
        """A forged datagram does not set two of our services on each other."""
        own = OwnPlaces()
        first, second = (
            EchoDatagramProtocol(own_places=own),
            EchoDatagramProtocol(own_places=own),
        )
        here, there = self.serve(first), self.serve(second)
        first.transport.write(b"hello", ("127.0.0.1", there.getHost().port))
        await turns_until(lambda: second.dropped)
        self.assertEqual(second.dropped, {"own": 1})
        self.assertEqual(first.dropped, {})
        self.assertNotEqual(here.getHost().port, there.getHost().port)

    async def test_two_services_everywhere(self) -> None:
        """Nor if they are bound to all interfaces."""
        own = OwnPlaces()
        first, second = (
            EchoDatagramProtocol(own_places=own),
            EchoDatagramProtocol(own_places=own),
        )
        self.serve(first, "0.0.0.0")
        there = self.serve(second, "0.0.0.0")
        first.transport.write(b"hello", ("127.0.0.1", there.getHost().port))
        await turns_until(lambda: second.dropped)
        self.assertEqual(second.dropped, {"own": 1})

    async def test_burst(self) -> None:
        """A burst of 500 names is answered; the buffer for it was asked for."""
        log = LogLines(self)
        service = HelloDatagramProtocol()
        port = self.serve(service)
        names = [b"%d" % number for number in range(500)]
        if log.having("The kernel gives"):
            self.assertIn(f"of the {BURST} asked for", log.lines[-1])
            raise SkipTest("the kernel gives less")
        asking = HelloDatagramProtocol()  # its buffer is as large
        answers: list[bytes] = []
        asking.datagramReceived = (  # type: ignore[method-assign]
            lambda datagram, addr: answers.append(datagram)
        )
        self.serve(asking)
        for name in names:
            asking.transport.write(name, ("127.0.0.1", port.getHost().port))
        await turns_until(lambda: len(answers) == len(names))
        self.assertEqual(answers, [b"Hello, " + name + b"!" for name in names])

    def test_buffer_that_is_not_given(self) -> None:
        """The log says when the kernel gives less than was asked for."""
        log = LogLines(self)

        class Stingy:
            def setsockopt(self, *args: object) -> None:
                pass

            def getsockopt(self, *args: object) -> int:
                return 128_000

        class Socket(MemorySocket):
            def getHandle(self) -> Stingy:
                return Stingy()

        HelloDatagramProtocol().makeConnection(Socket())  # type: ignore[arg-type]
        (line,) = log.having("The kernel gives")
        self.assertIn("128000 bytes", line)
        self.assertIn("some 100 small datagrams", line)


class DatagramClientTests(SynchronousTestCase):
    """The client, in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.connect()

    def connect(self, **arguments: Any) -> None:
        self.client = DatagramHelloClient(
            self.clock, where="192.0.2.1:9999", **arguments
        )
        self.socket = bind(self.client)

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def answer(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self.client.datagramReceived(datagram, THERE)

    def test_bad_arguments(self) -> None:
        """A wrong argument is refused by name."""
        for name, wrong in (
            ("timeout", 0),
            ("timeout", float("inf")),
            ("timeout", float("nan")),
            ("tries", 0),
            ("answer", "Hello!"),
        ):
            with self.assertRaises(SettingError) as caught:
                self.connect(**{name: wrong})
            self.assertEqual(caught.exception.name, name)

    def test_greet(self) -> None:
        """A name is sent once, and the answer is handed out."""
        answer = self.client.greet("Eva")
        self.assertEqual(self.socket.written, [(b"Eva", None)])
        self.answer(b"Hello, Eva!")
        self.assertEqual(self.successResultOf(answer), b"Hello, Eva!")

    def test_observer(self) -> None:
        """An observer sees each datagram, both ways, repetitions too."""
        happened: list[tuple[str, bytes]] = []

        class Noting(Observer):
            def sent(self, data: bytes) -> None:
                happened.append(("sent", data))

            def received(self, data: bytes) -> None:
                happened.append(("received", data))

        self.connect(observer=Noting())
        self.client.greet("Eva")
        self.clock.advance(1)
        self.answer(b"Hello, Eva!")
        self.assertEqual(
            happened,
            [("sent", b"Eva"), ("sent", b"Eva"), ("received", b"Hello, Eva!")],
        )

    def test_loss(self) -> None:
        """A name without an answer is sent again after the timeout."""
        answer = self.client.greet("Eva")
        self.clock.advance(0.99)
        self.assertEqual(len(self.socket.written), 1)
        self.clock.advance(0.01)
        self.assertEqual(self.socket.take(), [b"Eva", b"Eva"])
        self.answer(b"Hello, Eva!")
        self.assertEqual(self.successResultOf(answer), b"Hello, Eva!")
        self.clock.advance(10)
        self.assertEqual(self.socket.take(), [])

    def test_timeout(self) -> None:
        """After three tries of a second each it gives up, and says what it did."""
        answer = self.client.greet("Eva")
        for _ in range(3):
            self.assertNoResult(answer)
            self.clock.advance(1)
        self.assertEqual(self.socket.take(), [b"Eva"] * 3)
        error = self.failureResultOf(answer, TimedOut).value
        self.assertEqual(error.seconds, 3)
        self.assertIn("sent 3 times", str(error))

    def test_one_try(self) -> None:
        """One try is one, after the timeout that was asked for."""
        self.connect(timeout=0.25, tries=1)
        answer = self.client.greet("Eva")
        self.clock.advance(0.25)
        error = self.failureResultOf(answer, TimedOut).value
        self.assertNotIn("times", str(error))

    def test_reordering(self) -> None:
        """Answers that come in another order reach their names."""
        first, second = self.client.greet("Eva"), self.client.greet("Bob")
        self.answer(b"Hello, Bob!", b"Hello, Eva!")
        self.assertEqual(self.successResultOf(first), b"Hello, Eva!")
        self.assertEqual(self.successResultOf(second), b"Hello, Bob!")

    def test_repetition(self) -> None:
        """An answer that comes twice answers nothing else."""
        first, second = self.client.greet("Eva"), self.client.greet("Bob")
        self.answer(b"Hello, Eva!", b"Hello, Eva!")
        self.successResultOf(first)
        self.assertNoResult(second)
        self.assertEqual(self.client.unexpected, b"Hello, Eva!")
        self.answer(b"Hello, Bob!")
        self.successResultOf(second)

    def test_same_name_twice(self) -> None:
        """Two who give the same name share one datagram and one answer."""
        first, second = self.client.greet("Eva"), self.client.greet(b"Eva")
        self.assertEqual(self.socket.take(), [b"Eva"])
        self.answer(b"Hello, Eva!")
        self.assertEqual(self.successResultOf(first), b"Hello, Eva!")
        self.assertEqual(self.successResultOf(second), b"Hello, Eva!")

    def test_unexpected_answers(self) -> None:
        """What answers nothing is kept for the error message."""
        answer = self.client.greet("Eva")
        self.answer(b"Hallo, Eva.", b"Hello, Bob!", b"Hi\x1b")
        self.assertNoResult(answer)
        self.clock.pump([1] * 3)
        error = self.failureResultOf(answer, TimedOut).value
        self.assertIn(r"b'Hi\x1b' came", str(error))

    def test_cancelling(self) -> None:
        """Cancelling gives up this name, and no other."""
        first, second = self.client.greet("Eva"), self.client.greet("Bob")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.answer(b"Hello, Eva!", b"Hello, Bob!")
        self.assertEqual(self.successResultOf(second), b"Hello, Bob!")

    def test_cancelling_one_of_two(self) -> None:
        """Who shares an answer still gets it when the other gives up."""
        first, second = self.client.greet("Eva"), self.client.greet("Eva")
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.answer(b"Hello, Eva!")
        self.assertEqual(self.successResultOf(first), b"Hello, Eva!")

    def test_cancelling_in_answer_to_an_answer(self) -> None:
        """What an answer sets off may give up its twin, or another name."""
        first, twin = self.client.greet("Eva"), self.client.greet("Eva")
        other = self.client.greet("Bob")

        def give_up(_: bytes) -> None:
            twin.cancel()
            other.cancel()

        first.addCallback(give_up)
        self.answer(b"Hello, Eva!", b"Hello, Bob!")
        self.successResultOf(first)
        self.failureResultOf(other, CancelledError)
        twin.addErrback(lambda failure: failure.trap(CancelledError))
        self.assertTrue(twin.called)

    def test_names_that_cannot_be_sent(self) -> None:
        """What would get no answer is refused at once."""
        for name in ("", "Hello, Eva!"):
            with self.assertRaises(NameNotSendable):
                self.client.greet(name)
        self.socket.trouble = MessageLengthError("message too long")
        with self.assertRaises(NameNotSendable) as caught:
            self.client.greet("x" * 70_000)
        self.assertIn("70000 bytes", str(caught.exception))
        self.assertEqual(self.socket.written, [])

    def test_refused(self) -> None:
        """A refusal fails all that is awaited, and the client can go on."""
        first, second = self.client.greet("Eva"), self.client.greet("Bob")
        self.client.connectionRefused()
        for failed in (first, second):
            error = self.failureResultOf(failed, NotConnected).value
            self.assertIn("nobody listens", str(error))
        again = self.client.greet("Eva")
        self.answer(b"Hello, Eva!")
        self.successResultOf(again)

    def test_unreachable(self) -> None:
        """Where no datagram can be sent, the name fails, in words."""
        self.socket.trouble = OSError(101, "Network is unreachable")
        error = self.failureResultOf(self.client.greet("Eva"), NotConnected).value
        self.assertIn("network is unreachable", str(error))

    def test_close(self) -> None:
        """Closing fails what is awaited, and fires when the socket is closed."""
        answer = self.client.greet("Eva")
        closed = self.client.close()
        self.failureResultOf(answer, NotConnected)
        self.assertTrue(self.socket.stopped)
        self.assertIsNone(self.successResultOf(closed))
        self.assertIsNone(self.successResultOf(self.client.close()))

    def test_closing_one_that_died(self) -> None:
        """A client whose socket is gone can be closed."""
        self.client.doStop()
        self.assertIsNone(self.successResultOf(self.client.close()))

    def test_after_close(self) -> None:
        """Who asks after `close` is told so, and no socket is opened for it."""
        opened: list[None] = []
        self.connect(reopen=lambda: opened.append(None))
        self.successResultOf(self.client.close())
        with self.assertRaises(MisuseError):
            self.client.greet("Eva").addErrback(lambda _: None)
        self.assertEqual(opened, [])

    def test_socket_that_dies(self) -> None:
        """A socket that a refusal closes is opened anew for the next name."""
        opened: list[MemorySocket] = []
        self.connect(reopen=lambda: opened.append(bind(self.client)))
        answer = self.client.greet("Eva")
        self.client.doStop()  # as epoll has it
        self.failureResultOf(answer, NotConnected)
        again = self.client.greet("Eva")
        self.assertEqual(opened[0].take(), [b"Eva"])
        self.answer(b"Hello, Eva!")
        self.successResultOf(again)

    def test_socket_that_cannot_be_opened_anew(self) -> None:
        """If that fails, so does each name, and none is awaited for ever."""

        def reopen() -> None:
            raise NotConnected("192.0.2.1:9999", "network is unreachable")

        self.connect(reopen=reopen)
        self.client.doStop()
        for _ in range(2):
            failed = self.client.greet("Eva")
            self.failureResultOf(failed, NotConnected)


def link_local() -> str:
    """An address of this machine that means nothing without its interface."""
    known = Path("/proc/net/if_inet6")
    for line in known.read_text().splitlines() if known.exists() else []:
        digits, *_, interface = line.split()
        if digits.startswith("fe80"):
            return f"{IPv6Address(int(digits, 16))}%{interface}"
    raise SkipTest("no link-local address here")


class ConnectDatagramTests(TestCase):
    """Client and service, over sockets."""

    timeout = 30

    def serve(self, port: int = 0) -> Any:
        from twisted.internet import reactor

        return reactor.listenUDP(  # type: ignore[attr-defined]
            port, HelloDatagramProtocol(log="none"), interface="127.0.0.1"
        )

    async def connect(self, port: int, **arguments: Any) -> DatagramHelloClient:
        from twisted.internet import reactor

        client = await connect_datagram_hello(reactor, "127.0.0.1", port, **arguments)
        self.addCleanup(client.close)
        return client

    async def test_conversation(self) -> None:
        """Names are answered; the observer is told from where to where."""
        happened: list[Any] = []

        class Noting(Observer):
            def connected(self, here: str, there: str) -> None:
                happened.append(there)

        udp = self.serve()
        self.addCleanup(udp.stopListening)
        port = udp.getHost().port
        client = await self.connect(port, observer=Noting())
        answers = [client.greet(name) for name in ("Michael", "Tracy", "Sarah")]
        self.assertEqual(await answers[0], b"Hello, Michael!")
        self.assertEqual(await answers[1], b"Hello, Tracy!")
        self.assertEqual(await answers[2], b"Hello, Sarah!")
        self.assertEqual(happened, [f"127.0.0.1:{port}"])
        await client.close()

    async def test_refused_and_back(self) -> None:
        """A refusal is told at once; when the service is back, so is the client."""
        udp = self.serve()
        port = udp.getHost().port
        client = await self.connect(port)
        self.assertEqual(await client.greet("Eva"), b"Hello, Eva!")
        await udp.stopListening()
        error: Any = await self.assertFailure(client.greet("Bob"), NotConnected)
        self.assertIn("refused", str(error))
        self.addCleanup(self.serve(port).stopListening)
        self.assertEqual(await client.greet("Bob"), b"Hello, Bob!")
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_refused_with_many_on_their_way(self) -> None:
        """A refusal fails each name that was on its way."""
        udp = self.serve()
        port = udp.getHost().port
        await udp.stopListening()
        client = await self.connect(port)
        failed: list[Deferred[bytes]] = [
            client.greet(name) for name in ("Eva", "Bob", "Tracy")
        ]
        for each in failed:
            await self.assertFailure(each, NotConnected)

    async def test_largest_name(self) -> None:
        """What fits a datagram is sent, what does not is refused."""
        udp = self.serve()
        self.addCleanup(udp.stopListening)
        client = await self.connect(udp.getHost().port, tries=1, timeout=0.01)
        with self.assertRaises(NameNotSendable):
            client.greet("x" * 65_508)
        # Its answer would fit no datagram.
        await self.assertFailure(client.greet("x" * 65_507), TimedOut)

    async def test_no_such_family(self) -> None:
        """An address of another family than was asked for is none."""
        from twisted.internet import reactor

        await self.assertFailure(
            connect_datagram_hello(reactor, "127.0.0.1", 9999, family=6),
            NameNotResolved,
        )

    async def test_scope(self) -> None:
        """A link-local address is reached on the interface that is said with it."""
        from twisted.internet import reactor

        host = link_local()
        udp: Any = reactor.listenUDP(  # type: ignore[attr-defined]
            0, HelloDatagramProtocol(log="none"), interface="::"
        )
        self.addCleanup(udp.stopListening)
        client = await connect_datagram_hello(reactor, host, udp.getHost().port)
        self.addCleanup(client.close)
        self.assertEqual(await client.greet("Eva"), b"Hello, Eva!")

    async def test_ipv6(self) -> None:
        """IPv6 works alike."""
        from twisted.internet import reactor

        if not socket.has_ipv6:
            raise SkipTest("no IPv6 here")
        udp: Any = reactor.listenUDP(  # type: ignore[attr-defined]
            0, HelloDatagramProtocol(log="none"), interface="::1"
        )
        self.addCleanup(udp.stopListening)
        client = await connect_datagram_hello(reactor, "::1", udp.getHost().port)
        self.addCleanup(client.close)
        self.assertEqual(await client.greet("Eva"), b"Hello, Eva!")
