"""
Places and addresses are understood, or refused in words that help.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import trustme
from hypothesis import assume, example, given, strategies as st
from twisted.internet._resolver import HostResolution
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    _parse,
)
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from sockproto.connecting import Host, Observer
from sockproto.errors import AddressMalformed, NameNotResolved, PlaceError
from sockproto.places import (
    UdpPlace,
    client_endpoint,
    host_port,
    listening_problem,
    split_description,
    stream_place,
    udp_place,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

DESCRIPTIONS = st.one_of(
    st.text("ab:=\\", max_size=12),
    st.text(st.characters(exclude_characters="[]"), max_size=12),
)

# What Python says of itself, and users of a service cannot make sense of.
JARGON = re.compile(
    r"literal|unpack|out of range|could not convert|\bint\b|\bfloat\b|Error\b|\(\)|<"
)


def split_by_twisted(
    description: str,
) -> tuple[list[str], dict[str, str]] | None:
    """What Twisted's own parser makes of a description; None if it refuses it."""
    try:
        return _parse(description)  # type: ignore[no-any-return]
    except RuntimeError:
        return None  # a StopIteration in its generator: a backslash at the end
    except UnicodeEncodeError:
        assume(False)  # its names are ASCII alone
        raise


class SplitDescriptionTests(SynchronousTestCase):
    @given(description=DESCRIPTIONS)
    @example(description="tcp:1:a=b=c:d")
    @example(description="a\\:b:c\\=d=e\\\\:")
    @example(description="\\")
    @example(description="")
    def test_as_twisted(self, description: str) -> None:
        """A description without brackets means what it means to Twisted."""
        try:
            ours: tuple[list[str], dict[str, str]] | None = split_description(
                description
            )
        except ValueError:
            ours = None
        self.assertEqual(ours, split_by_twisted(description))

    @given(address=st.ip_addresses(v=6).map(str))
    def test_brackets(self, address: str) -> None:
        """An IPv6 address in brackets needs no quoting."""
        quoted = address.replace(":", "\\:")
        expected = (["tcp", "1"], {"interface": address, "backlog": "5"})
        for spelled in (f"[{address}]", quoted):
            self.assertEqual(
                split_description(f"tcp:1:interface={spelled}:backlog=5"), expected
            )

    def test_backslash_at_the_end(self) -> None:
        """A backslash at the end is refused in words."""
        with self.assertRaises(ValueError) as caught:
            split_description("tcp:1\\")
        self.assertEqual(str(caught.exception), "it ends in a backslash")


class FilesTestCase(SynchronousTestCase):
    """
    Has a folder of its own, with a certificate in it.
    """

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.authority = trustme.CA()
        issued = self.authority.issue_cert("localhost")
        self.pem = self.folder / "localhost.pem"
        issued.private_key_and_cert_chain_pem.write_to_path(str(self.pem))
        self.key = self.folder / "key"
        issued.private_key_pem.write_to_path(str(self.key))
        self.certificate = self.folder / "certificate"
        issued.cert_chain_pems[0].write_to_path(str(self.certificate))
        self.reactor = MemoryReactorClock()


