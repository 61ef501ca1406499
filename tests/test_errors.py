"""
Every error says what was seen and what was allowed, and whose fault it is.
"""

from __future__ import annotations

import inspect
import pickle

from twisted.trial.unittest import SynchronousTestCase

from sockproto import errors
from sockproto.errors import (
    AddressMalformed,
    BodyCutShort,
    BodyMalformed,
    CannotRead,
    CannotWrite,
    CertificateRefused,
    CodingMalformed,
    ConnectionWasReset,
    HandshakeFailed,
    HeaderNotSendable,
    HeadMalformed,
    LineTooLong,
    MisuseError,
    NameNotResolved,
    NameNotSendable,
    NetstringMalformed,
    NetstringTooLong,
    NotConnected,
    NothingCame,
    PeerError,
    PeerLeftOwing,
    PlaceError,
    ProxyHeaderMalformed,
    RedirectRefused,
    SchemeNotSupported,
    SettingError,
    SockprotoError,
    StatusRefused,
    TimedOut,
    TooLarge,
    TooManyRedirects,
    TrustMalformed,
    UrlMalformed,
)

# Each error, whose fault it is, curl's number for it, and what it says.
TABLE: list[tuple[SockprotoError, type[SockprotoError], int, str]] = [
    (
        SettingError("max_name", 0, "a whole number from 1"),
        MisuseError,
        2,
        "max_name is 0, where a whole number from 1 is allowed",
    ),
    (
        NameNotSendable(b"a\n", "it holds a line feed"),
        MisuseError,
        2,
        r"the name b'a\n' cannot be sent: it holds a line feed",
    ),
    (
        NameNotSendable(b"x" * 65, "it is too long"),
        MisuseError,
        2,
        f"the name b'{'x' * 64}'... cannot be sent: it is too long",
    ),
    (
        AddressMalformed("h\n", "it has no port"),
        MisuseError,
        2,
        r"the address 'h\n' cannot be used: it has no port",
    ),
    (
        UrlMalformed("http://", "it has no host"),
        MisuseError,
        3,
        "the URL 'http://' is malformed: it has no host",
    ),
    (
        HeaderNotSendable("illegal header value"),
        MisuseError,
        2,
        "the header cannot be sent: illegal header value",
    ),
    (
        SchemeNotSupported("ftp://a", "ftp"),
        MisuseError,
        1,
        "the scheme 'ftp' of 'ftp://a' is not supported; http and https are",
    ),
    (
        TrustMalformed("/ca\n.pem", "no PEM certificate is in it"),
        MisuseError,
        77,
        r"the authorities in '/ca\n.pem' cannot be used: no PEM certificate is in it",
    ),
    (
        PlaceError("hello", "tcp:1", "it is in use"),
        SockprotoError,
        1,
        "hello cannot listen on 'tcp:1': it is in use",
    ),
    (
        NameNotResolved("nowhere.invalid"),
        SockprotoError,
        6,
        "the host name 'nowhere.invalid' could not be resolved",
    ),
    (
        NotConnected("[::1]:9", "connection refused"),
        SockprotoError,
        7,
        "no connection to [::1]:9: connection refused",
    ),
    (
        HandshakeFailed("wrong version number"),
        PeerError,
        35,
        "the TLS handshake failed: wrong version number",
    ),
    (
        CertificateRefused("example.org", "it has expired"),
        PeerError,
        60,
        "the certificate does not prove to be example.org: it has expired",
    ),
    (
        TimedOut("the greeting", 2.50),
        SockprotoError,
        28,
        "the greeting did not come within 2.5 seconds",
    ),
    (
        CannotRead("standard input", "input/output error"),
        SockprotoError,
        26,
        "cannot read standard input: input/output error",
    ),
    (
        CannotWrite("standard output", "no space left on device"),
        SockprotoError,
        23,
        "cannot write to standard output: no space left on device",
    ),
    (
        LineTooLong(1024),
        PeerError,
        56,
        "line of 1025 bytes or more, where 1024 are allowed",
    ),
    (
        NetstringTooLong(1024, 9999),
        PeerError,
        56,
        "netstring of 9999 bytes or more, where 1024 are allowed",
    ),
    (
        NetstringMalformed(b"\x1b", "a digit"),
        PeerError,
        56,
        r"no netstring: b'\x1b', where a digit is allowed",
    ),
    (
        ProxyHeaderMalformed(b"\x1b", "PROXY"),
        PeerError,
        56,
        r"no PROXY header: b'\x1b', where PROXY is allowed",
    ),
    (
        ProxyHeaderMalformed(b"x" * 130, "PROXY"),
        PeerError,
        56,
        f"no PROXY header: b'{'x' * 128}' and 2 bytes more, where PROXY is allowed",
    ),
    (
        PeerLeftOwing("3 answers"),
        PeerError,
        18,
        "the peer closed and left owing 3 answers",
    ),
    (NothingCame(), PeerError, 52, "the peer closed without sending anything"),
    (
        ConnectionWasReset("connection reset by peer"),
        PeerError,
        56,
        "the connection broke: connection reset by peer",
    ),
    (
        HeadMalformed("it is cut short"),
        PeerError,
        8,
        "the head of the response is malformed: it is cut short",
    ),
    (
        BodyMalformed("illegal chunk header"),
        PeerError,
        56,
        "the body of the response is malformed: illegal chunk header",
    ),
    (
        BodyCutShort(5, 10),
        PeerError,
        18,
        "the body was cut short: 5 of 10 bytes came",
    ),
    (
        BodyCutShort(5, None),
        PeerError,
        18,
        "the body was cut short after 5 bytes",
    ),
    (
        TooLarge(100),
        PeerError,
        63,
        "the body is larger than the 100 bytes that are allowed",
    ),
    (
        TooLarge(1000, 100),
        PeerError,
        63,
        (
            "the body grows by more than 100 times when it is decoded, and has passed"
            " 1000 bytes"
        ),
    ),
    (
        CodingMalformed("the coding 'br' is not known"),
        PeerError,
        61,
        "the body cannot be decoded: the coding 'br' is not known",
    ),
    (
        StatusRefused(404, "Not Found"),
        PeerError,
        22,
        "the response has status 404 Not Found",
    ),
    (StatusRefused(500, ""), PeerError, 22, "the response has status 500"),
    (
        RedirectRefused("ftp://a\x1b", "it is neither http nor https"),
        PeerError,
        1,
        r"the redirect to 'ftp://a\x1b' is not followed: it is neither http nor https",
    ),
    (TooManyRedirects(20), PeerError, 47, "more than 20 redirects came"),
]


