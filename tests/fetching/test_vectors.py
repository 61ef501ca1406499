"""
What a client must make of a response, row by row: good ones, odd ones, bad ones.

Each row is written from a rule of RFC 9110 or 9112, or from what an advisory says
that another program got wrong, and names it. Where a rule leaves a choice,
docs/fetch.md has ours. Each row comes whole, byte by byte and cut at random, and
the connection ends in each of the ways in which connections end.
"""

from __future__ import annotations

import gzip
import random
import zlib
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from sockproto.errors import (
    BodyCutShort,
    BodyMalformed,
    CodingMalformed,
    ConnectionWasReset,
    HeadMalformed,
    NothingCame,
    TimedOut,
    TooLarge,
)
from sockproto.fetching import FetchProtocol
from sockproto.wire.exchange import Exchange
from sockproto.wire.response import HeadCame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SILENCE_SECONDS = 30.0

ROUNDS = 3
"""Ways to cut a row at random, for each end."""

LONG = 2000
"""Bytes of a row above which it comes in pieces, not byte by byte."""

PIECE = 4000

BEHIND = b"HTTP/1.1 500 Behind\r\nContent-Length: 1\r\n\r\n!"


@dataclass(frozen=True)
class Whole:
    """Complete by its own framing, and exactly with its last byte."""

    status: int
    body: bytes = b""


@dataclass(frozen=True)
class ToClose:
    """Complete with the end of the peer's side, and with nothing else."""

    status: int
    body: bytes = b""


@dataclass(frozen=True)
class CutShort:
    """Incomplete: the end of the peer's side is this error."""

    kind: type[BaseException]


@dataclass(frozen=True)
class Refused:
    """
    Malformed, and this error, however the connection ends.

    Attributes:
        words: are in the message, so that it is refused for the right reason.
        exactly: whether the last byte, and none before it, is the bad one.
    """

    kind: type[BaseException]
    words: str
    exactly: bool = True


class Row(NamedTuple):
    """
    A response, what must come of it, and who says so.
    """

    name: str
    said: bytes
    outcome: Whole | ToClose | CutShort | Refused
    source: str
    method: str = "GET"
    decompress: bool = False


OK = b"HTTP/1.1 200 OK\r\n"
FIVE = b"Content-Length: 5\r\n\r\n"
TO_CLOSE = OK + b"\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

KIB = 1024
LINE = 100 * KIB
HEAD = 300 * KIB

HELLO = Whole(200, b"hello")
NO_STATUS_LINE = Refused(HeadMalformed, "no status line")
NOT_HTTP = Refused(HeadMalformed, "does not begin with a status line")
OTHER_VERSION = Refused(HeadMalformed, "its version is")
NO_NAME = Refused(HeadMalformed, "no field name")
NO_COLON = Refused(HeadMalformed, "no colon")
CR_OR_NUL = Refused(HeadMalformed, "a bare CR or a NUL")
NO_NUMBER = Refused(HeadMalformed, "no number")
TOO_LONG = Refused(HeadMalformed, "above the 9223372036854775807")
DIFFER = Refused(HeadMalformed, "its Content-Lengths differ")
NOT_LAST = Refused(HeadMalformed, "not chunked last")
NO_SIZE = Refused(BodyMalformed, "no chunk size")
NO_CRLF = Refused(BodyMalformed, "should end in CRLF")
DIGITS = Refused(BodyMalformed, "more than 16 digits")
HEAD_CUT = CutShort(HeadMalformed)
BODY_CUT = CutShort(BodyCutShort)


def lengthy(value: bytes, body: bytes = b"hello") -> bytes:
    """A response whose Content-Length is this."""
    return OK + b"Content-Length: " + value + b"\r\n\r\n" + body


def transfer(value: bytes, behind: bytes = b"5\r\nhello\r\n" + LAST) -> bytes:
    """A response whose Transfer-Encoding is this."""
    return OK + b"Transfer-Encoding: " + value + b"\r\n\r\n" + behind


def field(line: bytes) -> bytes:
    """A head that has reached the end of this line."""
    return OK + line + b"\r\n"


def coded(coding: bytes, body: bytes, missing: int = 0) -> bytes:
    """A response with this Content-Encoding, and so many bytes too few."""
    size = len(body) + missing
    return b"%bContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        OK,
        coding,
        size,
        body,
    )


