"""
A proxy's word on who is connected is read exactly as the standard has it.
"""

from __future__ import annotations

import socket
import tracemalloc
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from hypothesis import example, given, strategies as st
from twisted.internet import address
from twisted.trial.unittest import SynchronousTestCase

from sockproto.errors import ProxyHeaderMalformed
from sockproto.wire.proxy import (
    LONGEST_BLOCK,
    LONGEST_LINE,
    Endpoint,
    ProxyHeader,
    ProxyHeaderReader,
    TcpEndpoint,
    UnixEndpoint,
)
from tests.wire.streams import chop_within, one_by_one

if TYPE_CHECKING:
    from collections.abc import Iterable

IP = IPv4Address | IPv6Address

# What was read and what followed it, or what was seen and expected instead; None
# while more is asked for.
Outcome = tuple[ProxyHeader, bytes] | tuple[bytes, str] | None

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
LONGEST_HEADER = 16 + LONGEST_BLOCK
OWN_ADDRESSES = ProxyHeader(None, None)
FIELDS = "two addresses and two ports after single spaces"

V4 = (
    b"PROXY TCP4 192.0.2.1 198.51.100.22 56324 443\r\n",
    ProxyHeader(TcpEndpoint("192.0.2.1", 56324), TcpEndpoint("198.51.100.22", 443)),
)
V6 = (
    b"PROXY TCP6 2001:DB8:0:0::1 ::1 1 0\r\n",
    ProxyHeader(TcpEndpoint("2001:db8::1", 1), TcpEndpoint("::1", 0)),
)


def binary(command: int, kind: int, block: bytes, length: int | None = None) -> bytes:
    """A header of version 2; its length is right unless it is given."""
    size = len(block) if length is None else length
    return SIGNATURE + bytes([command, kind]) + size.to_bytes(2, "big") + block


def text_of(source: IP, destination: IP, ports: tuple[int, int]) -> bytes:
    """A header of version 1."""
    line = f"PROXY TCP{source.version} {source} {destination} {ports[0]} {ports[1]}\r\n"
    return line.encode("ascii")


def block_of(source: IP, destination: IP, ports: tuple[int, int]) -> bytes:
    """The addresses of version 2."""
    packed = b"".join(port.to_bytes(2, "big") for port in ports)
    return source.packed + destination.packed + packed


BLOCK4 = block_of(IPv4Address("192.0.2.1"), IPv4Address("198.51.100.22"), (56324, 443))
BLOCK6 = block_of(IPv6Address("2001:db8::1"), IPv6Address("::1"), (1, 0))
BLOCK_UNIX = b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")

VALID = [
    V4[0],
    V6[0],
    b"PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n",
    b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c633:6416 65535 65535\r\n",
    b"PROXY UNKNOWN\r\n",
    b"PROXY UNKNOWN \r\n",
    b"PROXY UNKNOWN\x20\xff\r\0\n\n ::1\r\r\n",
    b"PROXY UNKNOWN " + b"x" * (LONGEST_LINE - 16) + b"\r\n",
    binary(0x20, 0x00, b""),
    binary(0x20, 0xFF, b"x" * 30),
    binary(0x21, 0x00, b"xyz"),
    binary(0x21, 0x11, BLOCK4),
    binary(0x21, 0x11, BLOCK4 + b"\x04\0\3abc"),
    binary(0x21, 0x21, BLOCK6),
    binary(0x21, 0x31, BLOCK_UNIX + b"\x04\0\0"),
    binary(0x21, 0x21, BLOCK6 + b"x" * (LONGEST_BLOCK - 36)),
]

MUTATED = st.builds(
    lambda header, at, drop, new: header[:at] + new + header[at + drop :],
    st.sampled_from(VALID),
    st.one_of(st.integers(0, 20), st.integers(0, 120)),
    st.integers(0, 3),
    st.one_of(st.binary(max_size=3), st.sampled_from([b"\r", b"\n", b"\r\n", b" "])),
)
PIECES = st.one_of(
    st.sampled_from([b"PROXY", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"1.2.3.4 ", b"::1 "]),
    st.sampled_from([b" ", b"80", b"0", b"\r", b"\n", b"\r\n", b"\0\x0c"]),
    st.sampled_from([SIGNATURE, b"\x20", b"\x21", b"\x11", b"\x12", b"\0"]),
)
STREAMS = st.one_of(
    MUTATED,
    st.builds(bytes.__add__, MUTATED, st.binary(max_size=8)),
    st.lists(PIECES, max_size=16).map(b"".join),
    st.builds(
        bytes.__add__,
        st.sampled_from([SIGNATURE + b"\x21", b"PROXY TCP6 ", b"PROXY UNKNOWN", b""]),
        st.binary(max_size=150),
    ),
)

