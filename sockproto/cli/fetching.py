"""
The command `fetch`: the head to standard output, the body to a file.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sockproto import fetching
from sockproto.cli.account import Account, Narrated
from sockproto.cli.console import Output, read_input, stdin_is_terminal
from sockproto.cli.running import complain, on_interrupt, run
from sockproto.cli.standard_files import say
from sockproto.errors import (
    CannotRead,
    CannotWrite,
    HeaderNotSendable,
    SettingError,
    SockprotoError,
    StatusRefused,
    UrlMalformed,
)
from sockproto.fetching import Saving, Url
from sockproto.wire.request import method_of
from sockproto.wire.response import BodyFraming

if TYPE_CHECKING:
    from collections.abc import Callable

    from sockproto.fetching.asking import Header
    from sockproto.wire.response import HeadCame

__all__ = ["FetchOptions", "fetch"]

STDOUT = "-"

PROGRESS_AFTER = 1.0
"""Seconds: what is over sooner has no bar."""

_RESOLVE = re.compile(r"(?P<host>\[[^\]]+\]|[^:/?#@]+):(?P<port>[0-9]{1,5}):(?P<to>.+)")

_USER = re.compile(r"(?<=//)[^/?#]*@")
"""What an error that names a URL does not tell."""


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """
    What the command line says, by the names of its options.
    """

    urls: tuple[str, ...]
    outputs: tuple[str, ...]
    remote_name: bool
    include: bool
    head: bool
    verbose: bool
    headers: tuple[str, ...]
    method: str | None
    data: tuple[str, ...]
    user: str | None
    user_agent: str | None
    location: bool
    max_redirs: int
    fail: bool
    insecure: bool
    cacert: str | None
    family: int | None
    resolve: tuple[str, ...]
    unix_socket: str | None
    timeout: float
    connect_timeout: float | None
    max_time: float | None
    max_filesize: int | None
    compressed: bool
    raw: bool
    raw_request: str | None
    report: str | None


class _Body:
    """Where one body goes: a file, standard output or nowhere; its head is shown."""

    def __init__(
        self, options: FetchOptions, output: str | None, url: str, stdout: Output
    ) -> None:
        self._options = options
        self._stdout = stdout
        self._to_stdout = output == STDOUT
        asks_head = options.head or options.method == "HEAD"
        self._shows_head = (
            not self._to_stdout or options.include or asks_head  # all there is
        )
        self._shows_head &= options.report != STDOUT
        self.saving: Saving | None = None
        if not self._to_stdout:
            name = output or Url.parse(url).file_name
            self.saving = Saving(name, replace=output is not None)
        self.wanted = not asks_head
        self.size = 0
        self._total: int | None = None
        self._bar: Any = None
        self._bar_due = float("inf")

    def begin(self, head: HeadCame) -> None:
        if self._shows_head:
            self._stdout.write(head.raw)
        if self._options.fail and head.status >= 400:
            raise StatusRefused(head.status, head.reason)
        if self.saving is not None and self.wanted:
            self.saving.begin(head)
        if sys.stderr.isatty() and not (self._to_stdout and self._stdout.is_terminal):
            self._bar_due = time.monotonic() + PROGRESS_AFTER
        coded = self._options.compressed and head.values(b"content-encoding")
        if head.framing == BodyFraming.LENGTH and not coded:
            self._total = head.length

    def write(self, data: bytes) -> None:
        if self.saving is not None:
            self.saving.write(data)
        else:
            self._stdout.write(data)
        self._took(len(data))

    @property
    def splice(self) -> Callable[[int, int], None] | None:
        return None if self.saving is None else self._splice

    def _splice(self, pipe: int, size: int) -> None:
        assert self.saving is not None
        self.saving.splice(pipe, size)
        self._took(size)

    def _took(self, size: int) -> None:
        self.size += size
        if self._bar is not None:
            self._bar.update(size)
        elif time.monotonic() >= self._bar_due:
            self._show_bar()

    def _show_bar(self) -> None:
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # a thread of its own, for bars that get stuck
        self._bar = tqdm(
            initial=self.size,
            total=self._total,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            leave=False,
        )

    def _hide_bar(self) -> None:
        self._bar_due = float("inf")
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def complete(self) -> str | None:
        """The body is whole: put it at its place, and say where that is."""
        self._hide_bar()
        if self.saving is None or not self.wanted:
            return None
        return self.saving.complete()

    def give_up(self) -> str | None:
        """The body is not whole: keep what came, and say where."""
        self._hide_bar()
        if self.saving is None:
            return None
        self.saving.give_up()
        kept = self.saving.kept
        return f"what came is kept as {kept!r}" if kept else None


def fetch(options: FetchOptions) -> NoReturn:
    """
    Run `sockproto fetch`.
    """

    async def exchanges(reactor: Any, stdout: Output) -> int:
        common = _arguments(options)
        outputs = _outputs(options)
        reports: list[dict[str, Any]] = []
        statuses: list[int] = []
        bodies: list[_Body] = []
        on_interrupt(lambda: bodies[-1].give_up() if bodies else None)
        for url, output in zip(options.urls, outputs, strict=True):
            account = _account(options, url)
            place = None
            failed: SockprotoError | None = None
            try:
                body = _Body(options, output, url, stdout)
                body.wanted &= method_of(common["raw_request"] or b"") != "HEAD"
                bodies.append(body)
                await fetching.fetch(reactor, url, to=body, observer=account, **common)
                place = body.complete()
            except SockprotoError as caught:
                failed = caught
                if bodies and (kept := bodies[-1].give_up()):
                    say(f"sockproto: fetch: {kept}")
                which = f"{_USER.sub('', url)}: " if len(options.urls) > 1 else ""
                complain("fetch", f"{which}{failed}", failed.exit_status)
            if place is not None:
                say(f"saved to {place!r}")
            statuses.append(failed.exit_status if failed else 0)
            if account is not None:
                size = bodies[-1].size if bodies else 0
                reports.append(account.report(statuses[-1], failed, place, size))
            bodies.clear()
            if isinstance(failed, CannotWrite) and failed.where == "standard output":
                break
        if options.report is not None:
            try:
                _write_report(options.report, reports, stdout)
            except SockprotoError as error:
                complain("fetch", error, error.exit_status)
                statuses.append(error.exit_status)
        return next((status for status in statuses if status), 0)

    run("fetch", exchanges)


def _account(options: FetchOptions, url: str) -> Account | None:
    if options.verbose:
        return Narrated(url)
    return Account(url) if options.report is not None else None


def _outputs(options: FetchOptions) -> list[str | None]:
    """Where each URL's body goes: an -o each, and the last one's `-` for the rest."""
    given, wanted = list(options.outputs), len(options.urls)
    if len(given) > wanted:
        raise SettingError("-o", len(given), f"at most one a URL, {wanted} in all,")
    if "" in given:
        raise SettingError("-o", "", "the name of a file")
    if options.report == STDOUT and STDOUT in given:
        raise SettingError("--report", STDOUT, "a file with -o -")
    rest = STDOUT if given and given[-1] == STDOUT else None
    if options.remote_name:
        rest = None
    return [*given, *[rest] * (wanted - len(given))]


def _arguments(options: FetchOptions) -> dict[str, Any]:
    """The arguments of `fetch` that the options stand for, the same for each URL."""
    raw_request = None
    if options.raw_request is not None:
        ours = [
            ("-H", options.headers),
            ("-X", options.method),
            ("-d", options.data),
            ("-I", options.head),
            ("-u", options.user and options.user.partition(":")[0]),
            ("-A", options.user_agent),
            ("-L", options.location),
        ]
        for name, seen in ours:
            if seen or seen == "":
                raise SettingError(name, seen, "nothing beside --raw-request")
        raw_request = _read(options.raw_request)
    if options.head and options.method:
        raise SettingError("-X", options.method, "nothing beside -I, which is HEAD,")
    if options.head and options.data:
        raise SettingError("-d", options.data[0], "nothing beside -I, which is HEAD,")
    headers = [_field(header) for header in options.headers]
    if options.user_agent is not None:
        headers.append(("User-Agent", options.user_agent or None))
    return {
        "method": "HEAD" if options.head else options.method,
        "headers": headers,
        "body": _data(options.data) if options.data else None,
        "user": None if options.user is None else _credentials(options.user),
        "raw_request": raw_request,
        "follow": options.location,
        "max_redirects": options.max_redirs,
        "decompress": options.compressed,
        "raw": options.raw,
        "max_body": options.max_filesize,
        "timeout": options.timeout,
        "connect_timeout": options.connect_timeout,
        "max_time": options.max_time,
        "family": options.family,
        "resolve": dict(map(_resolved, options.resolve)),
        "unix_socket": options.unix_socket,
        "trust_root": options.cacert,
        "verify": not options.insecure,
    }


def _field(header: str) -> Header:
    """As curl: `NAME: VALUE`; `NAME:` leaves ours out, `NAME;` has an empty value."""
    name, colon, value = header.partition(":")
    if colon and name.strip():
        return name, value if value.strip() else None
    if not colon and header.endswith(";") and header[:-1].strip():
        return header[:-1], ""
    raise HeaderNotSendable(f"{header!r} is not 'NAME: VALUE'")


def _data(pieces: tuple[str, ...]) -> bytes:
    """The pieces of -d, joined by `&`; a file's bytes are sent as they are."""
    return b"&".join(
        _read(piece[1:]) if piece.startswith("@") else os.fsencode(piece)
        for piece in pieces
    )