class StreamPlaceTests(FilesTestCase):
    def place(self, description: str) -> IStreamServerEndpoint:
        place = stream_place(self.reactor, "hello", description, backlog=77)
        endpoint = place.endpoint
        self.assertTrue(verifyObject(IStreamServerEndpoint, endpoint))
        return endpoint

    def listens(self, description: str) -> None:
        self.successResultOf(self.place(description).listen(Factory()))

    def refused(self, description: str) -> str:
        """Check that a place is refused, plainly; return what is wrong with it."""
        with self.assertRaises(PlaceError) as caught:
            self.place(description)
        error: PlaceError = caught.exception
        self.assertEqual((error.service, error.place), ("hello", description))
        self.assertTrue(error.problem)
        self.assertNotIn("\n", str(error))
        self.assertNotRegex(error.problem, JARGON)
        return error.problem

    def test_tcp(self) -> None:
        """TCP places say port, interface and backlog, or leave them to us."""
        for description, port, interface, backlog in (
            ("tcp:9999", 9999, "", 77),
            ("tcp:port=9999", 9999, "", 77),
            ("tcp:0:interface=127.0.0.1", 0, "127.0.0.1", 77),
            ("tcp:65535:127.0.0.1", 65535, "127.0.0.1", 77),
            ("tcp:1:backlog=5", 1, "", 5),
            ("tcp:1::5", 1, "", 5),
            ("tcp:interface=127.0.0.1:1", 1, "127.0.0.1", 77),
            ("tcp:1:interface=[::1]", 1, "::1", 77),
            ("tcp:1:interface=\\:\\:1", 1, "::1", 77),
            ("tcp:1:interface=[::1]:backlog=5", 1, "::1", 5),
            ("tcp6:1", 1, "::", 77),
            ("tcp6:1:5", 1, "::", 5),
            ("tcp6:1:backlog=5", 1, "::", 5),
            ("tcp6:port=1:interface=[::1]", 1, "::1", 77),
            ("haproxy:tcp:1", 1, "", 77),
            ("haproxy:tcp:1:interface=[::1]:backlog=5", 1, "::1", 5),
        ):
            self.reactor.tcpServers.clear()
            self.listens(description)
            [(at, _, length, on)] = self.reactor.tcpServers
            self.assertEqual((at, on, length), (port, interface, backlog), description)

    def test_unix(self) -> None:
        """A unix socket has a path, and our backlog unless it says its own."""
        self.listens("unix:/tmp/a\\:b")
        self.listens("unix:/tmp/a:mode=600:backlog=5")
        self.listens("haproxy:unix:/tmp/a")
        self.listens("unix:/tmp/a:600")
        self.listens("unix:/tmp/a:600:5:0")
        self.assertEqual(
            [
                (path, mode, backlog)
                for path, _, backlog, mode, _ in self.reactor.unixServers
            ],
            [
                ("/tmp/a:b", 0o666, 77),
                ("/tmp/a", 0o600, 5),
                ("/tmp/a", 0o666, 77),
                ("/tmp/a", 0o600, 77),
                ("/tmp/a", 0o600, 5),
            ],
        )

    def test_ssl(self) -> None:
        """An ssl place reads its key and certificate from files."""
        self.listens(f"ssl:1:privateKey={self.pem}")
        self.listens(
            f"ssl:port=1:privateKey={self.key}:certKey={self.certificate}"
            ":interface=[::1]:backlog=5"
        )
        self.assertEqual(
            [
                (port, interface, backlog)
                for port, _, _, backlog, interface in self.reactor.sslServers
            ],
            [(1, "", 77), (1, "::1", 5)],
        )

    def test_tls(self) -> None:
        """A tls place has a folder of PEM files, one for each name."""
        # Twisted's own, of how it reads certificates.
        self.addCleanup(self.flushWarnings)
        self.listens(f"tls:{self.folder}:1")
        self.listens(f"tls:{self.folder}:port=1:interface=127.0.0.1:backlog=5")
        self.listens(f"tls:{self.folder}")
        self.listens(f"tls:path={self.folder}:port=1")
        self.assertEqual(
            [
                (port, interface, backlog)
                for port, _, backlog, interface in self.reactor.tcpServers
            ],
            [(1, "::", 77), (1, "127.0.0.1", 5), (443, "::", 77), (1, "::", 77)],
        )

    def test_bad_port(self) -> None:
        """A port is a number from 0 to 65535, in figures and nothing else."""
        for kind in ("tcp", "tcp6", "haproxy:tcp", "ssl", f"tls:{self.folder}"):
            for port in ("abc", "", "-1", " 1", "1_0", "\uff11", "0x1"):
                for spelled in (port, f"port={port}"):
                    self.assertEqual(
                        self.refused(f"{kind}:{spelled}"),
                        f"{port!r} is no port number",
                    )
            for port in ("65536", "99999", "000001", "9" * 5000):
                self.assertEqual(
                    self.refused(f"{kind}:{port}"), f"port {port} is above 65535"
                )

    def test_unknown_kind(self) -> None:
        """A kind that does not exist is named, beside those that do."""
        known = "tcp, tcp6, unix, ssl, tls, systemd and haproxy are"
        for description, kind in {
            "foo:1": "foo",
            "99999": "99999",
            "127.0.0.1:9999": "127.0.0.1",
            "TCP:1": "TCP",
            "udp:9999": "udp",
            "": "",
        }.items():
            self.assertEqual(
                self.refused(description), f"{kind!r} is no kind of place; {known}"
            )

    def test_unknown_kind_behind_haproxy(self) -> None:
        """The kind that is missing is the one behind `haproxy:`."""
        self.assertIn("'foo' is no kind of place", self.refused("haproxy:foo:1"))

    def test_haproxy_alone(self) -> None:
        """`haproxy:` needs a place to stand before."""
        self.refused("haproxy")
        self.refused("haproxy:")

    def test_no_kind_at_all(self) -> None:
        """A description of named values alone has no kind, and is refused plainly."""
        for description in ("tcp=1", "=", "haproxy=tcp:1", "port=9999:tcp=1"):
            self.refused(description)

    def test_values_that_are_no_numbers(self) -> None:
        """A backlog or a mode that is no number is refused plainly."""
        for description in (
            "tcp:1:backlog=many",
            "tcp6:1:backlog=",
            "unix:/tmp/a:mode=rw",
            "unix:/tmp/a:lockfile=yes",
        ):
            self.refused(description)

    def test_ipv6_without_brackets(self) -> None:
        """Who forgets the brackets is told how an IPv6 interface is written."""
        for description in (
            "tcp:1:interface=::1",
            "tcp6:1:interface=::1",
            "tcp:1:::1",
            "tcp6:1:::1",
        ):
            self.assertIn("interface=[::1]", self.refused(description))

    def test_too_few_and_too_many(self) -> None:
        """A value that is missing, doubled or unknown is named."""
        self.assertIn("'port'", self.refused("tcp"))
        self.assertIn("'port'", self.refused("tcp:port=1:2"))
        self.assertIn("'colour'", self.refused("tcp:1:colour=blue"))
        self.assertIn("'address'", self.refused("unix"))
        self.assertIn("'path'", self.refused("tls:port=1"))
        self.refused("tcp:1:2:3:4:5")

    def test_missing_key(self) -> None:
        """A key or certificate that is not there is named."""
        missing = self.folder / "missing.pem"
        for description in (
            f"ssl:1:privateKey={missing}",
            f"ssl:1:privateKey={self.pem}:certKey={missing}",
            f"haproxy:ssl:1:privateKey={missing}",
        ):
            self.assertEqual(
                self.refused(description), f"{missing}: no such file or directory"
            )

    def test_key_that_is_none(self) -> None:
        """A file that holds no key is refused before anything starts."""
        nothing = self.folder / "nothing"
        nothing.write_text("nothing\n")
        self.refused(f"ssl:1:privateKey={nothing}")

    def test_missing_folder(self) -> None:
        """A tls place without a single certificate is refused, and its folder named."""
        missing = self.folder / "missing"
        self.assertIn(str(missing), self.refused(f"tls:{missing}:1"))
        empty = self.folder / "empty"
        empty.mkdir()
        self.assertIn(str(empty), self.refused(f"tls:{empty}:1"))

    def test_systemd(self) -> None:
        """A socket that systemd has not passed is said to be missing."""
        self.assertEqual(
            self.refused("systemd:domain=INET:index=99"),
            "systemd has passed no such socket",
        )
        self.assertEqual(
            self.refused("systemd:domain=INET:name=web"),
            "systemd has passed no socket named 'web'",
        )
        self.refused("systemd:domain=INET")

    def test_stdio(self) -> None:
        """Standard input and output are no place, also behind `haproxy:`."""
        for description in ("stdio:", "stdio", "haproxy:stdio:"):
            self.assertIn("no place to listen on", self.refused(description))

    def test_backslash_at_the_end(self) -> None:
        """A backslash at the end is said to be there."""
        self.assertEqual(self.refused("tcp:1\\"), "it ends in a backslash")

    @given(
        kind=st.sampled_from(["", "tcp", "tcp6", "unix", "haproxy", "systemd", "udp"]),
        rest=DESCRIPTIONS,
    )
    @example(kind="", rest="=")
    def test_any_text(self, kind: str, rest: str) -> None:
        """Whatever is given is a place, or a PlaceError in one line."""
        description = f"{kind}:{rest}" if kind else rest
        try:
            stream_place(MemoryReactorClock(), "echo", description, backlog=5)
        except PlaceError as error:
            self.assertTrue(error.problem)
            self.assertNotIn("\n", str(error))