def chunk(data: bytes) -> bytes:
    """A chunk (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def times(function: Callable[[bytes], bytes], count: int, data: bytes) -> bytes:
    """What comes of a function that is applied so often."""
    for _ in range(count):
        data = function(data)
    return data


def bare_deflated(data: bytes) -> bytes:
    """As RFC 1951, without the zlib format around it."""
    packing = zlib.compressobj(wbits=-15)
    return packing.compress(data) + packing.flush()


def filled(size: int, *before: bytes) -> bytes:
    """A head of this many bytes in lines of 1 KiB at most, its end included."""
    left = size - len(OK) - sum(map(len, before)) - 2
    lines = [OK, *before]
    while left:
        # No line is so short that it could not be one.
        line = left if left <= KIB else min(KIB, left - 6)
        lines.append(b"X: " + b"y" * (line - 5) + b"\r\n")
        left -= line
    return b"".join([*lines, b"\r\n"])


GZIP = gzip.compress(b"hello", mtime=0)
ZLIB = zlib.compress(b"hello")
RAW = bare_deflated(b"hello")
BOMB = gzip.compress(bytes(17 << 20), mtime=0)

STATUS_LINES = (
    Row("plain", OK + FIVE + b"hello", HELLO, "RFC 9112, 4"),
    Row(
        "empty_reason",
        b"HTTP/1.1 200 \r\n" + FIVE + b"hello",
        HELLO,
        "RFC 9112, 4: the reason may be empty, its space may not be missing",
    ),
    Row(
        "no_reason",
        b"HTTP/1.1 200\r\n" + FIVE + b"hello",
        HELLO,
        "docs: no reason; many servers leave its space out",
    ),
    Row(
        "reason_in_latin_1",
        b"HTTP/1.1 404 Intr\xf8uvable\r\n" + FIVE + b"hello",
        Whole(404, b"hello"),
        "RFC 9112, 4: obs-text",
    ),
    Row(
        "reason_in_utf_8",
        "HTTP/1.1 404 見つからない\r\n".encode() + FIVE + b"hello",
        Whole(404, b"hello"),
        "RFC 9112, 4: obs-text",
    ),
    Row(
        "reason_like_a_field",
        b"HTTP/1.1 200 Content-Length: 99\r\n" + FIVE + b"hello",
        HELLO,
        "RFC 9112, 4: a client should ignore the reason",
    ),
    Row(
        "reason_like_a_status_line",
        b"HTTP/1.1 200 HTTP/1.1 204 No Content\r\n" + FIVE + b"hello",
        HELLO,
        "RFC 9112, 4",
    ),
    Row(
        "reason_of_spaces",
        b"HTTP/1.1 200  \t \r\n" + FIVE + b"hello",
        HELLO,
        "RFC 9112, 4: SP and HTAB are of a reason",
    ),
    Row(
        "version_1_0",
        b"HTTP/1.0 200 OK\r\n" + FIVE + b"hello",
        HELLO,
        "RFC 9112, 2.3",
    ),
    Row(
        "version_1_0_to_close",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        ToClose(200, b"hello"),
        "RFC 9112, 6.3, rule 8",
    ),
    *(
        Row(
            f"status_{status}",
            b"HTTP/1.1 %d X\r\n" % status + FIVE + b"hello",
            Whole(status, b"hello"),
            "RFC 9110, 15: one that is not known is as x00 of its class",
        )
        for status in (205, 299, 300, 418, 511, 599, 600, 999)
    ),
    *(
        Row(f"status_{name}", b"HTTP/1.1 " + line + b"\r\n", NO_STATUS_LINE, source)
        for name, line, source in (
            ("of_two_digits", b"20 OK", "RFC 9112, 4: status-code = 3DIGIT"),
            ("of_four_digits", b"2000 OK", "RFC 9112, 4: status-code = 3DIGIT"),
            ("below_100", b"099 Low", "RFC 9110, 15: 100 to 599"),
            ("of_letters", b"OK 200", "RFC 9112, 4"),
            ("signed", b"+20 OK", "RFC 9112, 4; Python's int() takes it"),
            ("negative", b"-20 OK", "RFC 9112, 4; C's atoi() takes it"),
            ("underscored", b"2_0 OK", "RFC 9112, 4; Python's int() takes it"),
            ("in_other_digits", "\uff12\uff10\uff10".encode(), "RFC 9112, 4: ASCII"),
            ("glued_to_reason", b"200OK", "RFC 9112, 4: a space before the reason"),
            ("before_a_tab", b"200\tOK", "RFC 9112, 4: SP, not whitespace"),
            ("after_two_spaces", b" 200 OK", "RFC 9112, 4: a single SP"),
            ("missing", b"", "RFC 9112, 4"),
        )
    ),
    Row("status_after_tab", b"HTTP/1.1\t200 OK\r\n", NO_STATUS_LINE, "RFC 9112, 4"),
    Row("version_alone", b"HTTP/1.1\r\n", NO_STATUS_LINE, "RFC 9112, 4"),
    Row("version_spaced", b"HTTP/ 1.1 200 OK\r\n", NO_STATUS_LINE, "RFC 9112, 2.3"),
    Row("version_of_letters", b"HTTP/x.y 200 OK\r\n", NO_STATUS_LINE, "RFC 9112, 2.3"),
    *(
        Row(
            f"version_{name}",
            b"HTTP/" + version + b" 200 OK\r\n",
            OTHER_VERSION,
            "RFC 9112, 2.3: DIGIT.DIGIT; 1.x is what is spoken here",
        )
        for name, version in (
            ("0_9", b"0.9"),
            ("1_2", b"1.2"),
            ("1_10", b"1.10"),
            ("11_1", b"11.1"),
            ("2", b"2"),
            ("2_0", b"2.0"),
            ("3", b"3"),
            ("of_three", b"1.1.1"),
        )
    ),
    Row("lower_case_http", b"http/1.1 200 OK\r\n", NOT_HTTP, "RFC 9112, 2.3"),
    Row("space_before_http", b" HTTP/1.1 200 OK\r\n", NOT_HTTP, "RFC 9112, 4"),
    Row(
        "empty_line_first",
        b"\r\n",
        NOT_HTTP,
        "RFC 9112, 2.2: only who reads requests ignores it",
    ),
    Row("byte_order_mark", b"\xef\xbb\xbfHTTP/1.1 200 OK\r\n", NOT_HTTP, "RFC 9112, 4"),
    Row("icecast", b"ICY 200 OK\r\n", NOT_HTTP, "RFC 9112, 2.3; curl took it once"),
    Row("rtsp", b"RTSP/1.0 200 OK\r\n", NOT_HTTP, "RFC 9112, 2.3"),
    Row("ssh", b"SSH-2.0-OpenSSH_9.6\r\n", NOT_HTTP, "RFC 4253, 4.2: another protocol"),
    Row("http_0_9", b"<html>\n", NOT_HTTP, "RFC 9112, 2.3; curl --http0.9, off by now"),
    Row(
        "no_line_at_all", b"x" * 64, NOT_HTTP, "docs: a head is judged without its end"
    ),
    Row(
        "tls_alert",
        b"\x15\x03\x01\x00\x02\x02\x46",
        HEAD_CUT,
        "RFC 8446, 6: to who speaks plainly to TLS; never judged before its end",
    ),
    Row("nul_in_reason", b"HTTP/1.1 200 O\0K\r\n", CR_OR_NUL, "RFC 9112, 4"),
    Row("cr_in_reason", b"HTTP/1.1 200 O\rK\r\n", CR_OR_NUL, "RFC 9112, 2.2"),
)

FIELDS = (
    Row(
        "names_in_any_case",
        OK + b"cOnTeNt-LeNgTh: 5\r\n\r\nhello",
        HELLO,
        "RFC 9110, 5.1",
    ),
    Row("no_space", OK + b"Content-Length:5\r\n\r\nhello", HELLO, "RFC 9112, 5"),
    Row(
        "white_around",
        OK + b"Content-Length: \t 5 \t \r\n\r\nhello",
        HELLO,
        "RFC 9112, 5: OWS is no part of the value",
    ),
    Row(
        "tokens",
        OK + b"!#$%&'*+-.^_`|~09Az: x\r\n" + FIVE + b"hello",
        HELLO,
        "RFC 9110, 5.6.2: all of tchar",
    ),
    Row("empty_value", OK + b"X:\r\nY: \r\n" + FIVE + b"hello", HELLO, "RFC 9110, 5.5"),
    Row("colons", OK + b"X: a:b::\r\n" + FIVE + b"hello", HELLO, "RFC 9110, 5.5"),
    Row(
        "value_of_obs_text",
        OK + b"X: \x80\xff\r\n" + FIVE + b"hello",
        HELLO,
        "RFC 9110, 5.5",
    ),
    Row(
        "value_of_control_characters",
        OK + b"X: \x01\x1b[2J\x7f\r\n" + FIVE + b"hello",
        HELLO,
        "docs: taken, and escaped on a terminal",
    ),
    *(
        Row(
            f"no_line_end_{name}",
            OK + b"X: a" + end + b"Content-Length: 9\r\n" + FIVE + b"hello",
            HELLO,
            "RFC 9112, 2.2: CRLF, or LF; Python's splitlines() has ten more",
        )
        for name, end in (
            ("vt", b"\x0b"),
            ("ff", b"\x0c"),
            ("fs", b"\x1c"),
            ("nel", b"\x85"),
            ("line_separator", "\u2028".encode()),
        )
    ),
    Row(
        "folded",
        OK + b"X: a\r\n b\r\n\tc\r\n" + FIVE + b"hello",
        HELLO,
        "RFC 9112, 5.2: who reads a response replaces it by spaces",
    ),
    Row(
        "folded_length",
        OK + b"Content-Length:\r\n 5\r\n\r\nhello",
        HELLO,
        "RFC 9112, 5.2",
    ),
    Row(
        "folded_in_a_number",
        OK + b"Content-Length: 1\r\n 5\r\n\r\n",
        NO_NUMBER,
        "RFC 9112, 5.2: a fold is a space, and no number has one",
    ),
    Row(
        "folded_field",
        OK + b"X: a\r\n Content-Length: 9\r\n" + FIVE + b"hello",
        HELLO,
        "CVE-2018-0494 (wget): a folded line is of the value before it",
    ),
    Row(
        "folded_blank",
        OK + b"X: a\r\n \t\r\n" + FIVE + b"hello",
        HELLO,
        "RFC 9112, 5.2: a blank line is not the empty one",
    ),
    Row("folded_nul", field(b"X: a\r\n \0"), CR_OR_NUL, "RFC 9110, 5.5"),
    Row(
        "indented_first",
        OK + b" Transfer-Encoding: chunked\r\n" + FIVE + b"hello",
        HELLO,
        "RFC 9112, 2.2: whitespace before the first field: its line is dropped",
    ),
    Row("blank_first", field(b" "), NO_COLON, "RFC 9112, 2.2"),
    Row("space_before_colon", field(b"Host : a"), NO_NAME, "RFC 9112, 5.1"),
    Row(
        "space_after_framing",
        field(b"Transfer-Encoding : chunked"),
        NO_NAME,
        "CVE-2019-16276 (Go): it was normalised",
    ),
    Row("tab_before_colon", field(b"Content-Length\t: 5"), NO_NAME, "RFC 9112, 5.1"),
    Row(
        "space_in_name",
        field(b"Content Length: 5"),
        NO_NAME,
        "CVE-2015-5739 (Go): it was taken for Content-Length",
    ),
    Row("no_name", field(b": 5"), NO_NAME, "RFC 9110, 5.6.2: 1*tchar"),
    Row("name_in_quotes", field(b'"X": 5'), NO_NAME, "RFC 9110, 5.6.2"),
    Row("name_in_brackets", field(b"(X): 5"), NO_NAME, "RFC 9110, 5.6.2"),
    Row("name_with_slash", field(b"X/Y: 5"), NO_NAME, "RFC 9110, 5.6.2"),
    Row("name_in_latin_1", field(b"L\xe4nge: 5"), NO_NAME, "RFC 9110, 5.1"),
    Row("vt_before_name", field(b"\x0bX: 5"), NO_NAME, "RFC 9110, 5.6.2"),
    Row("name_with_control", field(b"X\x7f: 5"), NO_NAME, "RFC 9110, 5.6.2"),
    Row("no_colon", field(b"hello"), NO_COLON, "RFC 9112, 5"),
    Row("another_status_line", field(OK[:-2]), NO_COLON, "RFC 9112, 5"),
    Row("nul_in_value", field(b"X: a\0b"), CR_OR_NUL, "RFC 9110, 5.5"),
    Row("nul_in_name", field(b"X\0Y: a"), CR_OR_NUL, "RFC 9110, 5.1"),
    Row("cr_in_value", field(b"X: a\rb"), CR_OR_NUL, "RFC 9112, 2.2"),
    Row("cr_before_crlf", field(b"X: a\r"), CR_OR_NUL, "RFC 9112, 2.2"),
    Row("cr_as_line_end", OK + b"X: a\rY: b\r\r\n", CR_OR_NUL, "RFC 9112, 2.2"),
    Row("lf_cr", b"HTTP/1.1 200 OK\n\rX: a\n", CR_OR_NUL, "RFC 9112, 2.2"),
    Row("cr_cr_lf_at_the_end", OK + b"\r\r\n", CR_OR_NUL, "RFC 9112, 2.2"),
    Row(
        "bare_lf",
        b"HTTP/1.1 200 OK\nX: a\nContent-Length: 5\n\nhello",
        HELLO,
        "RFC 9112, 2.2: a recipient may take it",
    ),
    Row(
        "bare_lf_here_and_there",
        b"HTTP/1.1 200 OK\r\nX: a\nContent-Length: 5\r\n\nhello",
        HELLO,
        "RFC 9112, 2.2",
    ),
    Row(
        "equal_locations",
        OK + b"Location: /a\r\nlocation: /a\r\n" + FIVE + b"hello",
        HELLO,
        "docs: several Location that differ are refused, equal ones taken",
    ),
    Row(
        "other_locations",
        b"HTTP/1.1 302 F\r\nLocation: /a\r\nLocation: /b\r\n\r\n",
        Refused(HeadMalformed, "several Location"),
        "RFC 9110, 5.3: a field that is no list is not repeated",
    ),
)

LENGTHS = (
    Row("length_zero", lengthy(b"0", b""), Whole(200), "RFC 9112, 6.3, rule 6"),
    Row("length_with_zeros", lengthy(b"0005"), HELLO, "RFC 9110, 8.6: 1*DIGIT"),
    Row("length_of_many_zeros", lengthy(b"0" * 5000 + b"5"), HELLO, "RFC 9110, 8.6"),
    Row("length_as_list", lengthy(b"5, 5"), HELLO, "RFC 9110, 8.6: as one"),
    Row("length_as_close_list", lengthy(b"5,5 ,\t5"), HELLO, "RFC 9110, 8.6"),
    Row("length_equal_as_number", lengthy(b"5, 05"), HELLO, "RFC 9110, 8.6"),
    Row(
        "length_twice",
        OK + b"Content-Length: 5\r\n" + FIVE + b"hello",
        HELLO,
        "RFC 9112, 6.3, rule 5: or refused; docs: equal ones, as one",
    ),
    Row(
        "length_twice_and_other",
        OK + b"Content-Length: 6\r\n" + FIVE,
        DIFFER,
        "CVE-2020-10108 (Twisted), CVE-2015-5740 (Go)",
    ),
    Row("length_list_of_other", lengthy(b"5, 6", b""), DIFFER, "RFC 9112, 6.3, 5"),
    *(
        Row(f"length_{name}", lengthy(value, b""), NO_NUMBER, source)
        for name, value, source in (
            ("plus", b"+5", "CVE-2022-24801 (Twisted)"),
            ("minus", b"-5", "CVE-2022-24801 (Twisted)"),
            ("minus_zero", b"-0", "RFC 9110, 8.6"),
            ("empty", b"", "RFC 9110, 8.6: 1*DIGIT"),
            ("word", b"five", "RFC 9110, 8.6"),
            ("hexadecimal", b"0x5", "RFC 9110, 8.6; C's strtol() takes it"),
            ("fraction", b"5.0", "RFC 9110, 8.6"),
            ("exponent", b"5e0", "RFC 9110, 8.6"),
            ("underscored", b"1_0", "RFC 9110, 8.6; Python's int() takes it"),
            ("two_words", b"5 5", "RFC 9110, 8.6"),
            ("parameter", b"5;a=b", "RFC 9110, 8.6"),
            ("quoted", b'"5"', "RFC 9110, 8.6"),
            ("comma_behind", b"5,", "RFC 9110, 8.6: not a list by its grammar"),
            ("comma_before", b",5", "RFC 9110, 8.6: not a list by its grammar"),
            ("vt", b"\x0b5", "CVE-2022-24801 (Twisted): strip() takes it off"),
            ("nbsp", b"5\xa0", "RFC 9110, 8.6; as text, strip() takes it off"),
            ("arabic", "\u0665".encode(), "RFC 9110, 8.6: DIGIT is ASCII"),
            ("superscript", b"\xb2", "RFC 9110, 8.6; str.isdigit() takes it"),
        )
    ),
    *(
        Row(f"length_{name}", lengthy(value, b""), TOO_LONG, source)
        for name, value, source in (
            ("2_63", b"%d" % 2**63, "docs: above 2⁶³-1"),
            ("2_64_and_5", b"%d" % (2**64 + 5), "RFC 9112, 6.3: overflow is an error"),
            ("2_32_twice", b"%d" % (2**96 + 5), "RFC 9110, 8.6: anticipate overflow"),
            ("of_5000_digits", b"9" * 5000, "CVE-2020-10735 (CPython)"),
        )
    ),
    Row("length_cut_short", lengthy(b"5", b"hell"), BODY_CUT, "RFC 9112, 8"),
    Row("length_without_body", lengthy(b"5", b""), BODY_CUT, "RFC 9112, 8"),
    Row(
        "length_claimed",
        lengthy(b"%d" % (2**63 - 1)),
        BODY_CUT,
        "CVE-2025-13836 (CPython): memory follows what comes",
    ),
    Row(
        "length_to_head",
        lengthy(b"5", b""),
        Whole(200),
        "RFC 9110, 9.3.2: the length that GET would have",
        method="HEAD",
    ),
    Row("bad_length_to_head", lengthy(b"+5", b""), NO_NUMBER, "RFC 9110, 8.6", "HEAD"),
    Row("chunks_to_head", CHUNKED, Whole(200), "RFC 9112, 6.3, rule 1", "HEAD"),
    Row("nothing_to_head", TO_CLOSE, Whole(200), "RFC 9112, 6.3, rule 1", "HEAD"),
    *(
        Row(
            f"{name}_of_{status}",
            b"HTTP/1.1 %d X\r\n" % status + fields + b"\r\n",
            Whole(status),
            "RFC 9112, 6.3, rule 1: there is none, whatever the head says",
        )
        for status in (204, 304)
        for name, fields in (
            ("body", b""),
            ("length", b"Content-Length: 5\r\n"),
            ("chunks", b"Transfer-Encoding: chunked\r\n"),
        )
    ),
    Row("to_close", TO_CLOSE + b"hello", ToClose(200, b"hello"), "RFC 9112, 6.3, 8"),
    Row("to_close_empty", TO_CLOSE, ToClose(200), "RFC 9112, 6.3, rule 8"),
    Row(
        "to_close_though_kept_alive",
        OK + b"Connection: keep-alive\r\n\r\nhello",
        ToClose(200, b"hello"),
        "RFC 9112, 6.3, rule 8: framing is not Connection's matter",
    ),
    Row(
        "to_close_with_a_response_in_it",
        TO_CLOSE + OK + FIVE + b"hello",
        ToClose(200, OK + FIVE + b"hello"),
        "RFC 9112, 6.3, rule 8",
    ),
    Row(
        "to_close_long",
        TO_CLOSE + b"x" * 100_000,
        ToClose(200, b"x" * 100_000),
        "RFC 9112, 6.3, rule 8",
    ),
)

TRANSFER_CODINGS = (
    Row("chunked", transfer(b"chunked"), HELLO, "RFC 9112, 7.1"),
    Row("chunked_in_any_case", transfer(b"ChUnKeD"), HELLO, "RFC 9112, 7"),
    Row("chunked_white_around", transfer(b"\tchunked \t"), HELLO, "RFC 9112, 5"),
    Row("chunked_folded", transfer(b"\r\n chunked"), HELLO, "RFC 9112, 5.2"),
    Row("chunked_in_a_list", transfer(b", chunked,"), HELLO, "RFC 9110, 5.6.1.2"),
    Row("chunked_twice", transfer(b"chunked, chunked"), HELLO, "docs: said twice"),
    Row(
        "chunked_in_two_fields",
        transfer(b"chunked\r\nTransfer-Encoding: chunked"),
        HELLO,
        "docs: said twice",
    ),
    Row("identity_chunked", transfer(b"identity, chunked"), HELLO, "RFC 2616, 3.6"),
    *(
        Row(
            f"chunked_{name}_length",
            transfer(before + b"chunked" + behind),
            HELLO,
            "RFC 9112, 6.3, rule 3: it overrides; CVE-2020-10109 (Twisted)",
        )
        for name, before, behind in (
            ("before", b"", b"\r\nContent-Length: 3"),
            ("after", b"chunked\r\nContent-Length: 3\r\nTransfer-Encoding: ", b""),
        )
    ),
    Row(
        "gzip_chunked",
        transfer(b"gzip, chunked", chunk(GZIP) + LAST),
        HELLO,
        "RFC 9112, 7.2",
    ),
    Row(
        "gzip_chunked_in_two_fields",
        transfer(
            b"X-GZip\r\nTransfer-Encoding: chunked",
            chunk(GZIP[:3]) + chunk(GZIP[3:]) + LAST,
        ),
        HELLO,
        "RFC 9112, 7; RFC 9110, 5.3",
    ),
    Row(
        "deflate_chunked",
        transfer(b"deflate, chunked", chunk(ZLIB) + LAST),
        HELLO,
        "RFC 9112, 7.2",
    ),
    Row(
        "gzip_chunked_cut",
        transfer(b"gzip, chunked", chunk(GZIP[:-1]) + LAST),
        Refused(CodingMalformed, "cut short"),
        "RFC 9112, 8; RFC 1952, 2.3",
    ),
    *(
        Row(f"transfer_{name}", transfer(value, b""), NOT_LAST, source)
        for name, value, source in (
            ("identity", b"identity", "RFC 9112, 6.3, rule 4: chunked is last"),
            ("gzip", b"gzip", "docs; RFC 9112, 6.3, rule 4, would read to the end"),
            ("chunked_gzip", b"chunked, gzip", "RFC 9112, 6.1: chunked is last"),
            (
                "chunked_identity",
                b"chunked, identity",
                "RFC 9112, 6.1: chunked is last",
            ),
            ("xchunked", b"xchunked", "RFC 9112, 7"),
            ("chunkedx", b"chunkedx", "RFC 9112, 7"),
            ("two_words", b"chunked chunked", "RFC 9112, 7"),
            ("parameter", b"chunked;q=1", "RFC 9112, 7.1: it has none"),
            ("quoted", b'"chunked"', "RFC 9112, 7"),
            ("vt", b"\x0bchunked", "CVE-2022-1705 (Go): whitespace was stripped"),
            ("nbsp", b"chunked\xa0", "RFC 9112, 7; as text, strip() takes it off"),
            ("empty", b"", "RFC 9112, 6.1"),
            ("commas", b",,", "RFC 9110, 5.6.1"),
            ("folded_apart", b"chun\r\n ked", "RFC 9112, 5.2"),
        )
    ),
    *(
        Row(
            f"transfer_{name}",
            field(b"Transfer-Encoding: " + value),
            CR_OR_NUL,
            "CVE-2022-1705 (Go): what is only nearly chunked",
        )
        for name, value in (("cr", b"\rchunked"), ("nul", b"chunked\0"))
    ),
    Row(
        "chunked_below",
        transfer(b"chunked, gzip, chunked", b""),
        Refused(HeadMalformed, "twice chunked"),
        "RFC 9112, 6.1: not more than once",
    ),
    Row(
        "transfer_br",
        transfer(b"br, chunked", b""),
        Refused(CodingMalformed, "is not known"),
        "RFC 9112, 6.1: no TE was sent",
    ),
    *(
        Row(
            f"transfer_in_1_0{name}",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n" + fields + b"\r\n",
            Refused(HeadMalformed, "in a response of HTTP/1.0"),
            "RFC 9112, 6.1: the framing is faulty, even with a length",
        )
        for name, fields in (("", b""), ("_with_length", b"Content-Length: 5\r\n"))
    ),
)

CHUNKS = (
    Row("chunks_none", CHUNKED + LAST, Whole(200), "RFC 9112, 7.1"),
    Row(
        "chunks_several",
        CHUNKED + chunk(b"he") + chunk(b"l") + chunk(b"lo") + LAST,
        HELLO,
        "RFC 9112, 7.1",
    ),
    Row(
        "chunks_like_framing",
        CHUNKED + chunk(LAST) + chunk(OK + FIVE) + LAST,
        Whole(200, LAST + OK + FIVE),
        "RFC 9112, 7.1: chunk-data is not looked at",
    ),
    Row(
        "chunk_in_both_cases",
        CHUNKED + b"aB\r\n" + b"x" * 0xAB + b"\r\n" + LAST,
        Whole(200, b"x" * 0xAB),
        "RFC 9112, 7.1: 1*HEXDIG",
    ),
    Row(
        "chunk_with_zeros",
        CHUNKED + b"0" * 15 + b"5\r\nhello\r\n" + LAST,
        HELLO,
        "RFC 9112, 7.1; docs: 16 digits",
    ),
    Row(
        "last_chunk_of_zeros",
        CHUNKED + b"5\r\nhello\r\n" + b"0" * 16 + b"\r\n\r\n",
        HELLO,
        "RFC 9112, 7.1: last-chunk = 1*(0)",
    ),
    *(
        Row(
            f"chunk_extension_{name}",
            CHUNKED + b"5" + extension + b"\r\nhello\r\n0" + extension + b"\r\n\r\n",
            HELLO,
            "RFC 9112, 7.1.1: what is not known is ignored",
        )
        for name, extension in (
            ("plain", b";a=b"),
            ("bare", b";a;c"),
            ("empty", b";"),
            ("spaced", b" ;\ta = b"),
            ("quoted", b';a="b;\\"c"'),
            ("like_a_size", b";9"),
        )
    ),
    Row(
        "chunk_space_behind",
        CHUNKED + b"5 \t\r\nhello\r\n0 \r\n\r\n",
        HELLO,
        "docs: spaces behind a size",
    ),
    Row(
        "chunk_line_of_1_kib",
        CHUNKED + b"5;" + b"x" * (KIB - 4) + b"\r\nhello\r\n" + LAST,
        HELLO,
        "docs: a line with a chunk's size",
    ),
    Row(
        "chunk_line_above_1_kib",
        CHUNKED + b"5;" + b"x" * (KIB - 1),
        Refused(BodyMalformed, "longer than the 1024 bytes"),
        "CVE-2023-39326 (Go): extensions without end",
    ),
    *(
        Row(f"chunk_size_{name}", CHUNKED + line + b"\r\n", NO_SIZE, source)
        for name, line, source in (
            ("minus", b"-5", "CVE-2017-13089, CVE-2017-13090 (wget)"),
            ("minus_long", b"-fffffff0", "CVE-2017-13089 (wget)"),
            ("plus", b"+5", "RFC 9112, 7.1; Python's int() takes it"),
            ("prefixed", b"0x5", "CVE-2022-24801 (Twisted)"),
            ("underscored", b"1_0", "RFC 9112, 7.1; Python's int() takes it"),
            ("indented", b" 5", "RFC 9112, 7.1"),
            ("missing", b"", "RFC 9112, 7.1: 1*HEXDIG"),
            ("only_extended", b";a=b", "RFC 9112, 7.1"),
            ("of_other_letters", b"5g", "RFC 9112, 7.1"),
            ("suffixed", b"5h", "RFC 9112, 7.1"),
            ("two_words", b"5 5", "RFC 9112, 7.1"),
            ("as_list", b"5,5", "RFC 9112, 7.1"),
            ("fraction", b"5.0", "RFC 9112, 7.1"),
            ("vt", b"5\x0b", "RFC 9112, 7.1; Python's int() takes it"),
            ("in_other_digits", "\uff15".encode(), "RFC 9112, 7.1: HEXDIG is ASCII"),
            ("cr", b"5\r", "RFC 9112, 7.1"),
            ("cr_and_word", b"5\r;a", "RFC 9112, 7.1"),
            ("nul", b"5\0", "RFC 9112, 7.1"),
            ("nul_in_extension", b"5;a\0", "CVE-2022-24801 (Twisted)"),
            ("cr_in_extension", b"5;a\rb", "CVE-2022-24801 (Twisted)"),
        )
    ),
    Row("chunk_size_before_lf", CHUNKED + b"5\n", NO_SIZE, "CVE-2025-22871 (Go)"),
    Row(
        "chunk_extension_before_lf",
        CHUNKED + b"5;a\n",
        NO_SIZE,
        "CVE-2025-22871 (Go)",
    ),
    Row("last_chunk_before_lf", CHUNKED + b"0\n", NO_SIZE, "CVE-2025-22871 (Go)"),
    Row("chunk_size_of_17", CHUNKED + b"1" + b"0" * 16 + b"\r\n", DIGITS, "docs"),
    Row("chunk_size_of_zeros", CHUNKED + b"0" * 17 + b"\r\n", DIGITS, "docs"),
    Row(
        "chunk_size_overflows",
        CHUNKED + b"f" * 16 + b"5\r\n",
        DIGITS,
        "RFC 9112, 7.1: anticipate large numerals",
    ),
    *(
        Row(f"chunk_end_{name}", CHUNKED + b"5\r\nhello" + end, NO_CRLF, source)
        for name, end, source in (
            ("of_other_bytes", b"X", "CVE-2025-43859 (h11)"),
            ("of_lf", b"\n", "RFC 9112, 7.1; docs: a chunk without its CRLF"),
            ("of_cr", b"\rX", "CVE-2025-43859 (h11)"),
            ("of_two_cr", b"\r\r", "CVE-2025-43859 (h11)"),
            ("of_the_next", b"0", "RFC 9112, 7.1"),
        )
    ),
    Row("chunk_claimed", CHUNKED + b"f" * 16 + b"\r\nhello", BODY_CUT, "RFC 9112, 8"),
    *(
        Row(f"chunks_cut_{name}", CHUNKED + said, BODY_CUT, "RFC 9112, 8")
        for name, said in (
            ("at_once", b""),
            ("in_a_size", b"5"),
            ("in_an_extension", b"5;a"),
            ("behind_a_size", b"5\r\n"),
            ("in_data", b"5\r\nhell"),
            ("behind_data", b"5\r\nhello"),
            ("in_crlf", b"5\r\nhello\r"),
            ("before_the_last", b"5\r\nhello\r\n"),
            ("in_the_last", b"5\r\nhello\r\n0\r\n"),
            ("in_the_end", b"5\r\nhello\r\n0\r\n\r"),
            ("in_a_trailer", b"0\r\nX: a"),
            ("behind_a_trailer", b"0\r\nX: a\r\n"),
        )
    ),
    Row(
        "trailers",
        CHUNKED + b"5\r\nhello\r\n0\r\nX: a\r\nY: b\r\n\r\n",
        HELLO,
        "RFC 9112, 7.1.2",
    ),
    Row(
        "trailers_with_framing",
        CHUNKED + b"5\r\nhello\r\n0\r\nContent-Length: 9\r\n"
        b"Transfer-Encoding: gzip\r\n\r\n",
        HELLO,
        "RFC 9110, 6.5.1: they do not frame what came before them",
    ),
    Row(
        "trailers_folded",
        CHUNKED + b"5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n",
        HELLO,
        "RFC 9112, 5.2",
    ),
    Row(
        "trailers_in_lf",
        CHUNKED + b"5\r\nhello\r\n0\r\nX: a\n\n",
        HELLO,
        "RFC 9112, 2.2",
    ),
    *(
        Row(
            f"trailers_{name}",
            CHUNKED + b"0\r\n" + line + b"\r\n",
            Refused(BodyMalformed, words),
            source,
        )
        for name, line, words, source in (
            ("without_colon", b"hello", "no colon", "RFC 9112, 5"),
            ("space_before_colon", b"X : a", "no field name", "RFC 9112, 5.1"),
            ("nul", b"X: a\0", "a bare CR or a NUL", "RFC 9110, 5.5"),
            ("cr", b"X: a\rb", "a bare CR or a NUL", "RFC 9112, 2.2"),
            ("next_response", OK[:-2], "no colon", "RFC 9112, 5"),
        )
    ),
)

INTERIM = (
    Row("interim", CONTINUE + OK + FIVE + b"hello", HELLO, "RFC 9110, 15.2"),
    Row(
        "interim_of_all_kinds",
        b"".join(b"HTTP/1.1 %d X\r\n\r\n" % s for s in (100, 102, 103, 104, 199))
        + OK
        + FIVE
        + b"hello",
        HELLO,
        "RFC 9110, 15.2: also one that is not known",
    ),
    Row(
        "interim_with_fields",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK + FIVE + b"hello",
        HELLO,
        "RFC 8297, 2",
    ),
    Row(
        "interim_with_length",
        b"HTTP/1.1 100 C\r\nContent-Length: 5\r\n\r\n" + OK + FIVE + b"hello",
        HELLO,
        "RFC 9112, 6.3, rule 1: it has no body",
    ),
    Row(
        "interim_with_chunks",
        b"HTTP/1.1 100 C\r\nTransfer-Encoding: chunked\r\n\r\n" + OK + FIVE + b"hello",
        HELLO,
        "RFC 9112, 6.3, rule 1: it has no body",
    ),
    Row("interim_20", CONTINUE * 20 + TO_CLOSE, ToClose(200), "docs: 20 are taken"),
    Row(
        "interim_21",
        CONTINUE * 21,
        Refused(HeadMalformed, "more than 20 interim"),
        "CVE-2021-3737 (CPython): 100 without end",
    ),
    Row(
        "interim_with_body",
        b"HTTP/1.1 100 C\r\nContent-Length: 5\r\n\r\nhello\r\n",
        NOT_HTTP,
        "RFC 9112, 6.3, rule 1",
    ),
    Row("interim_and_blank_line", CONTINUE + b"\r\n", NOT_HTTP, "RFC 9112, 2.2"),
    Row("interim_malformed", CONTINUE[:-2] + b"X : a\r\n", NO_NAME, "RFC 9112, 5.1"),
    Row("interim_alone", CONTINUE, HEAD_CUT, "RFC 9110, 15.2: a final one follows"),
    Row(
        "switching",
        b"HTTP/1.1 101 S\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        Refused(HeadMalformed, "not asked for"),
        "RFC 9110, 15.2.2: in answer to Upgrade, which was not sent",
    ),
)

LIMITS = (
    Row(
        "line_of_100_kib",
        OK + b"X: " + b"y" * (LINE - 5) + b"\r\n" + FIVE + b"hello",
        HELLO,
        "docs: a line",
    ),
    Row(
        "line_above_100_kib",
        OK + b"X: " + b"y" * (LINE - 2),
        Refused(HeadMalformed, "longer than the 102400 bytes"),
        "CVE-2013-1752 (CPython), CVE-2021-31525 (Go): a line without end",
    ),
    Row(
        "status_line_above_100_kib",
        b"HTTP/1.1 200 " + b"y" * (LINE - 12),
        Refused(HeadMalformed, "longer than the 102400 bytes"),
        "CVE-2013-1752 (CPython)",
    ),
    Row(
        "head_of_300_kib",
        filled(HEAD, b"Content-Length: 5\r\n") + b"hello",
        HELLO,
        "docs: heads in all",
    ),
    Row(
        "head_above_300_kib",
        filled(HEAD + 1),
        Refused(HeadMalformed, "more than 307200 bytes of fields"),
        "CVE-2023-38039 (curl): fields without end",
    ),
    Row(
        "heads_above_300_kib",
        CONTINUE + filled(HEAD + 1 - len(CONTINUE)),
        Refused(HeadMalformed, "more than 307200 bytes of fields"),
        "CVE-2023-38039 (curl)",
    ),
    Row(
        "fields_5000",
        OK + b"X:\r\n" * 4999 + FIVE + b"hello",
        HELLO,
        "docs: fields of one head",
    ),
    Row(
        "fields_5001",
        OK + b"X:\r\n" * 5001,
        Refused(HeadMalformed, "more than 5000 fields"),
        "CVE-2023-38039 (curl)",
    ),
    Row(
        "trailers_5001",
        CHUNKED + b"0\r\n" + b"X:\r\n" * 5001,
        Refused(BodyMalformed, "more than 5000 fields"),
        "CVE-2013-1752 (CPython): the trailers likewise",
    ),
    Row(
        "trailers_of_300_kib",
        filled(HEAD, b"Transfer-Encoding: chunked\r\n")
        + b"0\r\n"
        + filled(HEAD + len(OK))[len(OK) :],
        Whole(200),
        "docs: trailers once more",
    ),
    Row(
        "trailers_above_300_kib",
        CHUNKED + b"0\r\n" + filled(HEAD + 1 + len(OK))[len(OK) :],
        Refused(BodyMalformed, "more than 307200 bytes of fields"),
        "CVE-2023-38039 (curl): the trailers likewise",
    ),
    Row(
        "trailers_above_100_kib",
        CHUNKED + b"0\r\nX: " + b"y" * (LINE - 2),
        Refused(BodyMalformed, "longer than the 102400 bytes"),
        "CVE-2013-1752 (CPython): the trailers likewise",
    ),
)

HEADS_CUT_SHORT = (
    Row("nothing", b"", CutShort(NothingCame), "RFC 9112, 8"),
    *(
        Row(f"head_cut_{name}", said, HEAD_CUT, "RFC 9112, 8; docs: curl has 0 for it")
        for name, said in (
            ("in_http", b"HTT"),
            ("in_a_version", b"HTTP/1."),
            ("in_a_status", b"HTTP/1.1 20"),
            ("in_a_reason", b"HTTP/1.1 200 O"),
            ("in_cr", b"HTTP/1.1 200 OK\r"),
            ("behind_a_line", OK),
            ("in_a_name", OK + b"Content-Le"),
            ("in_a_value", OK + b"Content-Length: 5"),
            ("behind_a_field", OK + b"Content-Length: 5\r\n"),
            ("in_the_last_cr", OK + b"Content-Length: 5\r\n\r"),
            ("in_cr_alone", b"HTTP/1.1 200 OK\rX: a\r\rhello"),
        )
    ),
)

CONTENT_CODINGS = (
    *(
        Row(name, said, outcome, source, decompress=True)
        for name, said, outcome, source in (
            ("gzip", coded(b"gzip", GZIP), HELLO, "RFC 9110, 8.4.1.3"),
            ("gzip_in_any_case", coded(b"GZip", GZIP), HELLO, "RFC 9110, 8.4.1"),
            ("x_gzip", coded(b"x-gzip", GZIP), HELLO, "RFC 9110, 8.4.1.3"),
            ("deflate", coded(b"deflate", ZLIB), HELLO, "RFC 9110, 8.4.1.2"),
            (
                "deflate_bare",
                coded(b"deflate", RAW),
                HELLO,
                "RFC 9110, 8.4.1.2: some send it without the zlib format",
            ),
            ("identity", coded(b"identity", b"hello"), HELLO, "RFC 9110, 8.4.1"),
            (
                "gzip_of_nothing",
                coded(b"gzip", b""),
                Whole(200),
                "docs: no body at all",
            ),
            (
                "gzip_in_members",
                coded(b"gzip", GZIP + GZIP),
                Whole(200, b"hello" * 2),
                "RFC 1952, 2.2",
            ),
            (
                "gzip_padded",
                coded(b"gzip", GZIP + b"\0" * 9),
                HELLO,
                "RFC 1952; as gzip",
            ),
            (
                "gzip_then_deflate",
                coded(b"gzip, deflate", zlib.compress(GZIP)),
                HELLO,
                "RFC 9110, 8.4: in the order in which they were applied",
            ),
            (
                "gzip_to_close",
                OK + b"Content-Encoding: gzip\r\n\r\n" + GZIP,
                ToClose(200, b"hello"),
                "RFC 9112, 6.3, rule 8",
            ),
            (
                "gzip_to_close_cut",
                OK + b"Content-Encoding: gzip\r\n\r\n" + GZIP[:-1],
                CutShort(CodingMalformed),
                "RFC 9112, 8; RFC 1952, 2.3",
            ),
            (
                "gzip_in_chunks",
                OK
                + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
                + chunk(GZIP[:9])
                + chunk(GZIP[9:])
                + LAST,
                HELLO,
                "RFC 9112, 7.1",
            ),
            (
                "gzip_five_times",
                coded(b"gzip, " * 4 + b"gzip", times(gzip.compress, 5, b"hello")),
                HELLO,
                "docs: codings on top of each other",
            ),
            (
                "gzip_six_times",
                coded(b"gzip, " * 5 + b"gzip", b"", 99),
                Refused(CodingMalformed, "more than 5 codings"),
                "CVE-2022-32206, CVE-2023-23916 (curl), CVE-2025-66418 (urllib3)",
            ),
            (
                "gzip_in_six_fields",
                OK + b"Content-Encoding: gzip\r\n" * 6 + b"\r\n",
                Refused(CodingMalformed, "more than 5 codings"),
                "CVE-2023-23916 (curl): it counted those of one field alone",
            ),
            (
                "gzip_bomb",
                coded(b"gzip", BOMB),
                Refused(TooLarge, "more than 100 times", exactly=False),
                "CVE-2025-66471 (urllib3); docs: how many times a body grows",
            ),
            (
                "coding_not_known",
                coded(b"br", b"", 5),
                Refused(CodingMalformed, "is not known"),
                "RFC 9110, 8.4: it was not asked for",
            ),
            (
                "gzip_is_not",
                coded(b"gzip", b"<h", 5),
                Refused(CodingMalformed, "incorrect header check"),
                "RFC 1952, 2.3.1",
            ),
            (
                "gzip_cut",
                coded(b"gzip", GZIP[:-1]),
                Refused(CodingMalformed, "cut short"),
                "RFC 1952, 2.3: complete by its length, and nevertheless not whole",
            ),
            (
                "gzip_of_another_sum",
                coded(b"gzip", GZIP[:-8] + b"\0\0\0\0", 4),
                Refused(CodingMalformed, "incorrect data check"),
                "RFC 1952, 2.3.1: CRC32",
            ),
            (
                "gzip_of_another_size",
                coded(b"gzip", GZIP[:-1] + b"\x01"),
                Refused(CodingMalformed, "incorrect length check"),
                "RFC 1952, 2.3.1: ISIZE",
            ),
            (
                "gzip_and_more",
                coded(b"gzip", GZIP + b"x", 5),
                Refused(CodingMalformed, "something behind"),
                "RFC 1952, 2.2: members, and nothing else",
            ),
            (
                "deflate_and_more",
                coded(b"deflate", ZLIB + b"x", 5),
                Refused(CodingMalformed, "something behind"),
                "RFC 1950, 2.2",
            ),
            (
                "deflate_cut",
                coded(b"deflate", ZLIB[:-1]),
                Refused(CodingMalformed, "cut short"),
                "RFC 1950, 2.2",
            ),
            (
                "gzip_cut_by_length",
                coded(b"gzip", GZIP[:-1], 1),
                BODY_CUT,
                "RFC 9112, 8",
            ),
        )
    ),
    Row("gzip_not_asked_for", coded(b"gzip", GZIP), Whole(200, GZIP), "docs"),
    Row("br_not_asked_for", coded(b"br", b"hello"), HELLO, "docs: as it came"),
    Row(
        "gzip_to_head",
        coded(b"gzip", b"", 25),
        Whole(200),
        "RFC 9112, 6.3",
        "HEAD",
        True,
    ),
)

ROWS = (
    STATUS_LINES
    + FIELDS
    + LENGTHS
    + TRANSFER_CODINGS
    + CHUNKS
    + INTERIM
    + LIMITS
    + HEADS_CUT_SHORT
    + CONTENT_CODINGS
)


class Body:
    """
    A sink that keeps the body.
    """

    def __init__(self) -> None:
        self.body = bytearray()

    def begin(self, head: HeadCame) -> None:
        """Nothing to do."""

    def write(self, data: bytes) -> None:
        self.body += data


class Fetching:
    """
    One row on its way through a `FetchProtocol`.
    """

    def __init__(self, row: Row) -> None:
        self.clock = Clock()
        self.transport = StringTransport()
        self.sink = Body()
        self.outcomes: list[HeadCame | BaseException] = []
        self.protocol = FetchProtocol(
            Exchange(b"request", row.method, decompress=row.decompress),
            lambda head: self.sink,
            clock=self.clock,
            timeout=SILENCE_SECONDS,
        )
        self.protocol.done.addCallbacks(
            self.outcomes.append, lambda failure: self.outcomes.append(failure.value)
        )
        self.protocol.makeConnection(self.transport)

    @property
    def over(self) -> bool:
        """Whether the client has closed by itself."""
        return self.transport.disconnecting

    def hear(self, piece: bytes) -> None:
        """Have bytes come; none do once the connection was aborted."""
        if not self.transport.disconnected:
            self.protocol.dataReceived(piece)

    def lose(self, why: BaseException) -> None:
        """End the connection; who aborted it is told that, whatever happened."""
        if self.transport.disconnected:
            why = ConnectionAborted()
        self.protocol.connectionLost(Failure(why))

    def fin(self) -> None:
        """The peer ends its side."""
        if not self.transport.disconnected:
            self.protocol.readConnectionLost()
        self.lose(ConnectionDone())

    def close(self) -> None:
        """Both sides end at once, as where no direction can be closed alone."""
        self.lose(ConnectionDone())

    def reset(self) -> None:
        """The peer resets the connection."""
        self.lose(ConnectionLost())

    def silence(self) -> None:
        """Nothing comes any more."""
        self.clock.advance(SILENCE_SECONDS - 1)
        self.clock.advance(1)
        self.lose(ConnectionDone())


ENDS = {
    Fetching.fin: "FIN",
    Fetching.close: "FIN",
    Fetching.reset: "RST",
    Fetching.silence: "silence",
}


def cut(said: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The pieces between these places."""
    return [said[a:b] for a, b in pairwise(sorted({0, len(said), *cuts}))]


