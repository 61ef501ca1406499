"""
Settings become services.
"""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import (
    CannotListenError,
    ConnectionRefusedError as RefusedError,
)
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from sockproto.datagram import connect_datagram_hello
from sockproto.echo import connect_echo
from sockproto.errors import PlaceError
from sockproto.hello import connect_hello
from sockproto.service import SockprotoService, make_service
from sockproto.settings import Settings
from tests.contracts import LogLines, directory, join, serve_tcp, turns_until

FREE = "tcp:0:interface=127.0.0.1"
FREE_UDP = "udp:0:interface=127.0.0.1"


@implementer(IStreamServerEndpoint)
class LateEndpoint:
    """A plugin's endpoint, which takes its time."""

    def __init__(self) -> None:
        self.listening: Deferred[Any] = Deferred()

    def listen(self, factory: Any) -> Deferred[Any]:
        return self.listening


class Noting(SockprotoService):
    """Keeps the failures that come late."""

    def __init__(self, settings: Settings, reactor: Any) -> None:
        self.failures: list[PlaceError] = []
        super().__init__(settings, reactor)

    def place_failed(self, error: PlaceError) -> None:
        super().place_failed(error)
        self.failures.append(error)


class ServiceCase(TestCase):
    """Makes services on free ports."""

    timeout = 30
    kind: ClassVar[type[SockprotoService]] = SockprotoService

    def make(self, **settings: Any) -> SockprotoService:
        from twisted.internet import reactor

        settings = {"delay": 0.0, **settings}
        return self.kind(Settings.only(**settings), reactor)

    def start(self, **settings: Any) -> SockprotoService:
        service = self.make(**settings)
        service.startService()
        self.addCleanup(lambda: service.running and service.stopService())
        return service

    def port_of(self, service: SockprotoService, at: int = 0) -> int:
        port: int = service.ports[at].getHost().port  # type: ignore[attr-defined]
        return port

    def endpoint(self, service: SockprotoService, at: int = 0) -> TCP4ClientEndpoint:
        from twisted.internet import reactor

        return TCP4ClientEndpoint(reactor, "127.0.0.1", self.port_of(service, at))


class ServingTests(ServiceCase):
    """What runs, and where."""

    async def test_all_of_it(self) -> None:
        """Each service is there, as its settings say."""
        from twisted.internet import reactor

        service = self.start(
            hello=FREE,
            echo=FREE,
            udp=FREE_UDP,
            udp_echo=FREE_UDP,
            greeting="Hi",
            answer="Hallo, NAME.",
            framing="line",
        )
        hello = await connect_hello(self.endpoint(service, 0), framing="line")
        self.assertEqual(await hello.greeting(), b"Hi")
        self.assertEqual(await hello.greet("Eva"), b"Hallo, Eva.")
        await hello.close()
        echo = await connect_echo(self.endpoint(service, 1))
        self.assertEqual(await echo.echo(b"hello"), b"hello")
        await echo.close()
        names = await connect_datagram_hello(
            reactor, "127.0.0.1", self.port_of(service, 2), answer="Hallo, NAME."
        )
        self.assertEqual(await names.greet("Eva"), b"Hallo, Eva.")
        await names.close()
        echoes = await connect_datagram_hello(
            reactor, "127.0.0.1", self.port_of(service, 3), answer="(NAME)"
        )
        echoes.greet("Eva").addErrback(lambda _: None)
        await turns_until(lambda: echoes.unexpected == b"Eva")
        await echoes.close()

    async def test_log_says_where(self) -> None:
        """The log says where each service listens, port 0 resolved."""
        log = LogLines(self)
        service = self.start(hello=[FREE, FREE], udp=FREE_UDP)
        ports = [self.port_of(service, at) for at in range(3)]
        self.assertNotIn(0, ports)
        self.assertEqual(
            log.having(" listens on "),
            [
                f"hello listens on 127.0.0.1:{ports[0]}.",
                f"hello listens on 127.0.0.1:{ports[1]}.",
                f"udp listens on 127.0.0.1:{ports[2]}.",
            ],
        )
        self.assertEqual(log.having("Bind UDP"), [f"Bind UDP on {ports[2]}..."])

    async def test_log_none(self) -> None:
        """With `none`, nothing is logged but failures."""
        log = LogLines(self)
        service = self.start(hello=FREE, udp=FREE_UDP, log="none")
        await service.stopService()
        self.assertEqual(log.having("listens on"), [])
        self.assertEqual(log.having("Bind UDP"), [])

    async def test_is_a_service(self) -> None:
        """It goes into an application, and is started and stopped with it."""
        from twisted.internet import reactor

        service = make_service(Settings.only(echo=FREE), reactor)
        self.assertTrue(IService.providedBy(service))
        application = MultiService()
        service.setServiceParent(application)
        application.privilegedStartService()
        self.assertEqual(len(service.ports), 1)
        application.startService()
        self.assertEqual(len(service.ports), 1)
        await application.stopService()
        self.assertEqual(service.ports, ())

    async def test_privileged_start_once(self) -> None:
        """What the privileged start has opened, the start does not open again."""
        log = LogLines(self)
        service = self.make(echo=FREE)
        service.privilegedStartService()
        ports = service.ports
        service.startService()
        self.assertEqual(service.ports, ports)
        self.assertEqual(len(log.having("listens on")), 1)
        await service.stopService()

    async def test_again(self) -> None:
        """What was stopped can be started again."""
        service = self.make(echo=FREE)
        for _ in range(2):
            service.startService()
            client = await connect_echo(self.endpoint(service))
            self.assertEqual(await client.echo(b"hello"), b"hello")
            await client.close()
            await service.stopService()

    async def test_udp_services_know_each_other(self) -> None:
        """The UDP services of one process do not answer each other."""
        service = self.start(udp=FREE_UDP, udp_echo=FREE_UDP)
        hello: Any = service.ports[0]
        echo: Any = service.ports[1]
        for one, other in ((hello, echo), (echo, hello)):
            one.write(b"hello", ("127.0.0.1", other.getHost().port))
            await turns_until(other.protocol.dropped.total)
            self.assertEqual(other.protocol.dropped, {"own": 1})