def _credentials(user: str) -> str:
    if ":" in user:
        return user
    if not stdin_is_terminal():
        raise SettingError("-u", user, "NAME:PASSWORD, where nobody can be asked,")
    try:
        return f"{user}:{getpass.getpass(f'password of {user}: ')}"
    except EOFError:
        raise SettingError("-u", user, "NAME:PASSWORD") from None


def _resolved(text: str) -> tuple[tuple[str, int], list[str]]:
    from twisted.internet.abstract import isIPAddress, isIPv6Address

    match = _RESOLVE.fullmatch(text)
    addresses = [a.strip("[]") for a in match["to"].split(",")] if match else []
    if (
        match is None
        or not 0 < int(match["port"]) < 65536
        or not all(isIPAddress(a) or isIPv6Address(a) for a in addresses)
    ):
        raise SettingError("--resolve", text, "HOST:PORT:ADDRESS[,ADDRESS]")
    try:
        host = Url.parse(match["host"]).host
    except UrlMalformed:
        raise SettingError("--resolve", text, "HOST:PORT:ADDRESS[,ADDRESS]") from None
    return (host, int(match["port"])), addresses


def _read(path: str) -> bytes:
    try:
        if path == STDOUT:
            return b"".join(iter(read_input, b""))
        return Path(path).read_bytes()
    except OSError as error:
        where = "standard input" if path == STDOUT else repr(path)
        raise CannotRead(where, (error.strerror or str(error)).lower()) from error


def _write_report(place: str, reports: list[dict[str, Any]], stdout: Output) -> None:
    text = "".join(json.dumps(report) + "\n" for report in reports)
    if place == STDOUT:
        stdout.write(text.encode("ascii"))
        return
    saving = Saving(place, replace=True)
    try:
        saving.open()
        saving.write(text.encode("ascii"))
        saving.complete()
    except SockprotoError:
        saving.give_up()
        raise
