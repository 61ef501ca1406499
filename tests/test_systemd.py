"""
What systemd is told, over real datagram sockets.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from sockproto.errors import SettingError
from sockproto.systemd import notify
from tests.contracts import LogLines, directory


class Notified:
    """A socket at `address`, as systemd has one for each service."""

    def __init__(self, case: SynchronousTestCase, address: bytes) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        case.addCleanup(self._socket.close)
        self._socket.bind(address)
        self._socket.setblocking(False)
        # What the kernel made of it, if it chose the name.
        self.address: bytes | str = self._socket.getsockname()

    def received(self) -> list[bytes]:
        """All that came since the last time."""
        datagrams = []
        while True:
            try:
                datagrams.append(self._socket.recv(65_536))
            except BlockingIOError:
                return datagrams


class NotifyTests(SynchronousTestCase):
    """systemd listens."""

    def setUp(self) -> None:
        self.log = LogLines(self)
        self.folder = directory(self)
        self.path = str(self.folder / "notify")
        self.systemd = Notified(self, os.fsencode(self.path))
        self.environ = {"NOTIFY_SOCKET": self.path}

    def test_one(self) -> None:
        """What is said arrives as it was said."""
        self.assertIs(notify("READY=1", environ=self.environ), True)
        self.assertEqual(self.systemd.received(), [b"READY=1"])
        self.assertEqual(self.log.lines, [])

    def test_several(self) -> None:
        """Several assignments are one datagram: systemd sees all, or none."""
        said = notify("READY=1", "STATUS=3 places: all well", environ=self.environ)
        self.assertIs(said, True)
        self.assertEqual(
            self.systemd.received(), [b"READY=1\nSTATUS=3 places: all well"]
        )

    def test_text(self) -> None:
        """A value is UTF-8, also where it has what UTF-8 cannot say."""
        self.assertIs(notify("STATUS=b\xfccher \udcff", environ=self.environ), True)
        self.assertEqual(self.systemd.received(), [b"STATUS=b\xc3\xbccher \\udcff"])

    def test_no_folder(self) -> None:
        """A name that begins with `@` is no path."""
        # Of an empty address, Linux makes a free name of that kind.
        systemd = Notified(self, b"")
        assert isinstance(systemd.address, bytes)
        name = systemd.address.decode().replace("\0", "@")
        self.assertIs(notify("READY=1", environ={"NOTIFY_SOCKET": name}), True)
        self.assertEqual(systemd.received(), [b"READY=1"])

    def test_any_path(self) -> None:
        """A path that is no text is one too."""
        path = os.fsencode(self.path) + b"\xff"
        systemd = Notified(self, path)
        environ = {"NOTIFY_SOCKET": os.fsdecode(path)}
        self.assertIs(notify("READY=1", environ=environ), True)
        self.assertEqual(systemd.received(), [b"READY=1"])

    def test_process_environment(self) -> None:
        """Nobody has to hand over the environment that systemd made."""
        code = "import sockproto.systemd as s; print(s.notify('STOPPING=1'))"
        run = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | self.environ,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        self.assertEqual(run.stdout, "True\n")
        self.assertEqual(self.systemd.received(), [b"STOPPING=1"])

    def test_refused(self) -> None:
        """What systemd would take for something else is not sent."""
        for assignments in (
            (),
            ("",),
            ("READY",),
            ("=1",),
            ("STATUS=well\nREADY=1",),
            ("STATUS=well\n",),
            ("STATUS=\0",),
            ("READY=1", "STATUS=\n"),
        ):
            with self.assertRaises(SettingError):
                notify(*assignments, environ=self.environ)
            with self.assertRaises(SettingError):  # a mistake shows everywhere
                notify(*assignments, environ={})
        self.assertEqual(self.systemd.received(), [])


class UnheardTests(SynchronousTestCase):
    """Nobody listens."""

    def setUp(self) -> None:
        self.log = LogLines(self)
        self.folder = directory(self)

    def assert_one_line(self, address: str, problem: str) -> None:
        self.log.events.clear()
        self.assertIs(notify("READY=1", environ={"NOTIFY_SOCKET": address}), False)
        (event,) = self.log.events
        self.assertEqual(event["log_level"], LogLevel.warn)
        (line,) = self.log.lines
        self.assertIn("b'READY=1'", line)
        self.assertIn(problem, line)
        self.assertTrue(line.isprintable(), line)

    def test_not_wanted(self) -> None:
        """Where nobody asks to be told, nothing happens, in silence."""
        for environ in (
            {},
            {"NOTIFY_SOCKET": ""},
            {"NOTIFY_SOCKET": "run/notify"},
            {"NOTIFY_SOCKET": "vsock:2:1234"},
        ):
            self.assertIs(notify("READY=1", environ=environ), False)
        self.assertEqual(self.log.lines, [])

    def test_gone(self) -> None:
        """A socket that is not there, or no longer, is one line in the log."""
        missing = str(self.folder / "missing")
        self.assert_one_line(missing, "No such file")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left_behind:
            left_behind.bind(missing)
        self.assert_one_line(missing, "refused")
        self.assert_one_line("@" + "sockproto" * 5 + str(os.getpid()), "refused")

    def test_no_address(self) -> None:
        """What cannot be an address is one too."""
        self.assert_one_line("/" + "a" * 200, "too long")
        self.assert_one_line("@", "")
        self.assert_one_line("/\0\ud800", "")
        self.assert_one_line(str(self.folder), "refused")
        with socket.socket(socket.AF_UNIX) as stream:
            path = str(self.folder / "stream")
            stream.bind(path)
            self.assert_one_line(path, "wrong type")

    def test_does_not_wait(self) -> None:
        """A systemd that does not read what it is told holds up nobody."""
        path = str(self.folder / "full")
        systemd = Notified(self, os.fsencode(path))
        environ = {"NOTIFY_SOCKET": path}
        sent = 0
        while notify("STATUS=" + "a" * 60_000, environ=environ):
            sent += 1
        self.assertEqual(len(systemd.received()), sent)
        (line,) = self.log.lines
        self.assertLess(len(line), 1000)

    def test_no_descriptor_left(self) -> None:
        """However it ends, no descriptor stays open."""
        path = str(self.folder / "notify")
        Notified(self, os.fsencode(path))
        before = self.descriptors()
        for address in (path, str(self.folder / "missing")):
            notify("READY=1", environ={"NOTIFY_SOCKET": address})
        self.assertEqual(self.descriptors(), before)

    def descriptors(self) -> set[str]:
        return {each.name for each in Path("/proc/self/fd").iterdir()}
