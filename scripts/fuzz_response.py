"""
Feeds the reader of responses what nobody sends, guided by the coverage it reaches.

    pip install atheris
    python scripts/fuzz_response.py -max_total_time=300 [CORPUS_FOLDER]

Each input is read all at once and chopped; both must say the same, and nothing
but our errors may be raised. The options are libFuzzer's.
"""

from __future__ import annotations

import sys
from random import Random

import atheris

with atheris.instrument_imports():
    from sockproto.errors import CodingMalformed, SockprotoError, TooLarge
    from sockproto.wire.exchange import Exchange
    from sockproto.wire.response import BodyCame, Limits

LIMITS = Limits(head=2048, line=512, fields=20, interim=3, chunk_line=64)

SEEDS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
        b"5;a=b\r\nhello\r\n0\r\n\r\n"
    ),
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404 No\nA: b\n c\n\nbody",
    (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\n\r\n"
        b"x\x9c\xcbH\x04\x00\x01;\x00\xd2"
    ),
    b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nxyz",
]


def heard(pieces: list[bytes], method: str, **options: bool) -> tuple[object, ...]:
    """All that an exchange says of these reads: its events, its body, its error."""
    exchange = Exchange(b"", method, limits=LIMITS, **options)
    said: list[object] = []
    body = bytearray()
    error: SockprotoError | None = None
    try:
        for piece in [*pieces, None]:
            if piece is None:
                exchange.receive_eof()
            else:
                exchange.receive_data(piece)
            while (event := exchange.next_event()) is not None:
                if isinstance(event, BodyCame):
                    body += event.data
                else:
                    said.append(event)
    except SockprotoError as caught:
        error = caught
    if isinstance(error, CodingMalformed | TooLarge):
        # zlib keeps what it has decoded of a read that breaks: that depends on reads.
        return (said, CodingMalformed)
    return (said, bytes(body), type(error), str(error))


def one_input(data: bytes) -> None:
    if len(data) < 2:
        return
    options = {"decompress": bool(data[0] & 1), "raw": bool(data[0] & 2)}
    method = "HEAD" if data[0] & 4 else "GET"
    chance = Random(data[1])  # noqa: S311 - chopping keeps no secrets
    stream = data[2:]
    at_once = heard([stream] if stream else [], method, **options)
    by_byte = [stream[i : i + 1] for i in range(len(stream))]
    assert heard(by_byte, method, **options) == at_once
    cuts = sorted(chance.randrange(len(stream) + 1) for _ in range(5))
    chopped = [
        stream[start:end]
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
    ]
    assert heard([piece for piece in chopped if piece], method, **options) == at_once


def main() -> None:
    for seed in SEEDS:
        for first in range(8):
            one_input(bytes([first, 0]) + seed)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
