"""
The public names are where they are said to be, and cost nothing until used.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import sockproto

# What SPEC.md says people embed.
PROMISED = {
    "DatagramHelloClient",
    "EchoClient",
    "EchoFactory",
    "EchoProtocol",
    "HelloClient",
    "HelloDatagramProtocol",
    "HelloFactory",
    "HelloProtocol",
    "Response",
    "Settings",
    "fetch",
    "make_service",
}


def typed_homes() -> dict[str, str]:
    """The names under `if TYPE_CHECKING:`, and the modules they come from."""
    tree = ast.parse(Path(sockproto.__file__).read_text("utf-8"))
    return {
        alias.asname or alias.name: statement.module or ""
        for block in tree.body
        if isinstance(block, ast.If)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }


def loaded_after(code: str) -> set[str]:
    """Run code in a new Python; return the modules it has loaded."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    return set(done.stdout.split())


class ExportsTests(SynchronousTestCase):
    def test_lists_agree(self) -> None:
        """The names for users, for tools and for the import are the same."""
        homes = {name: f"sockproto.{home}" for name, home in sockproto._HOMES.items()}
        self.assertEqual(typed_homes(), homes)
        self.assertEqual({*homes, "__version__"}, set(sockproto.__all__))
        self.assertEqual(len(sockproto.__all__), len(set(sockproto.__all__)))

    def test_promised(self) -> None:
        """What the contract says people embed is there."""
        self.assertEqual(PROMISED - set(sockproto.__all__), set())

    def test_homes(self) -> None:
        """Each name is what its home module has under it, in public."""
        for name, home in sockproto._HOMES.items():
            module = importlib.import_module(f"sockproto.{home}")
            self.assertIn(name, module.__all__)
            self.assertIs(sockproto.__getattr__(name), getattr(module, name))
            self.assertIs(getattr(sockproto, name), getattr(module, name))

    def test_modules_keep_their_lists(self) -> None:
        """Each name in the `__all__` of a module of ours is in that module."""
        for found in pkgutil.walk_packages(sockproto.__path__, "sockproto."):
            if found.name.endswith("__main__"):
                continue
            module = importlib.import_module(found.name)
            for name in getattr(module, "__all__", ()):
                self.assertTrue(hasattr(module, name), f"{found.name}.{name}")

    def test_dir(self) -> None:
        """Completion shows every public name, used or not."""
        self.assertEqual(set(sockproto.__all__) - set(dir(sockproto)), set())

    def test_unknown(self) -> None:
        """A name that is not there is missed as in any module."""
        with self.assertRaises(AttributeError) as caught:
            sockproto.__getattr__("Hello")
        self.assertEqual(
            str(caught.exception), "module 'sockproto' has no attribute 'Hello'"
        )
        self.assertFalse(hasattr(sockproto, "__wrapped__"))

    def test_typed(self) -> None:
        """The types are shipped."""
        self.assertTrue((Path(sockproto.__file__).parent / "py.typed").exists())


class FreshImportTests(SynchronousTestCase):
    def test_package(self) -> None:
        """Importing the package imports neither Twisted nor what the commands use."""
        loaded = loaded_after("import sockproto; dir(sockproto)")
        self.assertIn("sockproto", loaded)
        self.assertEqual(
            loaded & {"twisted", "zope", "zope.interface", "click", "OpenSSL"},
            set(),
        )

    def test_wire(self) -> None:
        """The errors, and the machines that know no Twisted, are used without it."""
        loaded = loaded_after(
            "from sockproto import Framing, SockprotoError\n"
            "import sockproto.wire.datagram, sockproto.wire.hello, sockproto.spelling"
        )
        self.assertIn("sockproto.wire.hello", loaded)
        self.assertEqual(loaded & {"twisted", "zope.interface", "click"}, set())

    def test_no_more_than_is_used(self) -> None:
        """A server of hello imports neither HTTP nor the command line."""
        loaded = loaded_after("from sockproto import HelloFactory")
        self.assertIn("sockproto.hello", loaded)
        self.assertEqual(
            loaded & {"sockproto.fetching", "sockproto.cli", "click"}, set()
        )

    def test_no_reactor(self) -> None:
        """Nothing that is imported installs a reactor: who runs it chooses one."""
        loaded = loaded_after(
            "from sockproto import *\nimport sockproto.options, sockproto.tap"
        )
        self.assertIn("sockproto.service", loaded)
        self.assertNotIn("twisted.internet.reactor", loaded)
        self.assertNotIn("click", loaded)
