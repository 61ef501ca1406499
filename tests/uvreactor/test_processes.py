"""
What concerns the whole process: signals, children, descriptors, the global reactor.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import textwrap

from twisted.trial.unittest import SynchronousTestCase

from tests.contracts import directory
from tests.reactors import without_uvloop

BEGIN = {
    "Stock": """
        from twisted.internet import asyncioreactor
        asyncioreactor.install()
    """,
    "Ours": """
        from sockproto import uvreactor
        uvreactor.install()
    """,
}
"""The first lines of each script: the reactor."""

BEFORE_MAIN = """
import os, resource, socket, time
from twisted.internet.defer import ensureDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

class Echo(Protocol):
    def dataReceived(self, data):
        self.transport.write(data)

class Greet(Protocol):
    def connectionMade(self):
        self.transport.write(b"hello")

def listen(protocol, **how):
    factory = Factory.forProtocol(protocol)
    return reactor.listenTCP(0, factory, interface="127.0.0.1", **how)

def take_all_descriptors():
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        return taken

def give_back(taken):
    for descriptor in taken:
        os.close(descriptor)
"""
"""What scripts of descriptors have in common; their `main` is a coroutine."""

AFTER_MAIN = """
reactor.callWhenRunning(
    lambda: ensureDeferred(main()).addErrback(print).addBoth(
        lambda _: reactor.stop()))
