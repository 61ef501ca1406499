"""
What is imported for a plain fetch, in processes of its own.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase

from sockproto.cli import lean

START = "from sockproto.cli.lean import import_reactor_without_tls as lean\n"


def run(code: str) -> None:
    """Run this in a Python that has imported nothing yet."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{START}{code}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


class LeanTests(unittest.TestCase):
    """A reactor comes without what a plain connection does not need."""

    def test_left_out(self) -> None:
        """Neither OpenSSL nor cookies are imported, and no trace of that is left."""
        run(
            "lean()\n"
            "assert 'twisted.internet.reactor' in sys.modules\n"
            "assert not [n for n in sys.modules if n.startswith('OpenSSL')]\n"
            "assert 'urllib.request' not in sys.modules\n"
            "assert None not in sys.modules.values()\n"
        )

    def test_had_later(self) -> None:
        """What was left out can be had when it is needed."""
        run(
            "lean()\n"
            "import http.cookiejar, OpenSSL.SSL, sockproto.tls\n"
            "assert http.cookiejar.CookieJar().__class__.__name__ == 'CookieJar'\n"
            "from twisted.python.compat import cookielib\n"
            "assert cookielib.CookieJar is http.cookiejar.CookieJar\n"
            "sockproto.tls.ProvenPeer('localhost')\n"
        )

    def test_too_late(self) -> None:
        """Where Twisted is imported already, it stays as it is."""
        run(
            "import twisted.internet.ssl\n"
            "before = dict(sys.modules)\n"
            "lean()\n"
            "assert sys.modules == before\n"
            "assert 'twisted.internet.reactor' not in sys.modules\n"
        )

    def test_command(self) -> None:
        """`fetch` of http is lean, and of https, among others, it is not."""
        for urls, expected in (
            (["http://h/"], False),
            (["h", "HTTP://h/"], False),
            (["https://h/"], True),
            (["h", "HTTPS://h/"], True),
        ):
            # It ends at a file that is missing, before it connects.
            run(
                "from sockproto.cli import main\n"
                f"sys.argv = ['sockproto', 'fetch', '--raw-request=', *{urls!r}]\n"
                "try: main()\n"
                "except SystemExit as done: assert done.code == 26, done.code\n"
                "assert 'twisted.internet.reactor' in sys.modules\n"
                f"assert ('OpenSSL' in sys.modules) is {expected}\n"
            )


class StandInTests(SynchronousTestCase):
    """The same with modules of the test's own, where nothing is left out for good."""

    def setUp(self) -> None:
        temporary = TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        self.patch(sys, "path", [*sys.path, temporary.name])
        for name in ("OpenSSL", "twisted.internet"):
            self.forget(name)
        self.patch(lean, "_REACTOR", ("leaning_reactor",))
        self.addCleanup(sys.modules.pop, "leaning_reactor", None)

    def forget(self, name: str) -> None:
        """Have a module look as if nobody had imported it."""
        if name in sys.modules:
            self.addCleanup(sys.modules.__setitem__, name, sys.modules.pop(name))
        else:
            self.addCleanup(sys.modules.pop, name, None)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        importlib.invalidate_caches()

    def test_without_tls(self) -> None:
        """The reactor finds no OpenSSL; afterwards it may be had."""
        self.write(
            "leaning_reactor.py",
            "try: import OpenSSL\nexcept ImportError: found = False\n"
            "else: found = True\n",
        )
        lean.import_reactor_without_tls()
        self.assertFalse(sys.modules["leaning_reactor"].found)
        self.assertNotIn("OpenSSL", sys.modules)

    def test_reactor_fails(self) -> None:
        """A reactor that cannot be imported takes OpenSSL from nobody."""
        self.write("leaning_reactor.py", "raise RuntimeError('no')")
        self.assertRaises(RuntimeError, lean.import_reactor_without_tls)
        self.assertNotIn("OpenSSL", sys.modules)

    def test_too_late(self) -> None:
        """Whoever has either already keeps it."""
        for name in ("OpenSSL", "twisted.internet"):
            sys.modules[name] = ModuleType(name)
            lean.import_reactor_without_tls()
            self.assertNotIn("leaning_reactor", sys.modules)
            del sys.modules[name]

    def test_when_used(self) -> None:
        """A module runs when something of it is used, and once."""
        package = self.folder / "leaning"
        package.mkdir()
        self.write("leaning/__init__.py", "ran = []")
        self.write("leaning/lazy.py", "import leaning\nleaning.ran.append(1)\nx = 5")
        for name in ("leaning", "leaning.lazy"):
            self.addCleanup(sys.modules.pop, name, None)
        lean._import_when_used("leaning.lazy")
        leaning = importlib.import_module("leaning")
        self.assertEqual(leaning.ran, [])
        self.assertEqual(leaning.lazy.x, 5)
        lean._import_when_used("leaning.lazy")
        self.assertEqual(leaning.lazy.x, 5)
        self.assertEqual(leaning.ran, [1])
        self.assertIs(importlib.import_module("leaning.lazy"), leaning.lazy)

    def test_no_such_module(self) -> None:
        """What there is not is not missed."""
        lean._import_when_used("leaning_nowhere")
        self.assertNotIn("leaning_nowhere", sys.modules)