class ListeningProblemTests(SynchronousTestCase):
    def test_what_to_do(self) -> None:
        """What the system says comes with what can be done about it."""
        for number, words in (
            (errno.EADDRINUSE, "in use; stop what listens there, or choose another"),
            (errno.EACCES, "a port below 1024 needs root or CAP_NET_BIND_SERVICE"),
            (errno.EPERM, "a port below 1024 needs root or CAP_NET_BIND_SERVICE"),
            (errno.EADDRNOTAVAIL, "no interface of this machine has that address"),
            (errno.EMFILE, "too many open files; raise the limit"),
            (errno.ENODEV, os.strerror(errno.ENODEV).lower()),
        ):
            problem = OSError(number, os.strerror(number))
            self.assertIn(words, listening_problem(problem))
            self.assertIn(
                words, listening_problem(CannotListenError("::1", 1, problem))
            )

    def test_path(self) -> None:
        """Of a unix socket it is the folder that does not permit it."""
        for number in (errno.EACCES, errno.EPERM):
            problem = OSError(number, os.strerror(number))
            for error in (
                CannotListenError(None, b"/run/a.sock", problem),
                CannotListenError(None, "/run/a.sock", problem),
                PermissionError(number, "", "1", None, "/run/a.sock.lock"),
            ):
                said = listening_problem(error)
                self.assertIn("the socket's folder", said)
                self.assertNotIn("1024", said)

    def test_other_errors(self) -> None:
        """What has no number is said in its own words, in one line."""
        self.assertEqual(listening_problem(OSError("no\nluck.")), "no luck")
        self.assertEqual(listening_problem(ValueError("bad key")), "bad key")
        self.assertEqual(listening_problem(ValueError()), "ValueError")


