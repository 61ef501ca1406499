"""
Reads the header of the PROXY protocol, by which a proxy says whose connection it
passes on: version 1 (a line of text) and version 2 (binary), told apart by
their first byte.

The standard is `doc/proxy-protocol.txt` of HAProxy's; sections below are its.
This is the side of a server that requires the header (section 2): it comes first
on every connection, and where there is none the connection is to be closed. To
guess would let anybody say who they are, so read it only from proxies you trust.

What the standard leaves to who reads it:

- Version 1, `TCP6`: an address may end in a dotted IPv4 one (RFC 4291, section
  2.2), because `inet_ntop` writes `::ffff:192.0.2.1`, and with it the proxies.
- Version 1, `UNKNOWN`: what follows is skipped, whatever it is, after a space.
- Version 2, UNSPEC as family or as transport: the connection is taken, and its
  own addresses count.
- Version 2, DGRAM: refused. The standard has it read as UNSPEC by who cannot use
  it, and lets UNSPEC be refused; on a stream it can only be a mistake, and limits
  by peer would then count the proxy.
- Version 2, what follows the addresses (TLVs) is skipped, unread. So a checksum
  in it (PP2_TYPE_CRC32C, section 2.2.3) is not verified, which only those must do
  who support it: TCP has one of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from sockproto.errors import ProxyHeaderMalformed

__all__ = [
    "LONGEST_BLOCK",
    "LONGEST_LINE",
    "Endpoint",
    "ProxyHeader",
    "ProxyHeaderReader",
    "TcpEndpoint",
    "UnixEndpoint",
]

LONGEST_LINE = 107
"""Bytes of a header of version 1, its CRLF included (section 2.1)."""

LONGEST_BLOCK = 4096
"""
Bytes of a header of version 2 after its first 16. The addresses take 216 at most,
and all should fit in 536 (section 2); a client's certificate among the TLVs takes
more. The length field could ask us to hold 65,535.
"""

_FIXED = 16
"""Bytes of version 2 that are always there: signature, command, family, length."""

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_UNKNOWN = b"PROXY UNKNOWN"
_IP_KINDS: dict[bytes, type[IPv4Address | IPv6Address]] = {
    b"PROXY TCP4 ": IPv4Address,
    b"PROXY TCP6 ": IPv6Address,
}
_STARTS = (_SIGNATURE, *_IP_KINDS, _UNKNOWN + b" ", _UNKNOWN + b"\r\n")
_START_EXPECTED = "PROXY with TCP4, TCP6 or UNKNOWN, or the signature of version 2"

_LINE = re.compile(rb"[0-9A-Fa-f:. ]*\r?")
_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")

_LOCAL, _PROXY = b"\x20", b"\x21"  # each with the 2 of version 2

_OVER_IPV4, _OVER_IPV6, _OVER_UNIX = b"\x11", b"\x21", b"\x31"
_UNSPEC = b"\x00"
_HALF_UNSPEC = (b"\x01", b"\x10", b"\x20", b"\x30")
_BLOCK_SIZES = {
    **dict.fromkeys((_UNSPEC, *_HALF_UNSPEC), 0),
    _OVER_IPV4: 2 * 4 + 2 * 2,
    _OVER_IPV6: 2 * 16 + 2 * 2,
    _OVER_UNIX: 2 * 108,
}
"""Bytes of the addresses and ports, by the byte of family and transport."""


@dataclass(frozen=True, slots=True)
class TcpEndpoint:
    """
    One end of a TCP connection.

    Attributes:
        host: an IPv4 or an IPv6 address, spelled as RFC 5952 has it, however the
            header did: `2001:db8::1`, `::ffff:192.0.2.1`.
        port: from 0 to 65,535.
    """

    host: str
    port: int

    @property
    def is_ipv6(self) -> bool:
        """Whether the host is an IPv6 address, `::ffff:192.0.2.1` included."""
        return ":" in self.host


@dataclass(frozen=True, slots=True)
class UnixEndpoint:
    """
    One end of a connection of a unix socket.

    Attributes:
        path: as the socket was bound; it starts with a NUL in Linux's abstract
            namespace, and is empty where the socket has no name.
    """

    path: bytes


Endpoint = TcpEndpoint | UnixEndpoint


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """
    Who is really connected to whom, as the proxy says.

    Both are None where the connection's own addresses count: the proxy speaks for
    itself (LOCAL, as in its health checks), or does not know (UNKNOWN, UNSPEC).
    """

    source: Endpoint | None
    destination: Endpoint | None


_OWN_ADDRESSES = ProxyHeader(None, None)


class ProxyHeaderReader:
    """
    Reads the one header at the start of a connection.

    It holds no more than a header can have. A connection that ends while it still
    asks for more had no header, and nothing of it may be used.
    """

    def __init__(self) -> None:
        self._pending = b""
        self._read = False

    def receive_data(self, data: bytes) -> tuple[ProxyHeader, bytes] | None:
        """
        Take the next bytes of the stream; not to be called after the header.

        Returns:
            None until the header is complete; then it, and what followed it.

        Raises:
            ProxyHeaderMalformed: as soon as the bytes cannot become a header
                that we take; of addresses and ports, when their line is complete.
                It is raised again if more is given: close the connection.
        """
        assert not self._read, "what follows the header is not for its reader"
        pending = self._pending + data
        # Enough to refuse it again, and no more.
        self._pending = pending[: _FIXED + LONGEST_BLOCK]
        found = _read_header(pending)
        if found is None:
            return None
        self._read = True
        self._pending = b""
        header, size = found
        return header, pending[size:]


def _read_header(pending: bytes) -> tuple[ProxyHeader, int] | None:
    """Read a header; return it and its size, or None if that needs more bytes."""
    start = _start(pending)
    if start is None:
        return None
    if start == _SIGNATURE:
        return _read_binary(pending)
    if start in _IP_KINDS:
        return _read_line(pending, start)
    end = pending.find(b"\r\n", len(_UNKNOWN), LONGEST_LINE)
    if end < 0:
        if len(pending) >= LONGEST_LINE:
            raise _line_too_long(pending)
        return None
    return _OWN_ADDRESSES, end + 2


def _start(pending: bytes) -> bytes | None:
    """Find what the bytes begin with; None while they may still become several."""
    for start in _STARTS:
        if pending.startswith(start):
            return start
    for size in range(1, len(pending) + 1):
        if not any(start.startswith(pending[:size]) for start in _STARTS):
            raise ProxyHeaderMalformed(pending[:size], _START_EXPECTED)
    return None


def _line_too_long(pending: bytes) -> ProxyHeaderMalformed:
    expected = f"a CRLF within {LONGEST_LINE} bytes"
    return ProxyHeaderMalformed(pending[:LONGEST_LINE], expected)


def _read_line(pending: bytes, start: bytes) -> tuple[ProxyHeader, int] | None:
    """Read version 1 with addresses (section 2.1)."""
    text = _LINE.match(pending, len(start), LONGEST_LINE)
    assert text is not None, "it matches nothing, too"
    end = text.end()
    if end == LONGEST_LINE:
        raise _line_too_long(pending)
    if end == len(pending):
        return None
    if pending[end - 1 : end + 1] != b"\r\n":
        expected = "an address, a port, a single space or CRLF"
        raise ProxyHeaderMalformed(pending[: end + 1], expected)
    fields = pending[len(start) : end - 1].split(b" ")
    if len(fields) != 4:
        expected = "two addresses and two ports after single spaces"
        raise ProxyHeaderMalformed(pending[: end + 1], expected)
    kind = _IP_KINDS[start]
    hosts = [_read_host(kind, field) for field in fields[:2]]
    source, destination = map(TcpEndpoint, hosts, map(_read_port, fields[2:]))
    return ProxyHeader(source, destination), end + 1


def _read_host(kind: type[IPv4Address | IPv6Address], field: bytes) -> str:
    try:
        return _spell_host(kind(field.decode("ascii")))
    except ValueError:
        expected = "an IPv4 address" if kind is IPv4Address else "an IPv6 address"
        raise ProxyHeaderMalformed(field, expected) from None


def _spell_host(host: IPv4Address | IPv6Address) -> str:
    # Which of its two spellings such an address has depends on Python's version.
    if isinstance(host, IPv6Address) and host.ipv4_mapped is not None:
        return f"::ffff:{host.ipv4_mapped}"
    return str(host)


def _read_port(field: bytes) -> int:
    if _PORT.fullmatch(field) and int(field) <= 65_535:
        return int(field)
    raise ProxyHeaderMalformed(field, "a port from 0 to 65535, without leading zeros")


def _read_binary(pending: bytes) -> tuple[ProxyHeader, int] | None:
    """Read version 2 (section 2.2)."""
    command = pending[12:13]
    if command not in {b"", _LOCAL, _PROXY}:
        expected = "version 2 with LOCAL (0x20) or PROXY (0x21)"
        raise ProxyHeaderMalformed(command, expected)
    # In LOCAL it is ignored, whatever it is.
    kind = pending[13:14] if command == _PROXY else _UNSPEC
    if kind and kind not in _BLOCK_SIZES:
        expected = "UNSPEC, or STREAM over IPv4, IPv6 or UNIX,"
        raise ProxyHeaderMalformed(kind, expected)
    if len(pending) < _FIXED:
        return None
    length = int.from_bytes(pending[14:_FIXED], "big")
    least = _BLOCK_SIZES[kind]
    if not least <= length <= LONGEST_BLOCK:
        expected = f"a length from {least} to {LONGEST_BLOCK}"
        raise ProxyHeaderMalformed(pending[14:_FIXED], expected)
    size = _FIXED + length
    if len(pending) < size:
        return None
    return _read_addresses(kind, pending[_FIXED : _FIXED + least]), size


def _read_addresses(kind: bytes, block: bytes) -> ProxyHeader:
    if kind == _OVER_IPV4:
        return ProxyHeader(
            _tcp_endpoint(IPv4Address(block[:4]), block[8:10]),
            _tcp_endpoint(IPv4Address(block[4:8]), block[10:]),
        )
    if kind == _OVER_IPV6:
        return ProxyHeader(
            _tcp_endpoint(IPv6Address(block[:16]), block[32:34]),
            _tcp_endpoint(IPv6Address(block[16:32]), block[34:]),
        )
    if kind == _OVER_UNIX:
        return ProxyHeader(_unix_endpoint(block[:108]), _unix_endpoint(block[108:]))
    return _OWN_ADDRESSES


def _tcp_endpoint(host: IPv4Address | IPv6Address, port: bytes) -> TcpEndpoint:
    return TcpEndpoint(_spell_host(host), int.from_bytes(port, "big"))


def _unix_endpoint(field: bytes) -> UnixEndpoint:
    if field.startswith(b"\0"):
        # Abstract, or nameless: how long a name is, only the padding tells.
        return UnixEndpoint(field.rstrip(b"\0"))
    # What is behind a path's NUL may be whatever was in the sender's memory.
    return UnixEndpoint(field.partition(b"\0")[0])
