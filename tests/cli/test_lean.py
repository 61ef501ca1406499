"""
What is imported for a plain fetch, in processes of its own.
"""

from __future__ import annotations

import subprocess
import sys
import unittest

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
