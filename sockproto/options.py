"""
The services' command line: argv becomes settings, for twistd, twist and serve.
"""

from __future__ import annotations

import sys
from typing import Any, ClassVar

from twisted.python import usage

from sockproto.errors import SettingError
from sockproto.settings import FACING_NETWORK, Settings
from sockproto.spelling import bytes_per_second, unescape
from sockproto.version import __version__

__all__ = ["Options"]

_DEFAULTS = Settings()
_FACING = FACING_NETWORK

LONGEST_SHOWN = 200
"""Characters of a wrong value that an error shows."""

_EPILOGUE = """\
PLACE is a server endpoint description: tcp:9999, tcp:9999:interface=127.0.0.1,
tcp6:9999, unix:/run/hello.sock, ssl:..., tls:..., systemd:..., haproxy:tcp:9999.
An IPv6 interface is written interface=[::1]. Where any place is given, only the
services whose places are given run; else hello, echo and udp do, on the places
shown. Text takes the escapes \\n \\r \\t \\\\ \\xNN. A limit of 0 is none; one with
a * holds where a place faces a network (haproxy: always does), and not on loopback
or unix sockets, unless it is given. NETWORKS are such as 192.0.2.0/24,2001:db8::/32
or unix."""


def _default(places: tuple[str, ...]) -> str:
    return " ".join(places)


class Options(usage.Options):
    """
    Parses the options; `settings` is what they say, once they are parsed.
    """

    synopsis = "Usage: twistd [options] sockproto [options]"
    longdesc = _EPILOGUE

    optParameters: ClassVar[list[list[Any]]] = [
        ["delay", None, "1", "Seconds between a name's arrival and its answer."],
        ["framing", None, "auto", "auto, chunk, line or netstring."],
        ["max-name", None, "1024", "Bytes of the longest name."],
        ["greeting", None, "Welcome!", "What hello says first; empty for nothing."],
        ["answer", None, "Hello, NAME!", "What is said to NAME."],
        ["backlog", None, "511", "Connections that may wait to be accepted."],
        ["max-connections", None, None, "Connections at once, in all. [by open files]"],
        ["max-per-peer", None, None, "Connections at once of one peer. [a quarter*]"],
        ["refusal", None, "", "What a refused peer is told; empty for a reset."],
        [
            "idle",
            None,
            None,
            f"Seconds without a byte that end a connection. [{_FACING.idle:g}*]",
        ],
        [
            "stalled",
            None,
            None,
            f"Seconds that a peer may take nothing. [{_FACING.stalled:g}*]",
        ],
        ["rate", None, "0", "Bytes a second of one connection, each way; 64K, 1M."],
        ["total-rate", None, "0", "Bytes a second of all connections, each way."],
        [
            "udp-rate",
            None,
            None,
            f"Datagrams a second of one source. [{_FACING.udp_rate:g}*]",
        ],
        [
            "udp-total-rate",
            None,
            None,
            f"Datagrams a second of all. [{_FACING.udp_total_rate:g}*]",
        ],
        ["drain", None, "10", "Seconds that connections get to end when stopping."],
        ["log", None, "connections", "none, connections or messages."],
    ]
    optFlags: ClassVar[list[list[Any]]] = [
        ["udp-any-port", None, "Answer datagrams from ports below 1024 too."],
    ]

    settings: Settings

    def __init__(self) -> None:
        super().__init__()
        self._repeated: dict[str, list[str]] = {}

    def _add(self, name: str, value: str) -> None:
        self._repeated.setdefault(name, []).append(value)

    def opt_hello(self, place: str) -> None:
        self._add("hello", place)

    def opt_echo(self, place: str) -> None:
        self._add("echo", place)

    def opt_udp(self, place: str) -> None:
        self._add("udp", place)

    def opt_udp_echo(self, place: str) -> None:
        self._add("udp_echo", place)

    def opt_allow(self, networks: str) -> None:
        """NETWORKS whose peers alone may connect; may be repeated."""
        self._add("allow", networks)

    def opt_deny(self, networks: str) -> None:
        """NETWORKS whose peers may not connect; may be repeated."""
        self._add("deny", networks)

    opt_hello.__doc__ = (
        f"PLACE of a hello service; may be repeated. [{_default(_DEFAULTS.hello)}]"
    )
    opt_echo.__doc__ = (
        f"PLACE of an echo service; may be repeated. [{_default(_DEFAULTS.echo)}]"
    )
    opt_udp.__doc__ = (
        "udp:PORT[:interface=ADDRESS] of a UDP hello service; may be repeated."
        f" [{_default(_DEFAULTS.udp)}]"
    )
    opt_udp_echo.__doc__ = "The same of a UDP echo service (RFC 862); may be repeated."

    def opt_version(self) -> None:
        """Display sockproto's version and exit."""
        print(f"sockproto {__version__}")  # noqa: T201 - as usage.Options does
        sys.exit(0)

    def parseArgs(self, *args: str) -> None:
        if args:
            raise usage.UsageError(
                f"{args[0]!r} was given, where only options are allowed"
            )

    def postOptions(self) -> None:
        values: dict[str, object] = {
            name: tuple(given) for name, given in self._repeated.items()
        }
        values["udp_any_port"] = bool(self["udp-any-port"])
        for option, convert in (
            ("delay", float),
            ("drain", float),
            ("max-name", int),
            ("backlog", int),
            ("max-connections", int),
            ("max-per-peer", int),
            ("idle", float),
            ("stalled", float),
            ("rate", bytes_per_second),
            ("total-rate", bytes_per_second),
            ("udp-rate", float),
            ("udp-total-rate", float),
            ("refusal", unescape),
            ("framing", str),
            ("log", str),
            ("greeting", unescape),
            ("answer", unescape),
        ):
            text = self[option]
            if text is None:
                continue
            try:
                values[option.replace("-", "_")] = convert(text)
            except ValueError as error:
                if convert is unescape:
                    raise usage.UsageError(
                        f"--{option}: {text!r} was given ({error}),"
                        r" where the escapes \n \r \t \\ \xNN are allowed"
                    ) from error
                # Settings say what is allowed.
                values[option.replace("-", "_")] = text
        try:
            self.settings = Settings.only(**values)
        except SettingError as error:
            option = error.name.replace("_", "-")
            seen = repr(self.get(option) or error.seen)
            if len(seen) > LONGEST_SHOWN:
                seen = f"{seen[:LONGEST_SHOWN]}... ({len(seen)} characters)"
            raise usage.UsageError(
                f"--{option}: {seen} was given, where {error.allowed} is allowed"
            ) from error
