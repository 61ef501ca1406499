"""
The header that a proxy puts before a connection.
"""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address, IPv6Address, ip_address

from fuzzing.targets import Given, alike, held, target, told
from sockproto.errors import ProxyHeaderMalformed
from sockproto.wire import proxy

PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n"


def written_header(given: Given) -> tuple[bytes, object, object]:
    """A header as a proxy writes it, and its two ends."""
    raw = given.stream.ljust(80, b"\0")
    ports = (given.other, given.other << 8)
    kind = given.choice >> 1 & 3
    tlvs = raw[40:80]
    if kind == 3:
        paths = [raw[at : at + 36].replace(b"\0", b"/") for at in (0, 36)]
        block = b"".join(path.ljust(108, b"\0") for path in paths) + tlvs
        near, far = map(proxy.UnixEndpoint, paths)
        head = PROXY_V2 + b"\x21\x31" + len(block).to_bytes(2, "big")
        return head + block, near, far
    hosts: list[IPv4Address | IPv6Address]
    if given.has(3):
        hosts = [IPv6Address(raw[:16]), IPv6Address(raw[16:32])]
    else:
        hosts = [IPv4Address(raw[:4]), IPv4Address(raw[4:8])]
    source, destination = zip(hosts, ports, strict=True)
    if kind == 2:
        words = [b"TCP6" if given.has(3) else b"TCP4"]
        words += [str(each).encode() for each in (*hosts, *ports)]
        return b"PROXY " + b" ".join(words) + b"\r\n", source, destination
    block = b"".join(host.packed for host in hosts)
    block += b"".join(port.to_bytes(2, "big") for port in ports) + tlvs
    family = b"\x21" if given.has(3) else b"\x11"
    head = PROXY_V2 + b"\x21" + family + len(block).to_bytes(2, "big")
    return head + block, source, destination


@target(
    b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\nGET /",
    b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 1 65535\r\n",
    b"PROXY UNKNOWN ffff\r\n",
    b"PROXY UNKNOWN ".ljust(104, b"f") + b"\r\n\r\n",
    b"PROXY TCP4 ".ljust(104, b"1") + b"\r\n\r\n",
    PROXY_V2 + b"\x21\x11\0\x0c" + bytes(range(12)) + b"rest",
    PROXY_V2 + b"\x20\0\0\0",
    PROXY_V2 + b"\x21\x21\0\x28" + bytes(40),
    PROXY_V2 + b"\x21\x31\0\xd8" + b"/a".ljust(216, b"\0"),
    words=(b"PROXY TCP4 ", b"PROXY UNKNOWN", b"\r\n", PROXY_V2, b"\x21\x11", b" 0 "),
)
def proxy_header(given: Given) -> None:
    """
    A header is taken or refused wherever it is cut, ends where it ends, and one that
    a proxy has written says what it wrote; no more than a header is held.
    """

    filler = bytes(16 + proxy.LONGEST_BLOCK)

    def hear(stream: bytes, reads: list[bytes]) -> tuple[object, object]:
        reader = proxy.ProxyHeaderReader()
        came = 0
        for read in reads:
            came += len(read)
            try:
                found = reader.receive_data(read)
            except ProxyHeaderMalformed as error:
                try:
                    reader.receive_data(filler)
                except ProxyHeaderMalformed as again:
                    assert held(reader) <= len(filler), held(reader)
                    return told(error), str(again) == str(error)
                raise AssertionError("it is taken after all") from error
            if found is not None:
                header, rest = found
                assert stream[:came].endswith(rest)
                return header, came - len(rest)
        with contextlib.suppress(ProxyHeaderMalformed):
            assert reader.receive_data(filler), "it asks for more than a header has"
        return None, None

    if not given.has(0):
        alike(given, given.stream, lambda reads: hear(given.stream, reads))
        return
    written, source, destination = written_header(given)
    sent = written + given.stream
    header, size = alike(given, sent, lambda reads: hear(sent, reads))
    assert size == len(written), (written, header, size)
    assert isinstance(header, proxy.ProxyHeader), header
    for read, wrote in ((header.source, source), (header.destination, destination)):
        if isinstance(read, proxy.TcpEndpoint):
            assert (ip_address(read.host), read.port) == wrote, (read, wrote)
        else:
            assert read == wrote, (read, wrote)