class StartingTests(ServiceCase):
    """All or nothing."""

    kind = Noting

    def test_places_are_parsed_first(self) -> None:
        """A place that cannot be understood is told before anything starts."""
        for settings, service in (
            ({"hello": [FREE, "tpc:1"]}, "hello"),
            ({"hello": FREE, "echo": "tcp:x"}, "echo"),
            ({"hello": FREE, "udp": "tcp:1"}, "udp"),
            ({"hello": FREE, "udp_echo": "udp:66000"}, "udp-echo"),
        ):
            with self.assertRaises(PlaceError) as caught:
                self.make(**settings)
            self.assertEqual(caught.exception.service, service)

    async def test_place_in_use(self) -> None:
        """If one place is in use, none is opened, and the error names it."""
        from twisted.internet import reactor

        for privileged in (True, False):
            taken: Any = await serve_tcp(self, Factory.forProtocol(Protocol))
            place = f"tcp:{taken.getHost().port}:interface=127.0.0.1"
            service = self.make(hello=FREE, echo=place, udp=FREE_UDP)
            log = LogLines(self)
            with self.assertRaises(PlaceError) as caught:
                if privileged:
                    service.privilegedStartService()
                else:
                    service.startService()
            error = caught.exception
            self.assertEqual((error.service, error.place), ("echo", place))
            self.assertIn("it is in use", str(error))
            self.assertIsInstance(error.__cause__, CannotListenError)
            self.assertEqual(service.ports, ())
            (line,) = log.having("hello listens on")
            opened = int(line.rstrip(".").rpartition(":")[2])
            there = TCP4ClientEndpoint(reactor, "127.0.0.1", opened)
            await self.assertFailure(Deferred.fromCoroutine(join(there)), RefusedError)
            self.assertEqual(log.having("cannot listen"), [])  # it is raised

    async def test_udp_place_in_use(self) -> None:
        """So it is with UDP."""
        first = self.start(udp=FREE_UDP)
        place = f"udp:{self.port_of(first)}:interface=127.0.0.1"
        second = self.make(hello=FREE, udp=place)
        with self.assertRaises(PlaceError) as caught:
            second.startService()
        self.assertEqual(caught.exception.service, "udp")
        self.assertEqual(second.ports, ())

    async def test_after_a_failed_start(self) -> None:
        """Once the place is free, the same service can be started."""
        taken: Any = await serve_tcp(self, Factory.forProtocol(Protocol))
        service = self.make(echo=f"tcp:{taken.getHost().port}:interface=127.0.0.1")
        with self.assertRaises(PlaceError):
            service.startService()
        await taken.stopListening()
        service.startService()
        self.assertEqual(len(service.ports), 1)
        await service.stopService()

    # Endpoints that take their time

    def start_late(self, *late: LateEndpoint) -> Noting:
        service: Any = self.make(hello=[FREE] * len(late), echo=FREE)
        for at, endpoint in enumerate(late):
            opening = service._openings[at]
            service._openings[at] = type(opening)(
                "hello", f"late:{at}", lambda endpoint=endpoint: endpoint.listen(None)
            )
        service.startService()
        self.addCleanup(lambda: service.running and service.stopService())
        return service  # type: ignore[no-any-return]

    async def test_late_place(self) -> None:
        """A place that takes its time is there when it is there, and is closed."""
        late = LateEndpoint()
        service = self.start_late(late)
        self.assertEqual(len(service.ports), 1)
        port = await serve_tcp(self, Factory.forProtocol(Protocol))
        late.listening.callback(port)
        self.assertEqual(len(service.ports), 2)
        await service.stopService()
        self.assertFalse(port.connected)  # type: ignore[attr-defined]
        self.assertEqual(service.failures, [])

    async def test_late_failure(self) -> None:
        """One that fails later closes the others, with one line of the log."""
        log = LogLines(self)
        late = LateEndpoint()
        service = self.start_late(late)
        (port,) = service.ports
        late.listening.errback(CannotListenError("", 1, OSError(98, "in use")))
        self.assertEqual(service.ports, ())
        await turns_until(lambda: not port.connected)  # type: ignore[attr-defined]
        (error,) = service.failures
        self.assertEqual((error.service, error.place), ("hello", "late:0"))
        self.assertEqual(len(log.having("cannot listen")), 1)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_late_failure_of_one_of_two(self) -> None:
        """Others that still take their time are given up, and not called failures."""
        late, other = LateEndpoint(), LateEndpoint()
        service = self.start_late(late, other)
        late.listening.errback(CannotListenError("", 1, OSError(98, "in use")))
        self.assertEqual([error.place for error in service.failures], ["late:0"])

    async def test_stopping_after_a_failed_start(self) -> None:
        """Who stops it then waits for the places that were open: no file is left."""
        taken: Any = await serve_tcp(self, Factory.forProtocol(Protocol))
        path = directory(self) / "hello.sock"
        service = self.make(
            hello=f"unix:{path}:lockfile=0",
            echo=f"tcp:{taken.getHost().port}:interface=127.0.0.1",
        )
        with self.assertRaises(PlaceError):
            service.startService()
        await service.stopService()
        self.assertFalse(path.exists())

    async def test_stopping_while_it_takes_its_time(self) -> None:
        """Who stops before all is open has not failed."""
        log = LogLines(self)
        service = self.start_late(LateEndpoint())
        await service.stopService()
        self.assertEqual(service.failures, [])
        self.assertEqual(log.having("cannot listen"), [])


