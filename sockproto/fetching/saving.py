"""
How a body becomes a file: written beside its place, renamed when it is complete.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sockproto.errors import CannotWrite
from sockproto.fetching.splicing import take_out

if TYPE_CHECKING:
    from sockproto.wire.response import HeadCame

__all__ = ["Saving"]


class Saving:
    """
    A sink for one body, which is never seen half at its place.

    Args:
        path: where it is to be.
        replace: whether a file that is there is replaced. If not, a number is
            put behind the name: `index.html.1`.

    Attributes:
        kept: where an incomplete body was left; None if nothing was.
    """

    def __init__(self, path: str | os.PathLike[str], *, replace: bool) -> None:
        self._wanted = Path(path)
        self._replace = replace
        self._file: BinaryIO | None = None
        self._part: Path | None = None
        self.kept: str | None = None

    def begin(self, head: HeadCame) -> None:
        """
        Open the file beside its place, as `open` does.
        """
        self.open()

    def open(self) -> None:
        """
        Open the file beside its place.

        Raises:
            CannotWrite: there is no such folder, it is not writable, or a folder
                has the name.
        """
        if self._replace:
            # A link stays one: what it leads to is replaced, as `>` does.
            self._wanted = Path(os.path.realpath(self._wanted))
        try:
            mode = self._present_mode()
            if mode is not None and stat.S_ISDIR(mode):
                raise IsADirectoryError(None, "is a folder")
            if mode is not None and self._replace and not stat.S_ISREG(mode):
                # /dev/null, a pipe, a terminal: nothing to rename over.
                self._file = self._wanted.open("wb", buffering=0)
                return
            descriptor, part = tempfile.mkstemp(
                prefix=f".{self._wanted.name[:100]}.",
                suffix=".part",
                dir=self._wanted.parent,
            )
            self._part = Path(part)
            self._file = os.fdopen(descriptor, "wb", buffering=0)
            os.fchmod(descriptor, _new_file_mode() if mode is None else mode & 0o777)
        except OSError as error:
            raise self._cannot(error) from error

    def write(self, data: bytes) -> None:
        """
        Take the next bytes of the body.

        Raises:
            CannotWrite: the disk is full, for one.
        """
        assert self._file is not None, "begin() comes first"
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) or 0 :]
        except OSError as error:
            raise self._cannot(error) from error

    def splice(self, pipe: int, size: int) -> None:
        """
        Take the next bytes of the body out of a pipe.

        Raises:
            CannotWrite: as `write` does.
        """
        assert self._file is not None, "begin() comes first"
        try:
            take_out(pipe, size, self._file)
        except OSError as error:
            raise self._cannot(error) from error

    def complete(self) -> str:
        """
        Put the body at its place; returns where that is.

        Raises:
            CannotWrite: the file cannot be closed or renamed.
        """
        assert self._file is not None, "begin() comes first"
        try:
            self._file.close()
            if self._part is None:
                return str(self._wanted)
            if self._replace:
                self._part.replace(self._wanted)
                return str(self._wanted)
            return self._settle(self._wanted, "")
        except OSError as error:
            raise self._cannot(error) from error

    def give_up(self) -> None:
        """
        Leave what came of an incomplete body as `NAME.part`; `kept` says where.
        """
        if self._file is None:
            return
        with suppress(OSError):
            self._file.close()
        self._file = None
        if self._part is None:
            return
        with suppress(OSError):
            if self._part.stat().st_size:
                self.kept = str(self._part)
                self.kept = self._settle(self._wanted, ".part")
            else:
                self._part.unlink()

    def _settle(self, wanted: Path, suffix: str) -> str:
        """Rename to a name that nothing has: a link fails where a rename replaces."""
        assert self._part is not None
        for number in count():
            name = f"{wanted.name}{suffix}" + (f".{number}" if number else "")
            place = wanted.with_name(name)
            try:
                os.link(self._part, place)
            except FileExistsError:
                continue
            except OSError:
                # A file system without links: reserve the name, then take it.
                try:
                    place.open("xb").close()
                except FileExistsError:
                    continue
                self._part.replace(place)
            else:
                self._part.unlink()
            return str(place)
        raise AssertionError("numbers do not end")

    def _present_mode(self) -> int | None:
        try:
            return self._wanted.stat().st_mode if self._replace else None
        except FileNotFoundError:
            return None

    def _cannot(self, error: OSError) -> CannotWrite:
        words = (error.strerror or str(error)).lower()
        return CannotWrite(repr(str(self._wanted)), words)


def _new_file_mode() -> int:
    """What a new file gets: mkstemp makes its own for the owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
