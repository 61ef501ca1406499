"""
The reactor as a whole: its end, its timers, threads, and asyncio beside it.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import ConnectionLost, ReactorNotRunning
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.threads import (
    blockingCallFromThread,
    deferToThreadPool,
)
from twisted.trial.unittest import SynchronousTestCase

from tests.reactors import (
    LONGEST,
    Client,
    Contract,
    HalfCloseable,
    Notes,
    OnOurs,
    ReactorCase,
    Server,
    UvloopReactor,
    close_reactor,
    in_reactor,
    on_both,
    without_uvloop,
)
from tests.uvreactor.test_raising import system

if TYPE_CHECKING:
    from collections.abc import Callable


def descriptors() -> int:
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


class TimersContract(Contract):
    @in_reactor
    async def test_order(self) -> None:
        """Timers come in their order, none too early, and can be moved."""
        now = self.reactor.seconds()
        came: list[tuple[str, float]] = []

        def note(name: str) -> None:
            came.append((name, self.reactor.seconds() - now))

        self.reactor.callLater(0.03, note, "c")
        self.reactor.callLater(0.01, note, "b")
        self.reactor.callLater(0, note, "a")
        sooner = self.reactor.callLater(5, note, "d")
        later = self.reactor.callLater(0.001, note, "e")
        self.reactor.callLater(0.001, note, "never").cancel()
        sooner.reset(0.04)
        later.delay(0.05)
        await self.until(lambda: len(came) == 5)
        self.assertEqual("".join(name for name, _ in came), "abcde")
        for (_, when), least in zip(came, (0, 0.01, 0.03, 0.04, 0.05), strict=True):
            self.assertGreaterEqual(when, least)

    @in_reactor
    async def test_sooner_than_all(self) -> None:
        """A timer that is set to be the next one is, whoever sets it."""
        came: list[str] = []
        far = self.reactor.callLater(60, came.append, "far")
        thread = threading.Thread(
            target=self.reactor.callFromThread, args=(came.append, "thread")
        )
        thread.start()
        await self.until(lambda: came)
        thread.join()
        far.reset(0)
        await self.until(lambda: len(came) == 2)
        self.assertEqual(came, ["thread", "far"])

    @in_reactor
    async def test_raising(self) -> None:
        """What a timer raises is logged once, and keeps no other from its turn."""
        came: list[int] = []

        def fail() -> None:
            raise ValueError("a test's")

        self.reactor.callLater(0, fail)
        self.reactor.callLater(0, came.append, 1)
        await self.until(lambda: came)
        self.assertEqual(self.logged(ValueError), [ValueError])

    @in_reactor
    async def test_none_left(self) -> None:
        """Timers that were cancelled are forgotten."""
        for _ in range(300):
            self.reactor.callLater(100, self.fail).cancel()
        await self.turns()
        self.assertLessEqual(len(self.reactor.getDelayedCalls()), 3)


class PutOffTests(OnOurs, ReactorCase):  # type: ignore[misc]
    """What is put off to the next turn comes before what is read in it."""

    def make_reactor(self) -> Any:
        import uvloop

        class PutAside(uvloop.Loop):
            """A process that others take the processor from as it sets a timer."""

            def call_later(self, *args: Any) -> Any:  # type: ignore[override]
                until = self.time() + 0.02
                while self.time() < until:
                    pass
                return super().call_later(*args)

        return UvloopReactor(PutAside())

    async def check(self, put_off: Callable[[Callable[[], None]], None]) -> None:
        happened: list[str] = []
        done: Deferred[None] = Deferred()

        def received(protocol: Notes, data: bytes) -> None:
            happened.append(data.decode())
            if data == b"first":
                put_off(lambda: happened.append("put off"))
                peer.send(b"second")
            else:
                done.callback(None)

        peer = await self.accepted(Notes(dataReceived=received))
        self.reactor.callLater(0.03, lambda: None)
        peer.send(b"first")
        await done
        self.assertEqual(happened, ["first", "put off", "second"])

    @in_reactor
    async def test_timer_set_late(self) -> None:
        """Also while a timer is set that will come later than was meant."""
        await self.check(lambda put_off: self.reactor.callLater(0, put_off))

    @in_reactor
    async def test_another_moved(self) -> None:
        """Also if another is moved after that, in the same turn."""
        far = self.reactor.callLater(100, self.fail)

        def put_off_and_move(put_off: Callable[[], None]) -> None:
            self.reactor.loop.call_soon(far.reset, 50)
            self.reactor.callLater(0, put_off)

        await self.check(put_off_and_move)


class LoopTests(OnOurs, ReactorCase):  # type: ignore[misc]
    """What a loop does that is given."""

    def make_reactor(self) -> Any:
        import uvloop

        class Refusing(uvloop.Loop):
            """A loop in debug mode refuses calls from other threads so."""

            refuses = False

            def call_later(self, *args: Any) -> Any:  # type: ignore[override]
                if self.refuses:
                    self.refuses = False
                    raise RuntimeError("not from this thread")
                return super().call_later(*args)

        return UvloopReactor(Refusing())

    def test_refuses(self) -> None:
        """A timer that the loop refused keeps no other from its turn."""
        came: list[str] = []
        self.reactor.loop.refuses = True
        with self.assertRaises(RuntimeError):
            self.reactor.callLater(0, came.append, "refused")
        self.reactor.callLater(0, came.append, "taken")
        self.iterate()
        self.assertEqual(came, ["refused", "taken"])

    def test_complaints(self) -> None:
        """What is not ours is told to the handler that the loop had."""
        told: list[Any] = []
        loop = type(self.reactor.loop)()
        loop.set_exception_handler(lambda _, each: told.append(each["exception"]))
        reactor = UvloopReactor(loop)
        self.addCleanup(close_reactor, reactor)
        error = ValueError("a test's")

        def fail() -> None:
            raise error

        loop.call_soon(fail)
        reactor.callLater(0, reactor.stop)
        reactor.run(installSignalHandlers=False)
        self.assertEqual(told, [error])

    def test_not_uvloop(self) -> None:
        """A loop of asyncio's own is refused."""
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        self.assertRaises(TypeError, UvloopReactor, loop)