class StoppingTests(ServiceCase):
    """Places close first; connections are drained."""

    async def test_served_to_the_end(self) -> None:
        """A name that waits for its delay is answered; nobody new gets in."""
        service = self.start(hello=FREE, delay=0.1, framing="line")
        endpoint = self.endpoint(service)
        client = await connect_hello(endpoint, framing="line")
        await client.greeting()
        answer = client.greet("Eva")
        (connection,) = service.connections
        await turns_until(lambda: connection.bytes_received)
        stopped = service.stopService()
        self.assertEqual(service.ports, ())
        await self.assertFailure(Deferred.fromCoroutine(join(endpoint)), RefusedError)
        self.assertEqual(await answer, b"Hello, Eva!")
        await client.closed()
        await stopped

    async def test_deadline(self) -> None:
        """At the end of the drain the rest is aborted, with one line of the log."""
        log = LogLines(self)
        service = self.start(echo=FREE, drain=0.2)
        peer = await join(self.endpoint(service))
        await turns_until(lambda: service.connections)
        peer.transport.pauseProducing()
        await service.stopService()
        self.assertEqual(len(log.having("Aborting 1 connection after 0.2 s")), 1)
        peer.transport.resumeProducing()
        await peer.gone()
        await turns_until(lambda: not service.connections)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_signals(self) -> None:
        """It does not touch signals."""
        import signal

        before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
        service = self.start(echo=FREE)
        await service.stopService()
        after = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
        self.assertEqual(after, before)