class VectorTests(SynchronousTestCase):
    """Every row, however it comes and however the connection ends."""

    def check(self, row: Row) -> None:
        """Have a row come in all ways."""
        said = row.said
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        size = 1 if len(said) <= LONG else PIECE
        # The last byte is by itself: nothing may be over before it.
        ways = [("whole", cut(said, ())), ("in pieces", self.pieces(said, size))]
        for _ in range(ROUNDS):
            cuts = [chance.randint(0, len(said)) for _ in range(chance.randint(1, 6))]
            ways.append((f"cut at {sorted(cuts)} (seed {seed})", cut(said, cuts)))
        if isinstance(row.outcome, Whole | Refused):
            ways.append(("with more behind", [said + BEHIND]))
        for way, pieces in ways:
            for end, kind in ENDS.items():
                words = f"{row.name} ({row.source}), {way}, {end.__name__}"
                self.check_one(row, pieces, end, kind, words)

    @staticmethod
    def pieces(said: bytes, size: int) -> list[bytes]:
        """Pieces of this size, and the last byte alone."""
        return cut(said, [*range(0, len(said), size), max(len(said) - 1, 0)])

    def check_one(
        self,
        row: Row,
        pieces: list[bytes],
        end: Callable[[Fetching], None],
        kind: str,
        words: str,
    ) -> None:
        """Have a row come in one way, and end in one."""
        outcome = row.outcome
        fetching = Fetching(row)
        last = len(pieces) - 1
        exactly = not isinstance(outcome, Refused) or outcome.exactly
        for number, piece in enumerate(pieces):
            if exactly:
                self.assertFalse(fetching.over, f"{words}: over before {number}/{last}")
            fetching.hear(piece)
        by_itself = isinstance(outcome, Whole | Refused)
        self.assertEqual(fetching.over, by_itself, f"{words}: over before the end")
        end(fetching)
        self.assertEqual(len(fetching.outcomes), 1, words)
        self.check_outcome(outcome, fetching, kind, words)
        self.assertEqual(fetching.clock.getDelayedCalls(), [], words)
        self.assertEqual(self.flushLoggedErrors(), [], words)

    def check_outcome(
        self,
        outcome: Whole | ToClose | CutShort | Refused,
        fetching: Fetching,
        kind: str,
        words: str,
    ) -> None:
        """What came of it, with this end."""
        (seen,) = fetching.outcomes
        if isinstance(outcome, Whole | ToClose):
            self.assertEqual(bytes(fetching.sink.body), outcome.body, words)
        if isinstance(outcome, Refused):
            self.assertIs(type(seen), outcome.kind, f"{words}: {seen!r}")
            self.assertIn(outcome.words, str(seen), words)
        elif isinstance(outcome, Whole) or (
            isinstance(outcome, ToClose) and kind == "FIN"
        ):
            assert isinstance(seen, HeadCame), f"{words}: {seen!r}"
            self.assertEqual(seen.status, outcome.status, words)
        elif kind == "FIN":
            assert isinstance(outcome, CutShort)
            self.assertIs(type(seen), outcome.kind, f"{words}: {seen!r}")
        else:
            expected = ConnectionWasReset if kind == "RST" else TimedOut
            self.assertIs(type(seen), expected, f"{words}: {seen!r}")

    def test_names(self) -> None:
        """Each row has a name of its own, and says where it is from."""
        self.assertEqual(len({row.name for row in ROWS}), len(ROWS))
        self.assertEqual([row for row in ROWS if not row.source], [])


def _test_of(row: Row) -> Callable[[VectorTests], None]:
    def test(self: VectorTests) -> None:
        self.check(row)

    test.__name__ = f"test_row_{row.name}"
    test.__qualname__ = f"VectorTests.{test.__name__}"
    test.__doc__ = f"{row.source}."
    return test


for _row in ROWS:
    setattr(VectorTests, f"test_row_{_row.name}", _test_of(_row))