class ThreadsContract(Contract):
    @in_reactor
    async def test_threads(self) -> None:
        """A thread is called, answers, and calls back."""
        pool = self.reactor.getThreadPool()
        ours = threading.get_ident()

        def elsewhere() -> tuple[int, int]:
            inside = blockingCallFromThread(self.reactor, threading.get_ident)
            return threading.get_ident(), inside

        outside, inside = await deferToThreadPool(self.reactor, pool, elsewhere)
        self.assertNotEqual(outside, ours)
        self.assertEqual(inside, ours)

    @in_reactor
    async def test_order(self) -> None:
        """Calls from a thread come in their order."""
        came: list[int] = []

        def call() -> None:
            for number in range(500):
                self.reactor.callFromThread(came.append, number)

        thread = threading.Thread(target=call)
        thread.start()
        await self.until(lambda: len(came) == 500)
        thread.join()
        self.assertEqual(came, list(range(500)))

    @in_reactor
    async def test_resolver(self) -> None:
        """A name is resolved in a thread."""
        self.assertEqual(await self.reactor.resolve("localhost"), "127.0.0.1")


class StoppingContract(Contract):
    def test_live_connections(self) -> None:
        """Who is connected when the reactor stops is told: `ConnectionLost`."""
        server, client = HalfCloseable(), Notes()

        async def scenario() -> None:
            port = self.listen(lambda: server)
            self.reactor.connectTCP(
                "127.0.0.1", port.getHost().port, Client(lambda: client)
            )
            await self.until(lambda: server.happened and client.happened)

        self.run_in_reactor(scenario())
        for protocol in (server, client):
            self.assertEqual(protocol.lost, ConnectionLost)
            self.assertEqual(protocol.happened, ["connectionMade", "connectionLost"])
        self.assertRaises(ReactorNotRunning, self.reactor.stop)

    def test_stopped_within_data_received(self) -> None:
        """`reactor.stop` may be called by a protocol."""
        protocol = Notes(dataReceived=lambda *_: self.reactor.stop())

        def begin() -> None:
            port = self.listen(lambda: protocol)
            self.peer_of(port).send(b"x")

        self.reactor.callWhenRunning(begin)
        late = self.reactor.callLater(LONGEST, self.reactor.stop)
        self.reactor.run(installSignalHandlers=False)
        late.cancel()
        self.assertEqual(protocol.lost, ConnectionLost)

    def test_after_a_crash(self) -> None:
        """What `crash` has ended goes on as before; trial does so after each test."""
        came: list[str] = []

        def crash_when_made(protocol: Notes) -> None:
            self.reactor.callLater(0, self.reactor.crash)

        def begin() -> None:
            self.peer_of(self.listen(lambda: Notes(connectionMade=crash_when_made)))

        def crash_and_put_off() -> None:
            self.reactor.crash()
            self.reactor.callLater(0, came.append, "after iterate")

        self.reactor.callWhenRunning(begin)
        self.reactor.run(installSignalHandlers=False)
        self.reactor.callLater(0, came.append, "after run")
        self.iterate()
        self.reactor.callLater(0, crash_and_put_off)
        self.iterate()
        self.assertEqual(came, ["after run", "after iterate"])

    def test_iterate_and_run(self) -> None:
        """What a crash within `iterate` has left out comes when it runs."""
        came: list[str] = []

        def crash() -> None:
            self.reactor.crash()
            self.reactor.callLater(0, came.append, "put off")
            self.reactor.callLater(0, self.reactor.stop)

        self.reactor.callLater(0, crash)
        self.reactor.iterate(0.05)
        self.reactor.run(installSignalHandlers=False)
        self.assertEqual(came, ["put off"])

    def test_two_crashes(self) -> None:
        """One that comes in the turn after another is none of the next run."""
        crashed: list[bytes] = []
        peers: list[Any] = []

        def crash_again(protocol: Notes, data: bytes) -> None:
            crashed.append(data)
            self.reactor.crash()

        def crash() -> None:
            self.reactor.crash()
            peers[0].send(b"x")

        def begin() -> None:
            port = self.listen(lambda: Notes(dataReceived=crash_again))
            peers.append(self.peer_of(port))

        self.reactor.callWhenRunning(begin)
        self.reactor.callLater(0.05, crash)
        self.reactor.run(installSignalHandlers=False)
        if not crashed:  # Twisted's is told in the next run
            self.reactor.run(installSignalHandlers=False)
        for number in range(2):
            came: list[int] = []
            self.reactor.callLater(0.01, came.append, number)
            self.reactor.callLater(0.02, self.reactor.crash)
            self.reactor.run(installSignalHandlers=False)
            self.assertEqual(came, [number])

    def test_writes_at_the_end(self) -> None:
        """What is written when the reactor stops harms nobody."""

        def write(protocol: Notes, *_: object) -> None:
            protocol.transport.write(b"late")
            protocol.transport.loseConnection()
            self.reactor.callLater(0, self.fail)

        protocol = Notes(connectionLost=write)

        async def scenario() -> None:
            await self.accepted(protocol)

        self.run_in_reactor(scenario())
        self.assertEqual(protocol.lost, ConnectionLost)

    def test_descriptors(self) -> None:
        """A reactor that was run and closed leaves no descriptor open."""

        def run_one() -> None:
            reactor = self.make_reactor()
            protocols = [Notes() for _ in range(4)]
            builds = iter(protocols)

            def begin() -> None:
                port = reactor.listenTCP(
                    0, Server(lambda: next(builds)), interface="127.0.0.1"
                )
                reactor.listenUDP(0, _Silent(), interface="127.0.0.1")
                for _ in range(2):
                    reactor.connectTCP(
                        "127.0.0.1", port.getHost().port, Client(lambda: next(builds))
                    )
                # One more that is under way when all ends.
                reactor.callLater(
                    0.01,
                    lambda: (
                        reactor.connectTCP(
                            "127.0.0.1", port.getHost().port, Client(Notes)
                        ),
                        reactor.callLater(0, reactor.stop),
                    ),
                )

            reactor.callWhenRunning(begin)
            reactor.run(installSignalHandlers=False)
            close_reactor(reactor)
            gc.collect()

        run_one()
        before = descriptors()
        for _ in range(20):
            run_one()
        self.assertEqual(descriptors(), before)

    def test_in_a_thread(self) -> None:
        """It runs in another thread than it was made in, and logs rightly there."""
        protocol = Notes()
        seen: list[str] = []
        protocol.does["dataReceived"] = lambda *_: seen.append(system())

        async def scenario() -> None:
            peer = await self.accepted(protocol)
            peer.send(b"x")
            await self.until(lambda: seen)
            peer.close()
            await self.lost(protocol)

        failed: list[BaseException] = []

        def run() -> None:
            try:
                self.run_in_reactor(scenario())
            except BaseException as error:  # noqa: BLE001 - it is raised there
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        self.assertEqual(failed, [])
        self.assertEqual(seen, ["Notes,0,127.0.0.1"])

    @in_reactor
    async def test_protocols_are_freed(self) -> None:
        """Nothing keeps a protocol whose connection is gone."""
        kept: list[Any] = []

        def build() -> Notes:
            protocol = Notes(dataReceived=lambda p, d: p.transport.loseConnection())
            kept.append(weakref.ref(protocol))
            return protocol

        port = self.reactor.listenTCP(0, _Forgetful(build), interface="127.0.0.1")
        for _ in range(5):
            peer = self.peer_of(port)
            peer.send(b"x")
            self.assertEqual(await peer.end(), "closed")
        await port.stopListening()
        await self.turns()
        gc.collect()
        self.assertEqual([each() for each in kept], [None] * 5)


