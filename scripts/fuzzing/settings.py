"""
Options, settings and lists.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
from dataclasses import fields
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

from twisted.internet.address import IPv4Address as TcpAddress
from twisted.python.usage import UsageError

from fuzzing.places import PLACE_WORDS
from fuzzing.targets import Given, target, told
from sockproto import checks, peers, spelling
from sockproto.errors import SettingError
from sockproto.options import Options
from sockproto.reporting import Log
from sockproto.settings import Settings
from sockproto.wire.framing import Framing

if TYPE_CHECKING:
    from collections.abc import Callable


OPTION_WORDS = tuple(
    b"--%b=" % name.encode()
    for name in (
        *("hello", "echo", "udp", "udp-echo", "allow", "deny", "delay", "framing"),
        *("max-name", "greeting", "answer", "backlog", "max-connections", "log"),
        *("max-per-peer", "refusal", "idle", "stalled", "rate", "total-rate", "drain"),
        *("udp-rate", "udp-total-rate"),
    )
)


@target(
    b"--hello=tcp:9999\0--delay\x000.5\0--drain=1e3",
    b"--allow=192.0.2.0/24,unix\0--deny\x00::/0\0--rate=64K\0--udp-any-port",
    b"--greeting=\\x41\\n\0--answer=NAME \\\\\0--framing=line\0--max-name=5",
    b"--idle=nan\0--stalled=inf\0--udp-rate=1_0\0--log=none\0--backlog=+3",
    words=(*OPTION_WORDS, *PLACE_WORDS, b"1e999", b"-1", b"NAME", b"\\x", b"9" * 50),
)
def options(given: Given) -> None:
    """
    Arguments are settings, or one line says what is wrong with them.
    """
    parse: Callable[[list[str]], None] = (parsed := Options()).parseOptions
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            parse(given.words)
    except UsageError as error:
        # What there is no option for, `getopt` says as it came.
        if str(error).startswith("--"):
            told(error)
        return
    except SystemExit:
        assert any(word[:3] in {"--h", "--v"} for word in given.words), given.words
        return
    check_settings(parsed.settings)


FIELDS = [each.name for each in fields(Settings)]
ODD: tuple[object, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 10**400, 10**5000),
    *(0.0, -0.0, 0.5, 2.5, 1e308, math.inf, -math.inf, math.nan, 1j),
    *(b"", b"NAME", b"Hello, NAME!", "NAME", "line", "none", "unix", "tcp:9999"),
    *((), [], {}, {1}, ("unix", "::/0"), ["tcp:1"], (b"x",), object, Ellipsis),
    *(Framing.LINE, Log.NONE, "\udcff", "\ud800", bytearray(b"x"), memoryview(b"x")),
)


def odd_values(given: Given) -> list[tuple[int, object]]:
    """A number and a value of any type, or a text, over and over."""
    found: list[tuple[int, object]] = []
    at = 0
    while at + 1 < len(given.stream) and len(found) < 8:
        number, which = given.stream[at : at + 2]
        at += 2
        if which < len(ODD):
            found.append((number, ODD[which]))
        else:
            text = os.fsdecode(given.stream[at : at + which - len(ODD)])
            at += which - len(ODD)
            found.append((number, text))
    return found


@target(b"\x04\x0c\x0a\x02", b"\x00\x38tcp:9999", b"\x0e\x34192.0.2.0/24")
def settings(given: Given) -> None:
    """
    Settings are made of values of any type, or one of them is refused by its name.
    """
    values = {FIELDS[n % len(FIELDS)]: value for n, value in odd_values(given)}
    try:
        made = Settings.only(**values) if given.has(0) else Settings(**values)  # type: ignore[arg-type]
    except SettingError as error:
        told(error, *FIELDS)
        return
    check_settings(made)


def check_settings(made: Settings) -> None:
    """Settings are themselves when they are made of what they hold."""
    again = Settings(**{name: getattr(made, name) for name in FIELDS})
    assert again == made, (made, again)
    assert made.drain >= made.delay >= 0
    assert made.rate == 0 or made.rate >= 1
    assert hash(made) == hash(again)


@target(b"\x00\x0c\x01\x02\x02\x18\x03\x03", b"\x04\x24")
def bounds(given: Given) -> None:
    """
    A value of any type is within its bounds, or is refused by its name.
    """
    tests: list[Callable[[object], bool]] = [
        lambda v: 0 <= checks.seconds("x", v) < math.inf,
        lambda v: 0 < checks.seconds("x", v, above_zero=True) < math.inf,
        lambda v: 0 < checks.above_zero("x", v) < math.inf,
        lambda v: checks.rate("x", v) == 0 or 1 <= checks.rate("x", v) < math.inf,
        lambda v: type(checks.whole_number("x", v, 1, 9)) is int,
        lambda v: checks.choice("x", Framing, v) in Framing,
        lambda v: isinstance(checks.as_bytes("x", v), bytes),
    ]
    for number, value in odd_values(given):
        try:
            assert tests[number % len(tests)](value)
        except SettingError as error:
            told(error, "x")


@target(b"a\\n\\x41\\\\", b"\\", b"64K", b"1.5m", b"::ffff:192.0.2.1%x", b"\x1b[2J")
def texts(given: Given) -> None:
    """
    Escapes come out as the bytes they stand for, or are refused; what is spelled for
    people is one printable line; a rate is a number.
    """
    text = given.text
    with contextlib.suppress(ValueError):
        plain = spelling.unescape(text)
        assert "\\" in text or plain == text.encode("utf-8", "surrogateescape")
    escaped = "".join(f"\\x{byte:02x}" for byte in given.stream)
    assert spelling.unescape(escaped) == given.stream
    assert spelling.spell(given.stream, given.other).isprintable()
    shown = spelling.spell_for_terminal(text)
    assert spelling.spell_for_terminal(shown) == shown
    controls = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]"
    assert not re.search(controls, shown)
    assert spelling.host_and_port(text, 9).endswith(":9") or text.endswith("]:9")
    with contextlib.suppress(ValueError):
        assert isinstance(spelling.bytes_per_second(text), float)


@target(
    b"192.0.2.0/24,2001:db8::/32, unix",
    b"::ffff:192.0.2.0/120",
    b"::/0,0.0.0.0/0",
    b"::ffff:0:0/95",
    words=(b"192.0.2.1", b"/32", b"::1/128", b"unix", b"::ffff:", b",", b"/0"),
)
def networks(given: Given) -> None:
    """
    A list is refused by its name, or is the same when it is spelled and read again;
    an address is in it just where Python's own networks say so.
    """
    text, _, host = given.text.partition("\0")
    try:
        made = peers.Networks("allow", text)
    except SettingError as error:
        told(error, "allow")
        return
    assert peers.Networks("x", str(made)) == made, str(made)
    assert peers.Networks("x", list(made)) == made, str(made)
    assert made
    listed = [ip_network(word) for word in made if word != peers.UNIX]
    assert (peers.UNIX in made) == (len(listed) < len(list(made)))
    probes = [each.network_address for each in listed]
    probes += [each.broadcast_address for each in listed]
    probes += [each.network_address - 1 for each in listed if int(each.network_address)]
    probes += [IPv4Address(given.sizes), IPv6Address(given.sizes * 4)]
    with contextlib.suppress(ValueError):
        probes.append(ip_address(host))
    for probe in probes:
        plain = getattr(probe, "ipv4_mapped", None) or probe
        assert (str(probe) in made) == any(plain in each for each in listed), probe
        if isinstance(plain, IPv4Address):
            assert made.has(TcpAddress("TCP", str(plain), 1)) == (str(plain) in made)
            assert peers.peer_group(f"::ffff:{plain}") == peers.peer_group(str(plain))
    group = peers.peer_group(host)
    assert group is None or len(group) == 4 or len(group) >= 8, host