class ErrorTests(SynchronousTestCase):
    def test_table_is_complete(self) -> None:
        """No error is missing here, nor in `__all__`."""
        classes = {
            name
            for name, kind in vars(errors).items()
            if inspect.isclass(kind) and issubclass(kind, SockprotoError)
        }
        self.assertEqual(set(errors.__all__), classes)
        roots = {"SockprotoError", "PeerError", "MisuseError"}
        self.assertEqual({type(row[0]).__name__ for row in TABLE}, classes - roots)

    def test_fault(self) -> None:
        """Each error is the peer's, or our caller's, or of what stands between."""
        for error, fault, _, _ in TABLE:
            faults = {
                kind for kind in (PeerError, MisuseError) if isinstance(error, kind)
            }
            self.assertEqual(faults, {fault} - {SockprotoError}, repr(error))

    def test_exit_status(self) -> None:
        """The command line exits with curl's numbers."""
        for error, _, status, _ in TABLE:
            self.assertEqual(error.exit_status, status, repr(error))
        self.assertEqual(SockprotoError.exit_status, 1)
        self.assertEqual(PeerError.exit_status, 56)
        self.assertEqual(MisuseError.exit_status, 2)

    def test_message(self) -> None:
        """A message is one line, made from the values, without a full stop."""
        for error, _, _, message in TABLE:
            self.assertEqual(str(error), message)

    def test_values(self) -> None:
        """What an error was made with are its attributes, by the same names."""
        for error, *_ in TABLE:
            names: list[str] = []
            if "__init__" in vars(type(error)):
                names += inspect.signature(type(error)).parameters
            self.assertEqual(
                tuple(getattr(error, name) for name in names), error.args, repr(error)
            )

    def test_pickle(self) -> None:
        """An error can be sent to another process, and is the same there."""
        for error, *_ in TABLE:
            copy = pickle.loads(pickle.dumps(error))
            self.assertIs(type(copy), type(error))
            self.assertEqual((copy.args, str(copy)), (error.args, str(error)))

    def test_misuse_is_a_value_error(self) -> None:
        """Who knows nothing of us can catch a wrong argument as Python has it."""
        self.assertIsInstance(SettingError("delay", -1, "0 and up"), ValueError)
        self.assertFalse(issubclass(PeerError, ValueError))


class LongNumberTests(SynchronousTestCase):
    """A number that Python does not spell."""

    def test_setting(self) -> None:
        """A setting's error has words for a number of any length."""
        said = str(SettingError("max_name", 10**5000, "a whole number from 1 to 9"))
        self.assertIn("max_name", said)
        self.assertIn("a whole number from 1 to 9", said)