reactor.run()
"""

SECONDS = 20
"""The longest that a script may take."""


class InProcess(SynchronousTestCase):
    """
    Runs scripts, with a reactor of Twisted's or ours.
    """

    reactor = ""

    def start(self, *argv: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def script(self, text: str) -> subprocess.Popen[str]:
        """Run this, with the reactor installed."""
        begin = textwrap.dedent(BEGIN[self.reactor])
        return self.start(
            "-c",
            f"{begin}\nfrom twisted.internet import reactor\n{textwrap.dedent(text)}",
        )

    def check_main(self, text: str, expected: list[str]) -> None:
        """Check what a coroutine `main` prints."""
        self.check(BEFORE_MAIN + textwrap.dedent(text) + AFTER_MAIN, expected)

    def check(self, text: str, expected: list[str]) -> None:
        """It prints these lines and ends."""
        printed, _ = self.script(text).communicate(timeout=SECONDS)
        self.assertEqual(printed.splitlines(), expected)


class _Scripts(InProcess):
    def test_children(self) -> None:
        """That a child has ended is told, also of many at once, and its status."""
        self.check(
            """
            import sys
            from twisted.internet.defer import Deferred, gatherResults
            from twisted.internet.protocol import ProcessProtocol
            from twisted.internet.utils import getProcessOutputAndValue

            class Child(ProcessProtocol):
                def __init__(self):
                    self.done = Deferred()
                def processEnded(self, reason):
                    self.done.callback(reason.value.status >> 8)

            def run():
                children = [Child() for _ in range(8)]
                for number, child in enumerate(children):
                    reactor.spawnProcess(
                        child, "/bin/sh", ["sh", "-c", f"cat; exit {number}"])
                    child.transport.closeStdin()
                output = getProcessOutputAndValue("/bin/echo", ["hello"])
                done = gatherResults([*(child.done for child in children), output])
                done.addCallback(print)
                done.addErrback(print)
                done.addBoth(lambda _: reactor.stop())

            reactor.callWhenRunning(run)
            reactor.callLater(10, reactor.stop)
            reactor.run()
            """,
            ["[0, 1, 2, 3, 4, 5, 6, 7, (b'hello\\n', b'', 0)]"],
        )

    def test_child_that_reads_slowly(self) -> None:
        """Much is passed through a child, and its end is told after its output."""
        self.check(
            """
            from twisted.internet.protocol import ProcessProtocol

            class Cat(ProcessProtocol):
                size = 0
                def connectionMade(self):
                    for _ in range(64):
                        self.transport.write(b"x" * 65_536)
                    self.transport.closeStdin()
                def outReceived(self, data):
                    self.size += len(data)
                def processEnded(self, reason):
                    print(self.size, reason.value.exitCode)
                    reactor.stop()

            reactor.callWhenRunning(
                lambda: reactor.spawnProcess(Cat(), "/bin/cat", ["cat"]))
            reactor.callLater(10, reactor.stop)
            reactor.run()
            """,
            [f"{64 * 65_536} 0"],
        )

    def test_child_that_is_gone(self) -> None:
        """Writing to a child that does not read, and has ended, ends in order."""
        self.check(
            """
            from twisted.internet.protocol import ProcessProtocol

            class True_(ProcessProtocol):
                def connectionMade(self):
                    self.transport.write(b"x" * 10_000_000)
                def processEnded(self, reason):
                    print(reason.value.exitCode)
                    reactor.stop()

            reactor.callWhenRunning(
                lambda: reactor.spawnProcess(True_(), "/bin/true", ["true"]))
            reactor.callLater(10, reactor.stop)
            reactor.run()
            """,
            ["0"],
        )

    def test_signals(self) -> None:
        """SIGTERM and SIGINT stop the reactor in order."""
        for number in (signal.SIGTERM, signal.SIGINT):
            process = self.script(
                """
                reactor.addSystemEventTrigger(
                    "before", "shutdown", lambda: print("stopping"))
                reactor.callWhenRunning(print, "running", flush=True)
                reactor.run()
                print("stopped")
                """
            )
            assert process.stdout is not None
            self.assertEqual(process.stdout.readline(), "running\n")
            process.send_signal(number)
            printed, _ = process.communicate(timeout=SECONDS)
            self.assertEqual(printed, "stopping\nstopped\n")
            self.assertIn(process.returncode, (0, -number))

    def test_own_handler(self) -> None:
        """A signal for which the program has a handler is handled at once."""
        self.check(
            """
            import os, signal
            def handle(*_):
                print("handled")
                reactor.callFromThread(reactor.stop)
            signal.signal(signal.SIGUSR1, handle)
            reactor.callWhenRunning(
                lambda: reactor.callInThread(os.kill, os.getpid(), signal.SIGUSR1))
            reactor.callLater(10, print, "too late")
            reactor.callLater(10, reactor.stop)
            reactor.run()
            """,
            ["handled"],
        )

    def test_asyncio_before_it_runs(self) -> None:
        """A future made before the reactor runs is of its loop."""
        self.check(
            """
            import asyncio, warnings
            from twisted.internet.defer import Deferred
            warnings.simplefilter("ignore")

            async def answer():
                await asyncio.sleep(0)
                return "answered"

            done = Deferred.fromFuture(asyncio.ensure_future(answer()))
            done.addBoth(print).addBoth(lambda _: reactor.stop())
            reactor.callLater(2, print, "too late")
            reactor.callLater(2, reactor.stop)
            reactor.run()
            """,
            ["answered"],
        )

    def test_descriptors_exhausted(self) -> None:
        """A server without descriptors waits idly, and serves when there are some."""
        self.check_main(
            """
            async def main():
                resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
                address = listen(Echo, backlog=100).socket.getsockname()
                await deferLater(reactor, 0)
                clients = [socket.socket() for _ in range(12)]
                taken = take_all_descriptors()
                os.close(taken.pop())  # room for one of them
                for client in clients:
                    client.setblocking(False)
                    client.connect_ex(address)
                cpu = time.process_time()
                await deferLater(reactor, 0.3)
                print("busy" if time.process_time() - cpu > 0.15 else "idle")
                give_back(taken)
                for client in clients:
                    client.close()
                await deferLater(reactor, 0.1)
                client = socket.create_connection(address)
                client.setblocking(False)
                client.send(b"x")
                for _ in range(100):
                    await deferLater(reactor, 0.01)
                    try:
                        print(client.recv(10))
                        break
                    except BlockingIOError:
                        pass
                else:
                    print("not served")
            """,
            ["idle", "b'x'"],
        )

    def test_many_exhausted_at_once(self) -> None:
        """Those for whom there was no descriptor are closed, or served later."""
        self.check_main(
            """
            def greeting(client, seconds):
                client.settimeout(seconds)
                try:
                    return client.recv(5)
                except OSError:
                    return b""

            def crowd(address):  # it has descriptors enough
                clients = [socket.create_connection(address) for _ in range(60)]
                served = sum(bool(greeting(client, 2)) for client in clients)
                for client in clients:
                    client.close()
                for _ in range(500):  # until the others' ends were seen
                    with socket.create_connection(address, 2) as client:
                        if greeting(client, 5):
                            return 0 < served < 60
                return False

            async def main():
                port = listen(Greet, backlog=100)
                await deferLater(reactor, 0)
                child = os.fork()
                if not child:
                    try:
                        os._exit(not crowd(port.socket.getsockname()))
                    finally:
                        os._exit(2)
                open_now = len(os.listdir("/proc/self/fd"))
                resource.setrlimit(
                    resource.RLIMIT_NOFILE, (open_now + 20, 4_096))
                while True:
                    ended, status = os.waitpid(child, os.WNOHANG)
                    if ended:
                        break
                    await deferLater(reactor, 0.01)
                print(os.waitstatus_to_exitcode(status))
            """,
            ["0"],
        )

    def test_resumed_without_descriptors(self) -> None:
        """A paused port can be resumed when no descriptor is left."""
        self.check_main(
            """
            async def main():
                port = listen(Greet)
                await deferLater(reactor, 0)
                resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
                port.stopReading()
                client = socket.create_connection(port.socket.getsockname())
                taken = take_all_descriptors()
                port.startReading()
                give_back(taken)
                await deferLater(reactor, 0.1)
                client.setblocking(False)
                print(client.recv(5))
            """,
            ["b'hello'"],
        )

    def test_stopped_without_descriptors(self) -> None:
        """A port can be paused, or stopped, when no descriptor is left."""
        self.check_main(
            """
            async def main():
                port = listen(Greet)
                await deferLater(reactor, 0)
                resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
                other = listen(Greet)
                client = socket.socket()
                taken = take_all_descriptors()
                port.stopReading()
                address = other.socket.getsockname()
                await other.stopListening()
                try:
                    client.connect(address)
                except ConnectionRefusedError:
                    print("refused")
                give_back(taken)
                port.startReading()
                client = socket.create_connection(port.socket.getsockname())
                await deferLater(reactor, 0.1)
                client.setblocking(False)
                print(client.recv(5))
            """,
            ["refused", "b'hello'"],
        )


class OnStockTests(_Scripts):
    reactor = "Stock"


class OnOursTests(_Scripts):
    reactor = "Ours"
    if without_uvloop:  # pragma: no cover
        skip = without_uvloop

    def test_installed_twice(self) -> None:
        """There is one reactor in a process."""
        self.check(
            """
            from twisted.internet.error import ReactorAlreadyInstalledError
            try:
                uvreactor.install()
            except ReactorAlreadyInstalledError:
                print("refused")
            print(type(reactor).__name__)
            """,
            ["refused", "UvloopReactor"],
        )

    def test_within_asyncio(self) -> None:
        """In a loop that runs it needs no `run`; after `stop` its timers go on."""
        printed, _ = self.start(
            "-c",
            textwrap.dedent(
                """
                import asyncio, uvloop
                from sockproto.uvreactor import install

                async def main():
                    install()
                    from twisted.internet import reactor
                    from twisted.internet.task import deferLater
                    print(reactor.loop is asyncio.get_running_loop())
                    reactor.startRunning(False)
                    reactor.callLater(0.01, reactor.stop)
                    try:
                        await asyncio.sleep(10)
                    finally:
                        await deferLater(reactor, 0.01).asFuture(reactor.loop)
                        print("cleaned up")

                try:
                    uvloop.run(main())
                except RuntimeError as stopped:
                    print(stopped)
                """
            ),
        ).communicate(timeout=SECONDS)
        self.assertEqual(
            printed.splitlines(),
            ["True", "cleaned up", "Event loop stopped before Future completed."],
        )

    def test_child_after_its_loop(self) -> None:
        """A child that ends when the loop is closed harms nobody."""
        self.check(
            """
            import subprocess
            reactor.callLater(0, reactor.stop)
            reactor.run()
            reactor.loop.close()
            print(subprocess.run(["true"]).returncode)
            """,
            ["0"],
        )

    def test_pytest(self) -> None:
        """pytest-twisted runs on it, as on the asyncio reactor that it is."""
        folder = directory(self)
        (folder / "conftest.py").write_text(
            "from sockproto.uvreactor import install\n\ninstall()\n"
        )
        (folder / "test_reactor.py").write_text(
            textwrap.dedent(
                """
                import pytest_twisted
                from twisted.internet import reactor
                from twisted.internet.task import deferLater

                @pytest_twisted.ensureDeferred
                async def test_reactor():
                    assert type(reactor).__name__ == "UvloopReactor"
                    assert await deferLater(reactor, 0.001, int) == 0
                """
            )
        )
        pytest = self.start(
            "-m", "pytest", "-p", "no:cacheprovider", "--reactor=asyncio", str(folder)
        )
        printed, _ = pytest.communicate(timeout=SECONDS)
        self.assertIn("1 passed", printed)

    def test_twistd(self) -> None:
        """`twistd --reactor=uvloop` serves, and ends at SIGTERM and SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            process = self.start(
                "-m",
                "twisted",
                "--reactor=uvloop",
                "web",
                "--listen=tcp:0:interface=127.0.0.1",
            )
            assert process.stdout is not None
            port = 0
            while not port:
                found = re.search(
                    r'"Site starting on (\d+)"', process.stdout.readline()
                )
                port = int(found[1]) if found else 0
            # It answers, so it is running.
            with socket.create_connection(("127.0.0.1", port), SECONDS) as client:
                client.sendall(b"GET /none HTTP/1.0\r\n\r\n")
                self.assertEqual(client.recv(5), b"HTTP/")
            process.send_signal(number)
            rest, _ = process.communicate(timeout=SECONDS)
            self.assertIn(f"Received {signal.Signals(number).name}", rest)
            self.assertIn("Stopping factory", rest)
            self.assertIn(process.returncode, (0, -number))


del _Scripts
