"""
Responses of HTTP: their heads, framings and codings.
"""

from __future__ import annotations

import gzip
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fuzzing.targets import LONGEST, Given, alike, held, target, told
from sockproto.errors import CodingMalformed, PeerError, SockprotoError, TooLarge
from sockproto.wire import coding
from sockproto.wire.exchange import Exchange
from sockproto.wire.response import BodyCame, HeadCame, InterimCame, Limits

if TYPE_CHECKING:
    from collections.abc import Iterable

LIMITS = Limits(head=1024, line=512, fields=20, interim=3, chunk_line=64)

HTTP_WORDS = (
    *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 404 No\n", b"HTTP/1.1 100 C\r\n\r\n"),
    *(b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"gzip, chunked"),
    *(b"Content-Encoding: deflate\r\n", b"\r\n\r\n", b"0\r\n\r\n", b"204", b"304"),
    *(b"Location: ", b"101", b"\n ", b"\x1f\x8b\x08", b"identity, ", b";a=b\r\n"),
)


@dataclass(frozen=True, slots=True)
class Heard:
    """
    All that an exchange says: its events, all but the body's; its body; its error.
    """

    events: tuple[object, ...]
    body: bytes
    error: SockprotoError | None
    behind: bytes

    def agrees(self, other: Heard) -> bool:
        """Whether they say the same."""
        broken = (CodingMalformed, TooLarge)
        if isinstance(self.error, broken) and isinstance(other.error, broken):
            # zlib keeps what it has decoded of a read that breaks: that depends on
            # reads, and so does whether it is too large before.
            return self.events == other.events and (
                self.body.startswith(other.body) or other.body.startswith(self.body)
            )
        return (self.events, self.body, repr(self.error)) == (
            other.events,
            other.body,
            repr(other.error),
        )


def heard_of(reads: list[bytes], method: str, **options: Any) -> Heard:
    """Feed an exchange; what it holds between reads is bounded."""
    exchange = Exchange(b"", method, limits=LIMITS, **options)
    events: list[object] = []
    body = bytearray()
    error: SockprotoError | None = None
    try:
        for read in [*reads, None]:
            if read is None:
                exchange.receive_eof()
            else:
                exchange.receive_data(read)
            while (event := exchange.next_event()) is not None:
                if isinstance(event, BodyCame):
                    assert len(event.data) <= max(coding.PIECE, LONGEST)
                    body += event.data
                else:
                    events.append(event)
            # The read itself is kept until the next one, and the start of a line.
            bound = len(read or b"".join(reads[-1:])) + LIMITS.line + 2
            assert held(exchange) <= bound, f"it holds {held(exchange)} bytes"
    except PeerError as caught:
        error = caught
        told(error)
        assert exchange.next_event() is None, "it goes on behind an error"
    return Heard(tuple(events), bytes(body), error, exchange.behind)


@target(
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
    b"5;a=b\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n0\r\nA: b\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404 No\nA: b\n c\n\nbody",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\n\r\n"
    b"x\x9c\xcbH\x04\x00\x01;\x00\xd2",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nxyz",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello__0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: ".ljust(600, b"b") + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"A: ".ljust(300, b"b").join([b"\r\n"] * 5)[2:] + b"\r\n",
    words=HTTP_WORDS,
)
def response(given: Given) -> None:
    """
    A response is the same however it is chopped; raw, not one byte of it is lost.
    """
    options: dict[str, Any] = {"decompress": given.has(0), "raw": given.has(1)}
    if given.has(3):
        options["largest_decoded"] = given.other
    method = "HEAD" if given.has(2) else "GET"
    heard = alike(
        given,
        given.stream,
        lambda reads: heard_of(reads, method, **options),
        Heard.agrees,
    )
    heads = [e for e in heard.events if isinstance(e, InterimCame | HeadCame)]
    if given.has(1) and heard.error is None:
        came = b"".join(head.raw for head in heads) + heard.body + heard.behind
        assert came == given.stream, came
    assert sum(len(head.raw) for head in heads) <= LIMITS.head, heads
    for head in heads:
        ended = head.raw.splitlines(keepends=True)
        assert max(map(len, ended)) <= LIMITS.line, head
        folded = re.search(rb"\n[ \t]", head.raw)
        assert folded or len(ended) <= 2 + LIMITS.fields, head
    if heard.error is None:
        assert isinstance(heads[-1], HeadCame), heard
        length = heads[-1].length
        if heads[-1].framing == "content-length" and not options["decompress"]:
            assert length == len(heard.body), heard


CODINGS = (
    ((), ()),
    (("gzip",), ()),
    ((), ("deflate",)),
    (("deflate", "x-gzip"), ()),
    (("identity", "deflate"), ("gzip",)),
    (("gzip", "gzip"), ("deflate", "gzip")),
)


def coded(body: bytes, codings: Iterable[str], *, bare: bool) -> bytes:
    """Apply codings, in order."""
    for each in codings:
        if each == "deflate":
            bits = -zlib.MAX_WBITS if bare else zlib.MAX_WBITS
            coder = zlib.compressobj(wbits=bits)
            body = coder.compress(body) + coder.flush()
        elif each != "identity":
            body = gzip.compress(body, mtime=0)
    return body


@target(b"hello", b"a" * 500, b"\0\0\0")
def bodies(given: Given) -> None:
    """
    A body that a server codes and frames comes out as it went in.
    """
    content, transfer = CODINGS[given.choice % len(CODINGS)]
    bare = given.has(6)
    sent = coded(given.stream, content, bare=bare)
    head = b"HTTP/1.1 200 OK\r\n"
    if content:
        head += b"Content-Encoding: %b\r\n" % ", ".join(content).encode()
    if transfer or given.has(5):
        listed = ", ".join([*transfer, "chunked"]).encode()
        head += b"Transfer-Encoding: %b\r\n\r\n" % listed
        sent = coded(sent, transfer, bare=bare)
        wire = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in given.cut(sent))
        wire += b"0\r\n\r\n"
    elif given.has(4):
        head += b"Content-Length: %d\r\n\r\n" % len(sent)
        wire = sent
    else:
        head += b"\r\n"
        wire = sent
    heard = alike(
        given,
        head + wire,
        lambda reads: heard_of(reads, "GET", decompress=True),
        Heard.agrees,
    )
    assert (heard.body, heard.error) == (given.stream, None), heard


@target(
    gzip.compress(b"hello", mtime=0),
    gzip.compress(b"hello", mtime=0) + gzip.compress(b"a" * 300, mtime=0) + b"\0\0",
    zlib.compress(b"hello" * 9),
    zlib.compress(b"hello" * 9)[2:-4],
    gzip.compress(zlib.compress(b"hello" * 9), mtime=0),
    words=(b"\x1f\x8b\x08\0", b"\0\0", b"x\x9c"),
)
def decoder(given: Given) -> None:
    """
    Coded bytes are decoded alike or refused alike, in pieces, to no more than allowed.
    """
    content, transfer = CODINGS[given.choice % len(CODINGS)]
    codings = [*content, *transfer]
    largest = given.other * 4

    def hear(reads: list[bytes]) -> Heard:
        layers = coding.Decoder(codings, largest=largest)
        out = bytearray()
        try:
            for read in reads:
                for piece in layers.decode(read):
                    assert 0 < len(piece) <= max(coding.PIECE, len(read))
                    out += piece
                    assert len(out) <= largest, len(out)
            layers.finish()
        except (CodingMalformed, TooLarge) as error:
            told(error)
            return Heard((), bytes(out), error, b"")
        return Heard((), bytes(out), None, b"")

    alike(given, given.stream, hear, Heard.agrees)