PORTS = st.tuples(st.integers(0, 65_535), st.integers(0, 65_535))
PAIRS = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)),
    st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6)),
)


def ends(source: bytes, destination: bytes) -> ProxyHeader:
    return ProxyHeader(UnixEndpoint(source), UnixEndpoint(destination))


def twisted_address(end: Endpoint | None) -> object:
    """What a caller does with one end of the connection."""
    if end is None:
        return None
    if isinstance(end, UnixEndpoint):
        return address.UNIXAddress(end.path or None)
    kind = address.IPv6Address if end.is_ipv6 else address.IPv4Address
    return kind("TCP", end.host, end.port)


def read(reads: Iterable[bytes]) -> Outcome:
    """All that happens when a stream arrives in these reads."""
    reader = ProxyHeaderReader()
    reads = iter(reads)
    for data in reads:
        try:
            found = reader.receive_data(data)
        except ProxyHeaderMalformed as error:
            return error.seen, error.expected
        if found is not None:
            header, rest = found
            return header, rest + b"".join(reads)
    return None


class StreamTests(SynchronousTestCase):
    @given(stream=STREAMS, cuts=st.lists(st.integers(1, 150), max_size=8))
    @example(stream=VALID[-1] + b"rest", cuts=[15, 16, 52, 4111])
    @example(stream=b"PROXY TCP6".ljust(110) + b"\r\n", cuts=[106, 107, 108])
    @example(stream=b"PROXY UNKNOWN".ljust(110) + b"\r\n", cuts=[106, 107, 108])
    def test_chopping_changes_nothing(self, stream: bytes, cuts: list[int]) -> None:
        """The same header, rest and refusal come out, however it arrives."""
        whole = read([stream])
        self.assertEqual(read(chop_within(stream, cuts)), whole)
        self.assertEqual(read(one_by_one(stream)), whole)

    def test_incomplete(self) -> None:
        """What can still become a header is never refused."""
        for header in VALID:
            reader = ProxyHeaderReader()
            for byte in one_by_one(header)[:-1]:
                self.assertIsNone(reader.receive_data(byte), header)
            found = reader.receive_data(header[-1:] + b"rest")
            self.assertEqual(found, read([header + b"rest"]))
            assert found is not None
            self.assertEqual(found[1], b"rest")

    def test_nothing(self) -> None:
        """An empty read changes nothing."""
        reader = ProxyHeaderReader()
        self.assertIsNone(reader.receive_data(b""))
        self.assertEqual(reader.receive_data(V4[0]), (V4[1], b""))

    @given(stream=STREAMS)
    def test_bound(self, stream: bytes) -> None:
        """No stream is listened to for longer than a longest header."""
        binary_version = SIGNATURE.startswith(stream[:12])
        most = LONGEST_HEADER if binary_version else LONGEST_LINE
        self.assertIsNotNone(read([stream.ljust(most, b"0")[:most]]))

    @given(stream=st.binary(max_size=40))
    def test_anything(self, stream: bytes) -> None:
        """Any bytes are a header, or the start of one, or refused as malformed."""
        refused = isinstance((read([stream]) or [None])[0], bytes)
        starts = (SIGNATURE, b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN")
        could_be = any(
            start.startswith(stream) or stream.startswith(start) for start in starts
        )
        self.assertTrue(could_be or refused)
        if len(stream) <= 12:
            self.assertNotEqual(could_be, refused)

    def test_refused_for_good(self) -> None:
        """After a refusal nothing makes a header of it, and nothing more is held."""
        reader = ProxyHeaderReader()
        with self.assertRaises(ProxyHeaderMalformed) as first:
            reader.receive_data(b"GET / HTTP/1.1\r\n")
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for _ in range(100):
            with self.assertRaises(ProxyHeaderMalformed) as again:
                reader.receive_data(V4[0] + b"x" * 10_000)
            self.assertEqual(again.exception.args, first.exception.args)
        self.assertLess(tracemalloc.get_traced_memory()[0], 100_000)

    def test_one_header(self) -> None:
        """Who gives the reader more after the header has a bug."""
        reader = ProxyHeaderReader()
        reader.receive_data(V4[0])
        self.assertRaises(AssertionError, reader.receive_data, V4[0])


class StartTests(SynchronousTestCase):
    def test_first_wrong_byte(self) -> None:
        """A stream is refused at the first byte that begins no header."""
        expected = "PROXY with TCP4, TCP6 or UNKNOWN, or the signature of version 2"
        for stream, seen in {
            b"GET / HTTP/1.1\r\n": b"G",
            b"\x16\x03\x01": b"\x16",
            b"proxy TCP4 ": b"p",
            b"PROXX": b"PROXX",
            b"PROXY\tTCP4 ": b"PROXY\t",
            b"PROXY  TCP4": b"PROXY  ",
            b"PROXY UDP4 ": b"PROXY UD",
            b"PROXY TCP5 ": b"PROXY TCP5",
            b"PROXY TCP4\r\n": b"PROXY TCP4\r",
            b"PROXY tcp4 ": b"PROXY t",
            b"PROXY UNIX ": b"PROXY UNI",
            b"PROXY UNKNOWNS\r\n": b"PROXY UNKNOWNS",
            b"PROXY UNKNOWN\n": b"PROXY UNKNOWN\n",
            b"PROXY UNKNOWN\rx": b"PROXY UNKNOWN\rx",
            b"\r\n\r\nQUIT": b"\r\n\r\nQ",
            SIGNATURE[:-1] + b"\r": SIGNATURE[:-1] + b"\r",
        }.items():
            self.assertEqual(read([stream]), (seen, expected))
            self.assertIsNone(read([seen[:-1]]), seen)


class TextTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        """The line says who is connected to whom; what follows is left alone."""
        for line, header in (V4, V6):
            self.assertEqual(read([line]), (header, b""))
            self.assertEqual(read([line + b"\r\nPROXY"]), (header, b"\r\nPROXY"))

    @given(pair=PAIRS, ports=PORTS, rest=st.binary(max_size=20))
    def test_round_trip(
        self, pair: tuple[IP, IP], ports: tuple[int, int], rest: bytes
    ) -> None:
        """Both addresses and both ports are those that the proxy wrote."""
        outcome = read([text_of(*pair, ports) + rest])
        assert outcome is not None
        header, after = outcome
        assert isinstance(header, ProxyHeader)
        self.assertEqual(after, rest)
        for end, ip, port in zip(
            (header.source, header.destination), pair, ports, strict=True
        ):
            assert isinstance(end, TcpEndpoint)
            self.assertEqual(type(ip)(end.host), ip)
            self.assertEqual((end.port, end.is_ipv6), (port, ip.version == 6))

    def test_unknown(self) -> None:
        """UNKNOWN leaves the connection its own addresses, whatever is in its line."""
        for line in (
            b"PROXY UNKNOWN\r\n",
            b"PROXY UNKNOWN \r\n",
            b"PROXY UNKNOWN ::1 ::1 1 1\r\n",
            b"PROXY UNKNOWN \xff\0\n\r \r\r\n",
            b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n",
        ):
            self.assertEqual(read([line + b"\r\n"]), (OWN_ADDRESSES, b"\r\n"))

    def test_too_long(self) -> None:
        """A line of more than 107 bytes is refused as soon as it has them."""
        expected = "a CRLF within 107 bytes"
        for start, end in (
            (b"PROXY UNKNOWN ", b"0\r\n"),
            (b"PROXY UNKNOWN ", b"\n\r\n"),
            (b"PROXY UNKNOWN ", b"\r\r\n"),
            (b"PROXY TCP4 ", b"0\r\n"),
            (b"PROXY TCP6 ", b"0\r\n"),
            (b"PROXY TCP6 ", b"0" * 100 + b"\r\n"),
        ):
            line = start.ljust(105, b"0") + end
            self.assertEqual(read([line]), (line[:107], expected), line)
            self.assertEqual(read([line[:107]]), (line[:107], expected), line)
            self.assertIsNone(read([line[:106]]), line)
        # At 107 bytes, it is a line; only, not a good one.
        line = b"PROXY TCP6".ljust(105) + b"\r\n"
        self.assertEqual(read([line]), (line, FIELDS))

    def test_characters(self) -> None:
        """Only CRLF ends a line, and no other byte than an address's is in it."""
        for line in (
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\r",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r ",
            b"PROXY TCP4 1.2.3.4\t",
            b"PROXY TCP4 \xd9",
            b"PROXY TCP4 1.2.3.4/",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 +",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 -",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1_",
            b"PROXY TCP6 fe80::1%",
            b"PROXY TCP6 [",
            b"PROXY TCP6 g",
        ):
            self.assertEqual(
                read([line + b"\r\n"]),
                (line, "an address, a port, a single space or CRLF"),
            )
            self.assertIsNone(read([line[:-1]]), line)

    def test_fields(self) -> None:
        """There are two addresses and two ports, and a single space before each."""
        for line in (
            b"PROXY TCP4 \r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n",
            b"PROXY TCP4  1.2.3.4 1.2.3.4 1 1\r\n",
            b"PROXY TCP4 1.2.3.4  1.2.3.4 1 1\r\n",
        ):
            self.assertEqual(read([line]), (line, FIELDS))
        # As many spaces as there should be, but not where they should be.
        line = b"PROXY TCP4 1.2.3.4  1.2.3.4 1\r\n"
        self.assertEqual(read([line]), (b"", "an IPv4 address"))

    def test_hosts(self) -> None:
        """What is no address of the family that was announced is refused."""
        for version, good, hosts in (
            (4, "1.2.3.4", "1 1.2.3 1.2.3.4.5 1.2.3.256 1.2.3.0004 01.2.3.4 1.2.3.00"),
            (
                4,
                "1.2.3.4",
                "1..2.3 .1.2.3 1.2.3. . 16909060 a.b.c.d ::1 ::ffff:1.2.3.4",
            ),
            (6, "::1", "1 1.2.3.4 1:2 1:2:3:4:5:6:7 1:2:3:4:5:6:7:8:9 1::2::3 : :::"),
            (6, "::1", "00001:: :1:2:3:4:5:6:7:8 1:2:3:4:5:6:7:8: 1::2:3:4:5:6:7:8"),
            (6, "::1", "::1.2.3.04 ::1.2.3 1.2.3.4:: ::1.2.3.4:5"),
        ):
            for host in hosts.split():
                for pair in (f"{host} {good}", f"{good} {host}"):
                    line = f"PROXY TCP{version} {pair} 1 1\r\n"
                    self.assertEqual(
                        read([line.encode()]),
                        (host.encode(), f"an IPv{version} address"),
                        line,
                    )

    @given(
        host=st.one_of(
            st.text("0123:.fF", max_size=24),
            st.lists(
                st.sampled_from(["::", ":", "0", "00a1", "FfFf", "12345", "1.2.3.4"]),
                max_size=12,
            ).map("".join),
        )
    )
    @example(host="::ffff:1.2.3.4")
    @example(host="1::2:3:4:5:6:7:8")
    @example(host="1:2:3:4:5:6:1.2.3.4")
    def test_same_addresses_as_sockets(self, host: str) -> None:
        """A host is taken if a socket would take it, and is the same address."""
        for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
            try:
                packed = socket.inet_pton(family, host)
            except OSError:
                packed = None
            line = f"PROXY TCP{version} {host} {host} 1 1\r\n".encode("ascii")
            if len(line) > LONGEST_LINE:
                continue
            outcome = read([line])
            assert outcome is not None
            if packed is None:
                self.assertEqual(outcome[1], f"an IPv{version} address")
            else:
                header = outcome[0]
                assert isinstance(header, ProxyHeader)
                assert isinstance(header.source, TcpEndpoint)
                self.assertEqual(socket.inet_pton(family, header.source.host), packed)

    def test_ports(self) -> None:
        """A port is a decimal number up to 65,535, written in one way only."""
        for port in (b"65536", b"99999", b"100000", b"00", b"01", b"080", b"f", b"1.0"):
            for ports in (port + b" 1", b"1 " + port):
                self.assertEqual(
                    read([b"PROXY TCP4 1.2.3.4 1.2.3.4 " + ports + b"\r\n"]),
                    (port, "a port from 0 to 65535, without leading zeros"),
                )


class BinaryTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        """The block says who is connected to whom, and TLVs are skipped."""
        for kind, block, header in (
            (0x11, BLOCK4, V4[1]),
            (0x21, BLOCK6, V6[1]),
            (0x31, BLOCK_UNIX, ends(b"/run/a", b"/run/b")),
        ):
            for more in (b"", b"\x04\0\0", b"\xff" * 30, b"x" * (4096 - len(block))):
                self.assertEqual(
                    read([binary(0x21, kind, block + more) + b"rest"]),
                    (header, b"rest"),
                )

    @given(pair=PAIRS, ports=PORTS, more=st.binary(max_size=9), rest=st.binary())
    @example(
        pair=(IPv6Address("::ffff:192.0.2.1"), IPv6Address("::192.0.2.1")),
        ports=(1, 2),
        more=b"",
        rest=b"",
    )
    def test_round_trip(
        self, pair: tuple[IP, IP], ports: tuple[int, int], more: bytes, rest: bytes
    ) -> None:
        """Both versions say the same of the same addresses, spelled the same."""
        kind = 0x11 if pair[0].version == 4 else 0x21
        outcome = read([binary(0x21, kind, block_of(*pair, ports) + more) + rest])
        self.assertEqual(outcome, read([text_of(*pair, ports) + rest]))
        self.assertNotEqual(outcome, (OWN_ADDRESSES, rest))

    def test_spelling(self) -> None:
        """An IPv4 address on an IPv6 socket is spelled as sockets spell it."""
        mapped = IPv6Address("::ffff:192.0.2.1")
        self.assertEqual(
            read([binary(0x21, 0x21, block_of(mapped, mapped, (1, 1)))]),
            (ProxyHeader(*[TcpEndpoint("::ffff:192.0.2.1", 1)] * 2), b""),
        )

    def test_unix(self) -> None:
        """A path ends at its NUL; an abstract name starts with one."""
        for field, path in {
            b"": b"",
            b"/run/a\0whatever was in memory": b"/run/a",
            b"/" + b"x" * 107: b"/" + b"x" * 107,
            b"\0abstract": b"\0abstract",
            b"\0a\0b": b"\0a\0b",
            b"\xff": b"\xff",
        }.items():
            for header, fields in (
                (ends(path, b"/b"), (field, b"/b")),
                (ends(b"/b", path), (b"/b", field)),
            ):
                block = b"".join(each.ljust(108, b"\0") for each in fields)
                self.assertEqual(read([binary(0x21, 0x31, block)]), (header, b""))

    def test_local(self) -> None:
        """LOCAL leaves the connection its own addresses; all of it is skipped."""
        for kind in range(256):
            for block in (b"", b"x", BLOCK4, b"x" * LONGEST_BLOCK):
                self.assertEqual(
                    read([binary(0x20, kind, block) + b"rest"]),
                    (OWN_ADDRESSES, b"rest"),
                )

    def test_unspec(self) -> None:
        """UNSPEC, as family or as transport, leaves it its own addresses, too."""
        for kind in (0x00, 0x01, 0x10, 0x20, 0x30):
            for block in (b"", b"x", BLOCK4):
                self.assertEqual(
                    read([binary(0x21, kind, block) + b"rest"]),
                    (OWN_ADDRESSES, b"rest"),
                )

    def test_commands(self) -> None:
        """Another version, or another command, is refused at its byte."""
        for command in set(range(256)) - {0x20, 0x21}:
            self.assertEqual(
                read([SIGNATURE + bytes([command])]),
                (bytes([command]), "version 2 with LOCAL (0x20) or PROXY (0x21)"),
            )

    def test_kinds(self) -> None:
        """Datagrams, and what the standard does not know, are refused at their byte."""
        taken = {0x00, 0x01, 0x10, 0x20, 0x30, 0x11, 0x21, 0x31}
        for kind in set(range(256)) - taken:
            self.assertEqual(
                read([SIGNATURE + bytes([0x21, kind])]),
                (bytes([kind]), "UNSPEC, or STREAM over IPv4, IPv6 or UNIX,"),
            )

    def test_lengths(self) -> None:
        """A block too short for its addresses, or above 4,096 bytes, is refused."""
        for command, kind, least in (
            (0x20, 0x11, 0),
            (0x21, 0x00, 0),
            (0x21, 0x11, 12),
            (0x21, 0x21, 36),
            (0x21, 0x31, 216),
        ):
            for length in (*range(least), 4097, 65_535):
                start = binary(command, kind, b"", length)
                self.assertEqual(
                    read([start]), (start[14:], f"a length from {least} to 4096")
                )
            for length in (max(least, 1), 4096):
                self.assertIsNone(read([binary(command, kind, b"", length)]))


class AddressTests(SynchronousTestCase):
    def test_twisted(self) -> None:
        """What the proxy says can be told to a protocol as Twisted's addresses."""

        def told(stream: bytes) -> object:
            outcome = read([stream])
            assert outcome is not None
            assert isinstance(outcome[0], ProxyHeader)
            return twisted_address(outcome[0].source)

        self.assertEqual(told(V4[0]), address.IPv4Address("TCP", "192.0.2.1", 56324))
        self.assertEqual(told(V6[0]), address.IPv6Address("TCP", "2001:db8::1", 1))
        self.assertEqual(
            told(binary(0x21, 0x31, BLOCK_UNIX)), address.UNIXAddress(b"/run/a")
        )
        self.assertEqual(
            told(binary(0x21, 0x31, bytes(216))), address.UNIXAddress(None)
        )
        self.assertIsNone(told(b"PROXY UNKNOWN\r\n"))
