"""
What happened in a fetch: told as it goes (`-v`), and accounted for (`--report`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sockproto.cli.console import for_terminal
from sockproto.cli.standard_files import say
from sockproto.fetching import FetchObserver
from sockproto.spelling import spell, spell_for_terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sockproto.fetching import Url
    from sockproto.wire.response import HeadCame, InterimCame, ResponseEnded

__all__ = ["Account", "Narrated"]


class Account(FetchObserver):
    """
    Keeps an account of each exchange of one fetch, ready for JSON.

    Bytes are spelled as Latin-1, so that `text.encode("latin-1")` gives them back.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.exchanges: list[dict[str, Any]] = []
        self._began = time.monotonic()
        self._begin(url)

    def _begin(self, url: str) -> None:
        self._start = time.monotonic()
        self._now: dict[str, Any] = {
            "url": url,
            "resolved": [],
            "local": None,
            "peer": None,
            "tls": None,
            "request": None,
            "interim": [],
            "response": None,
            "bytes_received": 0,
            "bytes_behind": 0,
            "closed": None,
            "seconds": {},
        }
        self.exchanges.append(self._now)

    def _mark(self, phase: str) -> None:
        self._now["seconds"].setdefault(phase, round(time.monotonic() - self._start, 6))

    def resolved(self, host: str, addresses: Sequence[str]) -> None:
        self._mark("resolved")
        self._now["resolved"] = list(addresses)

    def connected(self, here: str, there: str) -> None:
        self._mark("connected")
        self._now |= {"local": here, "peer": there}

    def secured(self, session: dict[str, Any]) -> None:
        self._mark("secured")
        self._now["tls"] = session

    def asked(self, url: Url, request: bytes) -> None:
        self._now["url"] = str(url)
        self._now["request"] = request.decode("latin-1")

    def sent(self, data: bytes) -> None:
        self._mark("sent")

    def received(self, data: bytes) -> None:
        if not self._now["bytes_received"]:
            self._mark("first_byte")
        self._now["bytes_received"] += len(data)

    def interim_came(self, interim: InterimCame) -> None:
        self._now["interim"].append(
            {"status": interim.status, "head": interim.raw.decode("latin-1")}
        )

    def head_came(self, head: HeadCame) -> None:
        self._mark("head")
        self._now["response"] = {
            "version": head.version,
            "status": head.status,
            "reason": head.reason,
            "headers": _spelled(head.headers),
            "head": head.raw.decode("latin-1"),
            "framing": head.framing,
            "length": head.length,
            "notes": list(head.notes),
            "trailers": [],
        }

    def ended(self, end: ResponseEnded, behind: bytes) -> None:
        self._mark("complete")
        self._now["bytes_behind"] = len(behind)
        self._now["response"]["trailers"] = _spelled(end.trailers)

    def redirected(self, url: Url) -> None:
        self._begin(str(url))

    def closed(self, why: str) -> None:
        self._mark("closed")
        self._now["closed"] = why

    def report(
        self, status: int, error: Exception | None, saved: str | None, body: int
    ) -> dict[str, Any]:
        """
        The whole account of the fetch, its outcome included.
        """
        return {
            "url": self.url,
            "exit_status": status,
            "error": None
            if error is None
            else {"type": type(error).__name__, "message": str(error)},
            "saved": saved,
            "body_bytes": body,
            "seconds": round(time.monotonic() - self._began, 6),
            "exchanges": self.exchanges,
        }


class Narrated(Account):
    """
    Tells on standard error what happens, too: `>` sent, `<` received, `*` else.
    """

    def resolved(self, host: str, addresses: Sequence[str]) -> None:
        super().resolved(host, addresses)
        _say("*", f"resolved {host}: {', '.join(addresses) or 'no address'}")

    def connected(self, here: str, there: str) -> None:
        super().connected(here, there)
        _say("*", f"connected from {here} to {there}")

    def secured(self, session: dict[str, Any]) -> None:
        super().secured(session)
        _say("*", f"{session['version']}, {session['cipher']}")
        if "subject" in session:
            names = ", ".join(session["names"]) or "no name"
            _say("*", f"certificate of {session['subject'] or 'nobody'}, for {names}")
            _say("*", f"signed by {session['issuer']}, until {session['expires']}")

    def sent(self, data: bytes) -> None:
        super().sent(data)
        head, end, body = data.partition(b"\r\n\r\n")
        _say_lines(">", head + end)
        if body:
            _say("*", f"sent a body of {len(body)} bytes")

    def interim_came(self, interim: InterimCame) -> None:
        super().interim_came(interim)
        _say_lines("<", interim.raw)

    def head_came(self, head: HeadCame) -> None:
        super().head_came(head)
        _say_lines("<", head.raw)
        for note in head.notes:
            _say("*", note)
        length = "" if head.length is None else f" {head.length}"
        _say("*", f"the body's framing: {head.framing}{length}")

    def ended(self, end: ResponseEnded, behind: bytes) -> None:
        super().ended(end, behind)
        for name, value in end.trailers:
            _say("<", f"{spell_bytes(name)}: {spell_bytes(value)}")
        if behind:
            _say("*", f"behind the end came {len(behind)} bytes: {spell(behind, 64)}")

    def redirected(self, url: Url) -> None:
        _say("*", f"redirected to {url}")
        super().redirected(url)

    def closed(self, why: str) -> None:
        super().closed(why)
        phases = self._now["seconds"].items()
        _say("*", "seconds: " + ", ".join(f"{name} {at:.6f}" for name, at in phases))
        _say("*", f"closed: {why}; {self._now['bytes_received']} bytes came")


def spell_bytes(data: bytes) -> str:
    return for_terminal(data).decode("utf-8", "replace")


def _say_lines(sign: str, data: bytes) -> None:
    for line in data.split(b"\n")[:-1] if data.endswith(b"\n") else data.split(b"\n"):
        _say(sign, spell_bytes(line.removesuffix(b"\r")))


def _say(sign: str, what: str) -> None:
    # A certificate's subject may hold line ends, and would make up lines.
    line = spell_for_terminal(what).replace("\n", "\\n")
    say(f"{sign} {line}")


def _spelled(fields: Sequence[tuple[bytes, bytes]]) -> list[list[str]]:
    return [[name.decode("latin-1"), value.decode("latin-1")] for name, value in fields]
