"""
A body becomes a file, whole or not at all.
"""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from sockproto.errors import CannotWrite
from sockproto.fetching.saving import Saving
from sockproto.wire.response import HeadCame

if TYPE_CHECKING:
    from collections.abc import Iterable

HEAD = HeadCame(b"", "1.1", 200, "OK", ())


def save(path: Path, *, replace: bool, body: Iterable[bytes] = (b"body",)) -> str:
    """Save a body to its end; returns where."""
    saving = Saving(path, replace=replace)
    saving.begin(HEAD)
    for data in body:
        saving.write(data)
    return saving.complete()


class SavingTests(SynchronousTestCase):
    """What every test saves into: a folder of its own."""

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name).resolve()
        self.place = self.folder / "a.html"

    def there(self) -> dict[str, bytes]:
        """The folder's files and what is in them."""
        return {file.name: file.read_bytes() for file in self.folder.iterdir()}

    def mode(self) -> int:
        """The permissions of the place."""
        return stat.S_IMODE(self.place.stat().st_mode)

    def with_umask(self, mask: int) -> None:
        """Set the umask until the test is over."""
        self.addCleanup(os.umask, os.umask(mask))


class CompleteTests(SavingTests):
    """A body that came whole."""

    def test_bytes(self) -> None:
        """The file has the bytes, in the pieces in which they came or not."""
        body = [b"a\r\n", b"", b"\0\xff", b"x" * 1_000_000]
        self.assertEqual(save(self.place, replace=True, body=body), str(self.place))
        self.assertEqual(self.there(), {"a.html": b"".join(body)})

    def test_empty(self) -> None:
        """An empty body is an empty file."""
        save(self.place, replace=False, body=[])
        self.assertEqual(self.there(), {"a.html": b""})

    def test_replace(self) -> None:
        """A file that is there is replaced."""
        self.place.write_bytes(b"a longer one, from before")
        save(self.place, replace=True)
        self.assertEqual(self.there(), {"a.html": b"body"})

    def test_number(self) -> None:
        """Where nothing is to be replaced, a number is put behind the name."""
        places = [save(self.place, replace=False, body=[b"%d" % i]) for i in range(3)]
        self.assertEqual(
            places, [str(self.place), f"{self.place}.1", f"{self.place}.2"]
        )
        self.assertEqual(
            self.there(), {"a.html": b"0", "a.html.1": b"1", "a.html.2": b"2"}
        )

    def test_number_beside_folder(self) -> None:
        """A folder or a dangling link has the name too, and nothing is put there."""
        self.place.mkdir()
        (self.folder / "a.html.1").symlink_to("nowhere")
        self.assertEqual(save(self.place, replace=False), f"{self.place}.2")
        self.assertEqual(list(self.place.iterdir()), [])
        self.assertFalse((self.folder / "nowhere").exists())

    def test_never_half(self) -> None:
        """Until the body is complete, its place has what it had before."""
        for replace, before in ((True, b"old"), (False, None)):
            if before is not None:
                self.place.write_bytes(before)
            saving = Saving(self.place, replace=replace)
            saving.begin(HEAD)
            for _ in range(3):
                saving.write(b"half")
                if before is None:
                    self.assertFalse(self.place.exists())
                else:
                    self.assertEqual(self.place.read_bytes(), before)
            saving.complete()
            self.assertEqual(self.there(), {"a.html": b"half" * 3})
            self.place.unlink()

    def test_hidden_while_it_grows(self) -> None:
        """The growing part is one hidden file that ends in `.part`."""
        saving = Saving(self.place, replace=True)
        saving.begin(HEAD)
        (name,) = self.there()
        self.assertRegex(name, r"\A\.a\.html\..+\.part\Z")
        saving.complete()

    def test_relative(self) -> None:
        """A path may be relative, and need no folder in it."""
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(self.folder)
        self.assertEqual(save(Path("a"), replace=False), "a")
        self.assertEqual(save(Path("a"), replace=False), "a.1")
        self.assertEqual(set(self.there()), {"a", "a.1"})

    def test_longest_name(self) -> None:
        """A name as long as a file system takes can be replaced."""
        self.place = self.folder / ("a" * 255)
        save(self.place, replace=True)
        self.assertEqual(self.there(), {"a" * 255: b"body"})

    def test_afterwards(self) -> None:
        """To give up what is complete changes nothing."""
        saving = Saving(self.place, replace=True)
        saving.begin(HEAD)
        saving.write(b"body")
        saving.complete()
        saving.give_up()
        self.assertIsNone(saving.kept)
        self.assertEqual(self.there(), {"a.html": b"body"})

    def test_two_at_once(self) -> None:
        """Two that save under one name both keep their body."""
        first = Saving(self.place, replace=False)
        second = Saving(self.place, replace=False)
        for saving, body in ((first, b"first"), (second, b"second")):
            saving.begin(HEAD)
            saving.write(body)
        self.assertEqual(second.complete(), str(self.place))
        self.assertEqual(first.complete(), f"{self.place}.1")
        self.assertEqual(self.there(), {"a.html": b"second", "a.html.1": b"first"})

    def test_two_replacing(self) -> None:
        """Of two that replace one file, the last has it, whole."""
        first = Saving(self.place, replace=True)
        second = Saving(self.place, replace=True)
        for _ in range(2):
            for saving, body in ((first, b"first"), (second, b"second")):
                if saving._file is None:
                    saving.begin(HEAD)
                saving.write(body)
        second.complete()
        first.complete()
        self.assertEqual(self.there(), {"a.html": b"firstfirst"})

    def test_race(self) -> None:
        """Threads that race for one name lose no body, and none overwrites another."""
        savings = [Saving(self.place, replace=False) for _ in range(8)]
        for number, saving in enumerate(savings):
            saving.begin(HEAD)
            saving.write(b"%d" % number)
        ready = threading.Barrier(len(savings))
        places: list[str] = []

        def finish(saving: Saving) -> None:
            ready.wait()
            places.append(saving.complete())

        threads = [threading.Thread(target=finish, args=(s,)) for s in savings]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual({Path(place).name for place in places}, set(self.there()))
        self.assertEqual(sorted(self.there().values()), [b"%d" % i for i in range(8)])

    def test_no_links(self) -> None:
        """On a file system without hard links, the name is taken all the same."""

        def link(*_: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        self.patch(os, "link", link)
        self.assertEqual(save(self.place, replace=False), str(self.place))
        self.assertEqual(save(self.place, replace=False), f"{self.place}.1")
        self.assertEqual(self.there(), {"a.html": b"body", "a.html.1": b"body"})


class ModeTests(SavingTests):
    """The permissions of what is saved."""

    def test_new(self) -> None:
        """A new file has the permissions that the umask leaves."""
        for mask, mode in ((0o022, 0o644), (0o077, 0o600), (0o000, 0o666)):
            self.with_umask(mask)
            for replace in (True, False):
                save(self.place, replace=replace)
                self.assertEqual(self.mode(), mode)
                self.assertEqual(os.umask(mask), mask)
                self.place.unlink()

    def test_replaced(self) -> None:
        """A replaced file keeps its permissions."""
        self.with_umask(0o022)
        for mode in (0o600, 0o755, 0o666):
            self.place.write_bytes(b"")
            self.place.chmod(mode)
            save(self.place, replace=True)
            self.assertEqual(self.mode(), mode)

    def test_link(self) -> None:
        """A link stays one; what it leads to is replaced."""
        target = self.folder / "target"
        for before in (b"old", None):
            target.unlink(missing_ok=True)
            if before is not None:
                target.write_bytes(before)
            self.place.unlink(missing_ok=True)
            self.place.symlink_to("target")
            self.assertEqual(save(self.place, replace=True), str(target))
            self.assertTrue(self.place.is_symlink())
            self.assertEqual(target.read_bytes(), b"body")

    def test_link_to_another_folder(self) -> None:
        """The part grows beside what a link leads to: a rename crosses no disk."""
        far = self.folder / "far"
        far.mkdir()
        self.place.symlink_to("far/file")
        saving = Saving(self.place, replace=True)
        saving.begin(HEAD)
        self.assertEqual(len(list(far.iterdir())), 1)
        saving.complete()
        self.assertEqual([file.name for file in far.iterdir()], ["file"])


class DeviceTests(SavingTests):
    """Places that are no files."""

    def test_null(self) -> None:
        """/dev/null takes a body and stays a device, link to it or not."""
        self.place.symlink_to(os.devnull)
        for place in (Path(os.devnull), self.place):
            before = Path(os.devnull).stat()
            self.assertEqual(save(place, replace=True), os.devnull)
            after = Path(os.devnull).stat()
            self.assertEqual(after.st_ino, before.st_ino)
            self.assertTrue(stat.S_ISCHR(after.st_mode))

    def test_pipe(self) -> None:
        """A named pipe is written into, and stays one."""
        os.mkfifo(self.place)
        reader = os.open(self.place, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        save(self.place, replace=True)
        self.assertEqual(os.read(reader, 100), b"body")
        self.assertTrue(self.place.is_fifo())

    def test_full(self) -> None:
        """A disk that is full is said in words."""
        if not Path("/dev/full").exists():
            raise SkipTest("there is no /dev/full")
        saving = Saving("/dev/full", replace=True)
        saving.begin(HEAD)
        error = self.assertRaises(CannotWrite, saving.write, b"body")
        self.assertEqual(error.where, "'/dev/full'")
        self.assertEqual(error.problem, "no space left on device")
        saving.give_up()
        self.assertIsNone(saving.kept)
        self.assertTrue(Path("/dev/full").is_char_device())


class CannotWriteTests(SavingTests):
    """Places that take nothing, and leave nothing behind."""

    def refused(self, path: Path, *, replace: bool) -> CannotWrite:
        """The place cannot be begun with; the error names it."""
        saving = Saving(path, replace=replace)
        error: CannotWrite = self.assertRaises(CannotWrite, saving.begin, HEAD)
        self.assertEqual(error.exit_status, 23)
        saving.give_up()
        self.assertIsNone(saving.kept)
        return error

    def test_folder(self) -> None:
        """A folder cannot be replaced."""
        self.assertEqual(self.refused(self.folder, replace=True).problem, "is a folder")
        self.assertEqual(self.there(), {})

    def test_missing_folder(self) -> None:
        """A folder that is not there is not made."""
        for replace in (True, False):
            error = self.refused(self.folder / "no" / "file", replace=replace)
            self.assertEqual(error.problem, "no such file or directory")
            self.assertIn(str(self.folder / "no" / "file"), error.where)
        self.assertEqual(self.there(), {})

    def test_file_as_folder(self) -> None:
        """What is in the way of the folder is an error too."""
        self.place.write_bytes(b"")
        for replace in (True, False):
            self.refused(self.place / "file", replace=replace)
        self.assertEqual(self.there(), {"a.html": b""})

    def test_loop(self) -> None:
        """A link that leads to itself is an error, and stays."""
        self.place.symlink_to("a.html")
        self.refused(self.place, replace=True)
        self.assertTrue(self.place.is_symlink())

    def test_name_too_long(self) -> None:
        """A name that no file can have is refused before the body comes."""
        self.refused(self.folder / ("a" * 256), replace=True)
        self.assertEqual(self.there(), {})

    def test_not_writable(self) -> None:
        """A folder that takes no file of ours, though we be root."""
        if not Path("/proc/self").exists():
            raise SkipTest("there is no /proc")
        for replace in (True, False):
            self.refused(Path("/proc/self/a"), replace=replace)

    def test_read_only_folder(self) -> None:
        """A folder that we may not write to."""
        if os.geteuid() == 0:
            raise SkipTest("root may write everywhere")
        self.folder.chmod(0o555)
        self.addCleanup(self.folder.chmod, 0o755)
        for replace in (True, False):
            error = self.refused(self.place, replace=replace)
            self.assertEqual(error.problem, "permission denied")

    def test_taken_by_a_folder(self) -> None:
        """If a folder takes the place meanwhile, the body is kept beside it."""
        saving = Saving(self.place, replace=True)
        saving.begin(HEAD)
        saving.write(b"body")
        self.place.mkdir()
        self.assertRaises(CannotWrite, saving.complete)
        saving.give_up()
        self.assertEqual(saving.kept, f"{self.place}.part")
        self.assertEqual((self.folder / "a.html.part").read_bytes(), b"body")


class OpenTests(SavingTests):
    """A file that is opened before any head."""

    def test_open(self) -> None:
        """It is opened as a head would open it, and takes the bytes."""
        for replace in (True, False):
            saving = Saving(self.place, replace=replace)
            saving.open()
            saving.write(b"body")
            self.assertEqual(saving.complete(), str(self.place))
            self.assertEqual(self.there(), {"a.html": b"body"})
            self.place.unlink()

    def test_refused(self) -> None:
        """A place that takes nothing is refused then."""
        saving = Saving(self.folder / "no" / "file", replace=True)
        self.assertRaises(CannotWrite, saving.open)

    def test_given_up(self) -> None:
        """Where nothing came, nothing is left."""
        saving = Saving(self.place, replace=True)
        saving.open()
        saving.give_up()
        self.assertEqual(self.there(), {})


class GiveUpTests(SavingTests):
    """A body that did not come whole."""

    def given_up(self, *body: bytes, replace: bool = True) -> str | None:
        """Write a part of a body and give up; returns where it was kept."""
        saving = Saving(self.place, replace=replace)
        saving.begin(HEAD)
        for data in body:
            saving.write(data)
        saving.give_up()
        return saving.kept

    def test_kept(self) -> None:
        """What came is kept as `NAME.part`; the place has what it had."""
        self.place.write_bytes(b"old")
        self.assertEqual(self.given_up(b"ha", b"lf"), f"{self.place}.part")
        self.assertEqual(self.there(), {"a.html": b"old", "a.html.part": b"half"})

    def test_numbered(self) -> None:
        """A part from before is not overwritten."""
        for replace in (True, False):
            self.given_up(b"half", replace=replace)
        self.assertEqual(
            self.there(), {"a.html.part": b"half", "a.html.part.1": b"half"}
        )

    def test_empty(self) -> None:
        """Where nothing came, nothing is kept."""
        self.assertIsNone(self.given_up())
        self.assertIsNone(self.given_up(b""))
        self.assertEqual(self.there(), {})

    def test_not_begun(self) -> None:
        """Without a head there is nothing to give up."""
        saving = Saving(self.place, replace=True)
        saving.give_up()
        self.assertIsNone(saving.kept)
        self.assertEqual(self.there(), {})

    def test_twice(self) -> None:
        """To give up twice is to give up once."""
        saving = Saving(self.place, replace=True)
        saving.begin(HEAD)
        saving.write(b"half")
        saving.give_up()
        saving.give_up()
        self.assertEqual(saving.kept, f"{self.place}.part")
        self.assertEqual(self.there(), {"a.html.part": b"half"})

    def test_longest_name(self) -> None:
        """What came is kept also where `.part` does not fit the name any more."""
        self.place = self.folder / ("a" * 253)
        kept = self.given_up(b"half")
        self.assertEqual(list(self.there().values()), [b"half"])
        self.assertEqual(kept, str(next(self.folder.iterdir())))

    def test_device(self) -> None:
        """What was written into a device is not kept, and the device stays."""
        self.place = Path(os.devnull)
        self.assertIsNone(self.given_up(b"half"))
        self.assertTrue(stat.S_ISCHR(Path(os.devnull).stat().st_mode))