class UdpPlaceTests(SynchronousTestCase):
    def refused(self, description: str) -> str:
        """Check that a place is refused, plainly; return what is wrong with it."""
        with self.assertRaises(PlaceError) as caught:
            udp_place("udp", description)
        error: PlaceError = caught.exception
        self.assertEqual((error.service, error.place), ("udp", description))
        self.assertIn("(udp:PORT[:interface=ADDRESS])", error.problem)
        self.assertNotRegex(
            error.problem.removesuffix("(udp:PORT[:interface=ADDRESS])"), JARGON
        )
        return error.problem

    def test_places(self) -> None:
        """A UDP place has a port, and an interface where it is not every one."""
        for description, place in {
            "udp:9999": UdpPlace(9999),
            "udp:port=9999": UdpPlace(9999),
            "udp:0:interface=127.0.0.1": UdpPlace(0, "127.0.0.1"),
            "udp:interface=127.0.0.1:65535": UdpPlace(65535, "127.0.0.1"),
            "udp:1:interface=[::1]": UdpPlace(1, "::1"),
            "udp:1:interface=\\:\\:1": UdpPlace(1, "::1"),
        }.items():
            self.assertEqual(udp_place("udp", description), place)

    def test_refusals(self) -> None:
        """What is wrong with a UDP place is said, and how it is written."""
        for description, words in {
            "tcp:9999": "'tcp' is no kind of UDP place; udp is",
            "9999": "'9999' is no kind of UDP place",
            "": "'' is no kind of UDP place",
            "udp": "'' is no port number",
            "udp:abc": "'abc' is no port number",
            "udp:99999": "port 99999 is above 65535",
            "udp:port=-1": "'-1' is no port number",
            "udp:1:port=1": "too many values",
            "udp:1:interface=::1": "an IPv6 interface is written interface=[::1]",
            "udp:1:127.0.0.1": "too many values",
            "udp:1:interface=localhost": "'localhost' is no IP address",
            "udp:1:interface=127.1": "'127.1' is no IP address",
            "udp:1:backlog=5": "it has no 'backlog'; interface is all",
            "udp:1\\": "it ends in a backslash",
        }.items():
            self.assertIn(words, self.refused(description))

    def test_no_kind_at_all(self) -> None:
        """A description of named values alone is refused as any other."""
        for description in ("udp=9999", "="):
            self.refused(description)

    @given(description=st.one_of(DESCRIPTIONS, DESCRIPTIONS.map("udp:".__add__)))
    @example(description="=")
    def test_any_text(self, description: str) -> None:
        """Whatever is given is a place, or a PlaceError."""
        try:
            place = udp_place("udp", description)
        except PlaceError:
            return
        self.assertLessEqual(place.port, 65535)


