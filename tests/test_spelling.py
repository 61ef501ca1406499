"""
How bytes and addresses are spelled for people.
"""

from __future__ import annotations

import ast
import unicodedata

from hypothesis import example, given, strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sockproto.spelling import (
    bytes_per_second,
    host_and_port,
    spell,
    spell_for_terminal,
    unescape,
)

# Controls and their escapes; what deceives; and what must pass.
TERMINAL_TEXT = st.one_of(
    st.text(),
    st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"])),
    st.text(st.sampled_from("\0\x07\x1b\r\n\t\x7f\x80\x9b\u202e\u2066\udcff a[31m")),
)

BAD_ESCAPES = st.one_of(
    st.characters(exclude_characters="nrt\\x").map(lambda c: "\\" + c),
    st.sampled_from(["\\x", "\\x4", "\\xg0", "\\x0g", "\\x 1", "\\x\uff11\uff11"]),
)


class SpellTests(SynchronousTestCase):
    @given(data=st.binary(max_size=40), longest=st.integers(0, 20))
    def test_printable(self, data: bytes, longest: int) -> None:
        """Whatever a peer sent becomes one printable line of ASCII."""
        spelled = spell(data, longest)
        self.assertTrue(spelled.isascii() and spelled.isprintable(), spelled)

    @given(data=st.binary(max_size=40))
    def test_exact(self, data: bytes) -> None:
        """What is short enough can be read back from how it is spelled."""
        self.assertEqual(ast.literal_eval(spell(data)), data)

    def test_long(self) -> None:
        """What is too long is cut, and it is said by how much."""
        self.assertEqual(spell(b"abc\n", 4), r"b'abc\n'")
        self.assertEqual(spell(b"abc\nd", 4), r"b'abc\n' and 1 bytes more")
        self.assertTrue(spell(b"x" * 1000).endswith("x' and 744 bytes more"))


class SpellForTerminalTests(SynchronousTestCase):
    @given(text=TERMINAL_TEXT)
    def test_nothing_controls(self, text: str) -> None:
        """No control byte and no change of direction gets through."""
        spelled = spell_for_terminal(text)
        for character in spelled:
            self.assertTrue(
                character in "\n\t"
                or unicodedata.category(character)
                not in ("Cc", "Cf", "Cs", "Zl", "Zp"),
                repr(character),
            )
        for byte in spelled.encode("utf-8"):
            self.assertTrue(byte in b"\n\t" or byte >= 0x20, spelled)
            self.assertNotEqual(byte, 0x7F)

    @given(
        text=st.text(
            st.one_of(
                st.characters(categories=["L", "M", "N", "P", "S"]),
                st.sampled_from(" \n\t\\"),
            )
        )
    )
    def test_the_rest_stays(self, text: str) -> None:
        """Letters, signs and spaces stay as they are."""
        self.assertEqual(spell_for_terminal(text), text)

    def test_spaces_of_other_scripts_stay(self) -> None:
        """A space of another width is no control character."""
        for space in "\xa0\u2003\u3000":
            self.assertEqual(spell_for_terminal(f"a{space}b"), f"a{space}b")

    def test_escapes(self) -> None:
        """What was taken out can be seen where it stood."""
        for text, spelled in {
            "\x1b[31mred": r"\x1b[31mred",
            "bell\x07": r"bell\x07",
            "back\rover": r"back\rover",
            "\x9b2J": r"\x9b2J",
            "\x7f": r"\x7f",
            "a\u202eb": r"a\u202eb",
            "\udcff": r"\udcff",
        }.items():
            self.assertEqual(spell_for_terminal(text), spelled)


class HostAndPortTests(SynchronousTestCase):
    def test_spelled(self) -> None:
        """An address is spelled as users write it, an IPv6 one in brackets."""
        for host, spelled in {
            "127.0.0.1": "127.0.0.1:80",
            "localhost": "localhost:80",
            "::1": "[::1]:80",
            "fe80::1%eth0": "[fe80::1%eth0]:80",
            "::ffff:192.0.2.1": "192.0.2.1:80",
            "::FFFF:192.0.2.1": "192.0.2.1:80",
            "::ffff:c000:201": "192.0.2.1:80",
            "::ffff:192.0.2.1%lo": "192.0.2.1:80",
            "::ffff:1:2:3": "[::ffff:1:2:3]:80",
        }.items():
            self.assertEqual(host_and_port(host, 80), spelled)

    @given(address=st.ip_addresses())
    def test_any_address(self, address: object) -> None:
        """Every address has a spelling whose port can be told from it."""
        host, _, port = host_and_port(str(address), 7).rpartition(":")
        self.assertEqual(port, "7")
        self.assertEqual(":" in host, host.startswith("[") and host.endswith("]"))


class UnescapeTests(SynchronousTestCase):
    @given(data=st.binary())
    @example(data=b"\\n")
    def test_backslashes_doubled(self, data: bytes) -> None:
        """A command line's bytes are themselves, their backslashes doubled."""
        text = data.decode("utf-8", "surrogateescape").replace("\\", "\\\\")
        self.assertEqual(unescape(text), data)

    @given(
        data=st.binary(max_size=20),
        spelling=st.sampled_from(["\\x%02x", "\\x%02X"]),
    )
    def test_hexadecimal(self, data: bytes, spelling: str) -> None:
        """Any bytes can be written as hexadecimal escapes."""
        self.assertEqual(unescape("".join(spelling % byte for byte in data)), data)

    def test_escapes(self) -> None:
        r"""The escapes are `\n \r \t \\ \xNN`, and other text is UTF-8."""
        self.assertEqual(unescape(r"a\r\n\tb"), b"a\r\n\tb")
        self.assertEqual(unescape(r"\\n"), rb"\n")
        self.assertEqual(unescape(r"\x000"), b"\x000")
        self.assertEqual(unescape("\xe9"), b"\xc3\xa9")
        self.assertEqual(unescape(""), b"")

    @given(before=st.text("ab\n"), bad=BAD_ESCAPES, after=st.text("zy\n", min_size=1))
    def test_unknown_escapes(self, before: str, bad: str, after: str) -> None:
        """Any other escape is refused, and shown."""
        with self.assertRaises(ValueError) as caught:
            unescape(before + bad + after)
        self.assertEqual(str(caught.exception), f"unknown escape {bad[:2]!r}")

    def test_backslash_at_the_end(self) -> None:
        """A backslash that escapes nothing is refused, a doubled one is not."""
        self.assertRaises(ValueError, unescape, "abc\\")
        self.assertEqual(unescape("abc\\\\"), b"abc\\")


class BytesPerSecondTests(SynchronousTestCase):
    def test_units(self) -> None:
        """A rate may be written in K, M and G, which are powers of 1,024."""
        for text, rate in (
            ("500", 500),
            ("0", 0),
            ("64K", 65_536),
            ("1.5m", 1_572_864),
            ("2G", 2 << 30),
        ):
            self.assertEqual(bytes_per_second(text), rate)

    @given(text=st.text(max_size=5))
    @example(text="1KK")
    @example(text="K")
    @example(text="")
    @example(text="1Q")
    def test_any_text(self, text: str) -> None:
        """Other texts are no rates."""
        try:
            bytes_per_second(text)
        except ValueError as error:
            self.assertTrue(str(error))
        else:
            float(text.rstrip("kKmMgG"))
