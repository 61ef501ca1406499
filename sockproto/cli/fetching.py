"""
The command `fetch`: the head to standard output, the body to a file.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

from sockproto import fetching
from sockproto.cli.console import Narrator, Output, for_terminal
from sockproto.cli.running import on_interrupt, run
from sockproto.errors import HeaderNotSendable, SockprotoError
from sockproto.fetching.saving import Saving
from sockproto.fetching.url import Url

if TYPE_CHECKING:
    from sockproto.wire.exchange import HeadCame

__all__ = ["fetch"]


class _Shown(Saving):
    """A file whose head is shown when it begins, with progress while it grows."""

    def __init__(self, path: str, output: Output, *, replace: bool) -> None:
        super().__init__(path, replace=replace)
        self._output = output
        self._progress: Any = None

    def begin(self, head: HeadCame) -> None:
        self._output.write(head.raw)
        super().begin(head)
        if sys.stderr.isatty():
            # Only what takes longer than a second is worth a bar.
            from tqdm import tqdm

            self._progress = tqdm(
                total=head.length,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                delay=1,
                leave=False,
            )

    def write(self, data: bytes) -> None:
        super().write(data)
        if self._progress is not None:
            self._progress.update(len(data))

    def finish_progress(self) -> None:
        if self._progress is not None:
            self._progress.close()
            self._progress = None


class _HttpNarrator(Narrator):
    """Tells what is sent line by line; a body that comes, by its size alone."""

    def sent(self, data: bytes) -> None:
        for line in for_terminal(data).decode("utf-8", "replace").splitlines():
            self._say(">", line)

    def received(self, data: bytes) -> None:
        self._say("<", f"received {len(data)} bytes")


def fetch(
    url: str,
    output: str | None,
    headers: tuple[str, ...],
    family: int | None,
    timeout: float,
    *,
    verbose: bool,
) -> NoReturn:
    """
    Run `sockproto fetch`.
    """

    async def exchange(reactor: Any, stdout: Output) -> None:
        parsed = Url.parse(url)
        fields = [_field(header) for header in headers]
        sink = _Shown(output or parsed.file_name, stdout, replace=output is not None)

        def leave_part() -> str | None:
            sink.give_up()
            return _kept(sink)

        on_interrupt(leave_part)
        try:
            await fetching.fetch(
                reactor,
                url,
                headers=fields,
                to=sink,
                timeout=timeout,
                family=family,
                observer=_HttpNarrator() if verbose else None,
            )
            sink.finish_progress()
            place = sink.complete()
        except SockprotoError:
            sink.finish_progress()
            sink.give_up()
            kept = _kept(sink)
            if kept:
                print(f"sockproto: fetch: {kept}", file=sys.stderr)
            raise
        print(f"saved to {place!r}", file=sys.stderr)

    run("fetch", exchange)


def _kept(sink: Saving) -> str | None:
    return f"what came is kept as {sink.kept!r}" if sink.kept else None


def _field(header: str) -> tuple[str, str]:
    name, colon, value = header.partition(":")
    if not colon or not name.strip():
        raise HeaderNotSendable(f"{header!r} is not 'NAME: VALUE'")
    return name, value