class HostPortTests(SynchronousTestCase):
    @given(
        host=st.one_of(
            st.ip_addresses(v=4).map(str),
            st.text("abc-.xyz_0", min_size=1),
        ),
        port=st.integers(1, 65535),
    )
    def test_names_and_ipv4(self, host: str, port: int) -> None:
        """A host and a port are told apart by the colon."""
        self.assertEqual(host_port(f"{host}:{port}"), (host, port))

    @given(address=st.ip_addresses(v=6).map(str), port=st.integers(1, 65535))
    def test_ipv6(self, address: str, port: int) -> None:
        """An IPv6 address is written in brackets."""
        self.assertEqual(host_port(f"[{address}]:{port}"), (address, port))

    def test_neither(self) -> None:
        """A description, a path or half an address is no host and port."""
        for address in (
            "tcp:localhost:1",
            "unix:/tmp/a",
            "/tmp/a:1",
            "localhost",
            "localhost:",
            "localhost:abc",
            ":1",
            "::1:1",
            "[::1]",
            "[]:1",
            "a=b:1",
            "",
        ):
            self.assertIsNone(host_port(address), address)

    def test_refusals(self) -> None:
        """A port that cannot be, and what is in brackets for nothing, is refused."""
        for address, problem in {
            "h:0": "port 0 cannot be connected to",
            "h:65536": "port 65536 is above 65535",
            "h:\uff11": "'\uff11' is no port number",
            "[nope]:1": "'nope' is no IPv6 address",
            "[127.0.0.1]:1": "'127.0.0.1' is no IPv6 address",
            "[::1%\udcff]:1": r"'::1%\udcff' is no IPv6 address",
        }.items():
            with self.assertRaises(AddressMalformed) as caught:
                host_port(address)
            self.assertEqual(caught.exception.address, address)
            self.assertEqual(caught.exception.problem, problem)


@implementer(IHostnameResolver)
class _Resolver:
    """
    Knows that an address is itself, as the reactor's own does, and nothing else.
    """

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        resolution = HostResolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        kind = IPv6Address if ":" in hostName else IPv4Address
        if addressTypes is None or kind in addressTypes:
            resolutionReceiver.addressResolved(kind("TCP", hostName, portNumber))
        resolutionReceiver.resolutionComplete()
        return resolution


class _Addresses(Observer):
    """
    Remembers what it was told.
    """

    def __init__(self) -> None:
        self.resolutions: list[tuple[str, list[str]]] = []

    def resolved(self, host: str, addresses: Sequence[str]) -> None:
        self.resolutions.append((host, list(addresses)))


class _Server(Factory):
    """
    Builds protocols that do nothing.
    """

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return Protocol()