class _Forgetful(Server):
    def buildProtocol(self, addr: object) -> Any:
        return self.builds()


class _Silent(DatagramProtocol):
    """
    Hears nothing.
    """


class BesideAsyncioTests(OnOurs, ReactorCase):  # type: ignore[misc]
    @in_reactor
    async def test_futures(self) -> None:
        """A future becomes a Deferred, and the other way round."""
        loop = self.reactor.loop
        future = loop.create_future()
        loop.call_soon(future.set_result, 5)
        self.assertEqual(await Deferred.fromFuture(future), 5)
        waiting: Deferred[int] = Deferred()
        as_future = waiting.asFuture(loop)
        self.reactor.callLater(0, waiting.callback, 6)
        self.assertEqual(await Deferred.fromFuture(as_future), 6)

    @in_reactor
    async def test_coroutines(self) -> None:
        """asyncio's sleeps, tasks, threads and streams run beside Twisted's."""
        port = self.listen(lambda: Notes(dataReceived=_echo))

        async def beside() -> bytes:
            self.assertIs(asyncio.get_running_loop(), self.reactor.loop)
            await asyncio.sleep(0.001)
            await asyncio.gather(*(asyncio.sleep(0) for _ in range(3)))
            host = await asyncio.get_running_loop().run_in_executor(
                None, socket.gethostname
            )
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port.getHost().port
            )
            writer.write(host.encode() * 10_000)
            await writer.drain()
            answer = await reader.readexactly(len(host) * 10_000)
            writer.close()
            await writer.wait_closed()
            return answer

        loop = self.reactor.loop
        answer = await Deferred.fromFuture(loop.create_task(beside()))
        self.assertEqual(answer, socket.gethostname().encode() * 10_000)
        await port.stopListening()
        await Deferred.fromFuture(loop.create_task(loop.shutdown_default_executor()))

    @in_reactor
    async def test_running_loop(self) -> None:
        """Code that Twisted calls can ask asyncio for the loop."""
        found: list[object] = []

        def find(*_: object) -> None:
            found.append(asyncio.get_running_loop())

        protocol = Notes(connectionMade=find, dataReceived=find, connectionLost=find)
        peer = await self.accepted(protocol)
        peer.send(b"x")
        await self.until(lambda: protocol.received)
        self.reactor.callLater(0, find)
        peer.close()
        await self.lost(protocol)
        await self.turns()
        self.assertEqual(found, [self.reactor.loop] * 4)

    @in_reactor
    async def test_server(self) -> None:
        """A server of asyncio's talks to a client of Twisted's."""

        async def serve(reader: Any, writer: Any) -> None:
            writer.write(await reader.read())
            writer.close()

        loop = self.reactor.loop
        server: Any = await Deferred.fromFuture(
            loop.create_task(asyncio.start_server(serve, "127.0.0.1", 0))
        )
        client = HalfCloseable()
        self.reactor.connectTCP(
            *server.sockets[0].getsockname(), Client(lambda: client)
        )
        await self.until(lambda: client.happened)
        client.transport.write(b"x" * 100_000)
        client.transport.loseWriteConnection()
        await self.until(lambda: "readConnectionLost" in client.happened)
        self.assertEqual(client.received, b"x" * 100_000)
        client.transport.loseConnection()
        await self.lost(client)
        server.close()

    @in_reactor
    async def test_deferred_in_task(self) -> None:
        """asyncio's task waits for a coroutine of Twisted's, which waits for one."""
        loop = self.reactor.loop

        async def inner() -> str:
            await asyncio.sleep(0)
            return "inner"

        async def middle() -> str:
            await self.turn()
            return await Deferred.fromFuture(loop.create_task(inner()))

        async def outer() -> str:
            return await ensureDeferred(middle()).asFuture(loop)

        self.assertEqual(await Deferred.fromFuture(loop.create_task(outer())), "inner")


def _echo(protocol: Notes, data: bytes) -> None:
    protocol.transport.write(data)


class PluginTests(SynchronousTestCase):
    if without_uvloop:  # pragma: no cover
        skip = without_uvloop

    def test_named(self) -> None:
        """Twisted finds the reactor by the name `uvloop`, and imports none of it."""
        from twisted.application.reactors import getReactorTypes

        types: Any = getReactorTypes()
        found = [each for each in types if each.shortName == "uvloop"]
        self.assertEqual([each.moduleName for each in found], ["sockproto.uvreactor"])
        import twisted.plugins.sockproto_reactor as plugin

        self.assertNotIn("import uvloop", Path(str(plugin.__file__)).read_text())


globals().update(on_both(TimersContract, ThreadsContract, StoppingContract))