class ClientEndpointTests(FilesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.reactor.installNameResolver(_Resolver())

    def endpoint(self, address: str) -> IStreamClientEndpoint:
        endpoint = client_endpoint(self.reactor, address)
        self.assertTrue(verifyObject(IStreamClientEndpoint, endpoint))
        return endpoint

    def refused(self, address: str) -> str:
        """Check that an address is refused, plainly; return what is wrong with it."""
        with self.assertRaises(AddressMalformed) as caught:
            self.endpoint(address)
        error: AddressMalformed = caught.exception
        self.assertEqual(error.address, address)
        self.assertTrue(error.problem)
        self.assertNotIn("\n", str(error))
        self.assertNotRegex(error.problem, JARGON)
        return error.problem

    def goes_to(self, address: str) -> tuple[str, int]:
        """Connect; return where it goes."""
        self.reactor.tcpClients.clear()
        connecting = self.endpoint(address).connect(_Server())
        self.reactor.advance(0)
        [(host, port, *_)] = self.reactor.tcpClients
        connecting.addErrback(lambda failure: None)
        connecting.cancel()
        return host, port

    def test_hosts(self) -> None:
        """Each spelling of a host and a port leads there."""
        for address, host, port in (
            ("localhost:1", "localhost", 1),
            ("[::1]:1", "::1", 1),
            ("tcp:localhost:1", "localhost", 1),
            ("tcp:host=localhost:port=1", "localhost", 1),
            ("tcp:localhost:port=1", "localhost", 1),
            ("tcp:host=localhost:1", "localhost", 1),
            ("tcp:host=[::1]:port=1", "::1", 1),
            ("tcp:\\:\\:1:1", "::1", 1),
        ):
            endpoint = self.endpoint(address)
            assert isinstance(endpoint, Host), address
            self.assertEqual((endpoint.host, endpoint.port), (host, port), address)

    def test_connects(self) -> None:
        """An address is gone to as it is written."""
        self.assertEqual(self.goes_to("127.0.0.1:1"), ("127.0.0.1", 1))
        self.assertEqual(self.goes_to("[::1]:1"), ("::1", 1))
        self.assertEqual(self.goes_to("tls:127.0.0.1:1"), ("127.0.0.1", 1))
        self.assertEqual(self.goes_to("tls:host=[::1]:port=1"), ("::1", 1))

    def test_observer(self) -> None:
        """Who wants to know is told what a host resolved to."""
        for address in ("127.0.0.1:1", "tcp:127.0.0.1:1", "tls:127.0.0.1:1"):
            observer = _Addresses()
            endpoint = client_endpoint(self.reactor, address, observer=observer)
            connecting = endpoint.connect(_Server())
            connecting.addErrback(lambda failure: None)
            connecting.cancel()
            self.assertEqual(observer.resolutions, [("127.0.0.1", ["127.0.0.1"])])

    def test_family(self) -> None:
        """Where a family is asked for, no address of the other is gone to."""
        for address in ("127.0.0.1:1", "tcp:127.0.0.1:1", "tls:127.0.0.1:1"):
            endpoint = client_endpoint(self.reactor, address, family=6)
            failure = self.failureResultOf(endpoint.connect(_Server()))
            self.assertIsInstance(failure.value, NameNotResolved)
        self.assertEqual(self.reactor.tcpClients, [])

    def test_endpoints_of_twisted(self) -> None:
        """Other descriptions are Twisted's."""
        self.assertIsInstance(
            self.endpoint("tcp:localhost:1:timeout=5"), TCP4ClientEndpoint
        )
        self.assertIsInstance(self.endpoint("unix:/tmp/a"), UNIXClientEndpoint)

    def test_tls(self) -> None:
        """TLS takes an authority of one's own, a certificate and a time to connect."""
        roots = self.folder / "roots"
        roots.mkdir()
        self.authority.cert_pem.write_to_path(str(roots / "ca.pem"))
        self.endpoint("tls:localhost:1")
        self.endpoint("tls:host=localhost:port=1:timeout=2.5")
        self.endpoint(f"tls:localhost:1:trustRoots={roots}")
        self.endpoint(f"tls:localhost:1:certificate={self.pem}")
        self.endpoint(
            f"tls:localhost:1:certificate={self.certificate}:privateKey={self.key}"
        )

    def test_tls_refusals(self) -> None:
        """What is wrong with a TLS address is said."""
        missing = self.folder / "missing"
        form = "TLS is tls:HOST:PORT[:trustRoots=DIRECTORY]"
        for address, words in {
            "tls:localhost": form,
            "tls:localhost:1:30": form,
            "tls:localhost:1:colour=blue": form,
            "tls:port=1": form,
            "tls:localhost:abc": "'abc' is no port number",
            "tls:localhost:99999": "port 99999 is above 65535",
            f"tls:localhost:1:trustRoots={missing}": f"{missing}: no such file",
            f"tls:localhost:1:trustRoots={self.key}": "no certificate",
            f"tls:localhost:1:certificate={missing}": f"{missing}: no such file",
        }.items():
            self.assertIn(words, self.refused(address))

    def test_tls_timeout(self) -> None:
        """A time to connect is a number of seconds above 0."""
        for seconds in ("soon", "", "nan", "-1"):
            self.refused(f"tls:localhost:1:timeout={seconds}")

    def test_ssl(self) -> None:
        """`ssl:` proves nobody's name, and is refused with what to write instead."""
        self.assertIn("tls:HOST:PORT", self.refused("ssl:localhost:1"))

    def test_ports(self) -> None:
        """A port that cannot be connected to is refused in every spelling."""
        for prefix in ("", "tcp:", "tls:"):
            for port in ("0", "99999"):
                self.assertIn(
                    f"port {port} ", self.refused(f"{prefix}localhost:{port}")
                )

    def test_no_host(self) -> None:
        """An address without a host is refused."""
        self.refused("tcp::1")
        self.refused("tls::1")
        self.refused("tcp:host=:port=1")

    def test_hosts_that_are_none(self) -> None:
        """A host that is no address is refused, or spelled as it was given."""
        try:
            endpoint = self.endpoint("tcp:host=[::ffff:zz]:port=1")
        except AddressMalformed:
            return
        self.assertIn("zz", str(endpoint))

    def test_what_will_do(self) -> None:
        """What is no address at all is answered with what will do."""
        for address, words in {
            "": "it has no port",
            "localhost": "it has no port",
            "/tmp/a": "it has no port",
            "::1:9999": "an IPv6 address goes in brackets: [::1]:9999",
            "fe80::1:9999": "an IPv6 address goes in brackets: [::1]:9999",
            "foo:localhost:1": "an endpoint description will do",
            "localhost:abc": "an endpoint description will do",
            "tcp:port=1": "an endpoint description will do",
            "tcp:h:1:2:3:4:5": "an endpoint description will do",
            "=:": "an endpoint description will do",
            "tcp:localhost:abc": "'abc' is no port number",
            "tcp:localhost:1\\": "it ends in a backslash",
        }.items():
            self.assertIn(words, self.refused(address))

    @given(
        kind=st.sampled_from(["", "tcp", "unix", "tls", "ssl", "haproxy"]),
        rest=DESCRIPTIONS,
    )
    def test_any_text(self, kind: str, rest: str) -> None:
        """Whatever is given is an address, or refused in one line."""
        try:
            client_endpoint(MemoryReactorClock(), f"{kind}:{rest}" if kind else rest)
        except AddressMalformed as error:
            self.assertTrue(error.problem)
            self.assertNotIn("\n", str(error))


class FileNameTests(SynchronousTestCase):
    """Files that a description names."""

    def test_one_line(self) -> None:
        """However a file is called, what is wrong with it is one line."""
        reactor = MemoryReactorClock()
        place = self.assertRaises(
            PlaceError, stream_place, reactor, "hello", "ssl:1:privateKey=a\nb", 5
        )
        self.assertTrue(str(place).isprintable(), str(place))
        address = self.assertRaises(
            AddressMalformed, client_endpoint, reactor, "tls:h:1:trustRoots=a\nb"
        )
        self.assertTrue(str(address).isprintable(), str(address))
