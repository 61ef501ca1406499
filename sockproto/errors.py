"""
Every exception of sockproto, parted by whose fault it is.

`PeerError`: the other end broke a rule, or went away. Say so and close.
`MisuseError`: our caller did. Let it surface.

Values are attributes and the message is built from them, so nobody has to
parse text. `exit_status` is what the command line exits with: curl's numbers,
because people know them.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AddressMalformed",
    "BodyCutShort",
    "BodyMalformed",
    "CannotRead",
    "CannotWrite",
    "CertificateRefused",
    "CodingMalformed",
    "ConnectionWasReset",
    "HandshakeFailed",
    "HeadMalformed",
    "HeaderNotSendable",
    "LineTooLong",
    "MisuseError",
    "NameNotResolved",
    "NameNotSendable",
    "NetstringMalformed",
    "NetstringTooLong",
    "NotConnected",
    "NothingCame",
    "PeerError",
    "PeerLeftOwing",
    "PlaceError",
    "ProxyHeaderMalformed",
    "RedirectRefused",
    "SchemeNotSupported",
    "SettingError",
    "SockprotoError",
    "StatusRefused",
    "TimedOut",
    "TooLarge",
    "TooManyRedirects",
    "TrustMalformed",
    "UrlMalformed",
]


class SockprotoError(Exception):
    """
    The root of the tree: catch it to catch all that sockproto raises.
    """

    exit_status: ClassVar[int] = 1


class PeerError(SockprotoError):
    """
    The other end broke a rule of the protocol, or did not stay.
    """

    exit_status = 56


class MisuseError(SockprotoError, ValueError):
    """
    Our caller asked for what cannot be done.
    """

    exit_status = 2


# What a caller or a user got wrong.


class SettingError(MisuseError):
    """
    A setting has a value that it cannot have.

    Attributes:
        name: the setting, as `Settings` spells it (`max_name`).
        seen: the value that was given.
        allowed: the values that would have done, in words.
    """

    def __init__(self, name: str, seen: object, allowed: str) -> None:
        super().__init__(name, seen, allowed)
        self.name = name
        self.seen = seen
        self.allowed = allowed

    def __str__(self) -> str:
        try:
            seen = repr(self.seen)
        except ValueError:  # Python spells no number of thousands of digits
            seen = f"an {type(self.seen).__name__} too long to be spelled"
        return f"{self.name} is {seen}, where {self.allowed} is allowed"


class NameNotSendable(MisuseError):
    """
    A name cannot be sent in the chosen framing without changing its meaning.
    """

    def __init__(self, name: bytes, problem: str) -> None:
        super().__init__(name, problem)
        self.name = name
        self.problem = problem

    def __str__(self) -> str:
        seen = repr(self.name) if len(self.name) <= 64 else f"{self.name[:64]!r}..."
        return f"the name {seen} cannot be sent: {self.problem}"


class AddressMalformed(MisuseError):
    """
    An address of a client is neither HOST:PORT nor an endpoint description.
    """

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(address, problem)
        self.address = address
        self.problem = problem

    def __str__(self) -> str:
        return f"the address {self.address!r} cannot be used: {self.problem}"


class UrlMalformed(MisuseError):
    """
    A URL breaks RFC 3986, or has a part that is not taken.
    """

    exit_status = 3

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(url, problem)
        self.url = url
        self.problem = problem

    def __str__(self) -> str:
        return f"the URL {self.url!r} is malformed: {self.problem}"


class HeaderNotSendable(MisuseError):
    """
    A part of a request breaks the grammar (RFC 9110, section 5).
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"the header cannot be sent: {self.problem}"


class SchemeNotSupported(MisuseError):
    """
    A URL's scheme is neither http nor https.
    """

    exit_status = 1

    def __init__(self, url: str, scheme: str) -> None:
        super().__init__(url, scheme)
        self.url = url
        self.scheme = scheme

    def __str__(self) -> str:
        return (
            f"the scheme {self.scheme!r} of {self.url!r} is not supported;"
            " http and https are"
        )


class TrustMalformed(MisuseError):
    """
    A file of authorities cannot be used.
    """

    exit_status = 77

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"the authorities in {self.path!r} cannot be used: {self.problem}"


# What stands between us and the peer.


class PlaceError(SockprotoError):
    """
    A service cannot listen where it was told to.

    Attributes:
        service: `hello`, `echo`, `udp` or `udp-echo`.
        place: the endpoint description, as it was given.
        problem: what is wrong with it, and what to do.
    """

    def __init__(self, service: str, place: str, problem: str) -> None:
        super().__init__(service, place, problem)
        self.service = service
        self.place = place
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.service} cannot listen on {self.place!r}: {self.problem}"


class NameNotResolved(SockprotoError):
    """
    A host name has no address (of the family that was asked for).
    """

    exit_status = 6

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.host = host

    def __str__(self) -> str:
        return f"the host name {self.host!r} could not be resolved"


class NotConnected(SockprotoError):
    """
    No connection came about: refused, unreachable, no such socket.
    """

    exit_status = 7

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(where, problem)
        self.where = where
        self.problem = problem

    def __str__(self) -> str:
        return f"no connection to {self.where}: {self.problem}"


class HandshakeFailed(PeerError):
    """
    TLS was not agreed on, for another reason than the certificate.
    """

    exit_status = 35

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"the TLS handshake failed: {self.problem}"


class CertificateRefused(PeerError):
    """
    The peer's certificate does not prove that it is who we wanted to reach.

    Raised before anything of ours was sent.
    """

    exit_status = 60

    def __init__(self, host: str, problem: str) -> None:
        super().__init__(host, problem)
        self.host = host
        self.problem = problem

    def __str__(self) -> str:
        return f"the certificate does not prove to be {self.host}: {self.problem}"


class TimedOut(SockprotoError):
    """
    The peer was silent for longer than was allowed.
    """

    exit_status = 28

    def __init__(self, awaited: str, seconds: float) -> None:
        super().__init__(awaited, seconds)
        self.awaited = awaited
        self.seconds = seconds

    def __str__(self) -> str:
        return f"{self.awaited} did not come within {self.seconds:g} seconds"


class CannotRead(SockprotoError):
    """
    Standard input could not be read.
    """

    exit_status = 26

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(where, problem)
        self.where = where
        self.problem = problem

    def __str__(self) -> str:
        return f"cannot read {self.where}: {self.problem}"


class CannotWrite(SockprotoError):
    """
    A file, or standard output, did not take what we had for it.
    """

    exit_status = 23

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(where, problem)
        self.where = where
        self.problem = problem

    def __str__(self) -> str:
        return f"cannot write to {self.where}: {self.problem}"


# What a peer did.


class LineTooLong(PeerError):
    """
    The peer sent a line longer than we accept; the limit is in bytes.

    There is no exact length: the line was not read to its end.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"line of {self.limit + 1} bytes or more, where {self.limit} are allowed"


class NetstringTooLong(PeerError):
    """
    The peer announced a netstring longer than we accept; both are in bytes.

    `announced` is a lower bound: digits beyond the limit's are not read.
    """

    def __init__(self, limit: int, announced: int) -> None:
        super().__init__(limit, announced)
        self.limit = limit
        self.announced = announced

    def __str__(self) -> str:
        return (
            f"netstring of {self.announced} bytes or more,"
            f" where {self.limit} are allowed"
        )


class NetstringMalformed(PeerError):
    """
    The peer's bytes are no netstring.
    """

    def __init__(self, seen: bytes, expected: str) -> None:
        super().__init__(seen, expected)
        self.seen = seen
        self.expected = expected

    def __str__(self) -> str:
        return f"no netstring: {self.seen!r}, where {self.expected} is allowed"


class ProxyHeaderMalformed(PeerError):
    """
    The peer's bytes begin with no header of the PROXY protocol that we take.

    Either it is no proxy, or it was not told to send the header.
    """

    def __init__(self, seen: bytes, expected: str) -> None:
        super().__init__(seen, expected)
        self.seen = seen
        self.expected = expected

    def __str__(self) -> str:
        seen = repr(self.seen[:128])
        if len(self.seen) > 128:
            seen += f" and {len(self.seen) - 128} bytes more"
        return f"no PROXY header: {seen}, where {self.expected} is allowed"


class PeerLeftOwing(PeerError):
    """
    The peer ended the conversation before it had answered all.
    """

    exit_status = 18

    def __init__(self, owed: str) -> None:
        super().__init__(owed)
        self.owed = owed

    def __str__(self) -> str:
        return f"the peer closed and left owing {self.owed}"


class NothingCame(PeerError):
    """
    The peer closed without having sent a single byte.
    """

    exit_status = 52

    def __str__(self) -> str:
        return "the peer closed without sending anything"


class ConnectionWasReset(PeerError):
    """
    The connection broke: a reset, an abort, a network that went away.
    """

    exit_status = 56

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"the connection broke: {self.problem}"


class HeadMalformed(PeerError):
    """
    The head of an HTTP response is malformed, cut short or too large.
    """

    exit_status = 8

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"the head of the response is malformed: {self.problem}"


class BodyMalformed(PeerError):
    """
    The framing of an HTTP body is broken.
    """

    exit_status = 56

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"the body of the response is malformed: {self.problem}"


class BodyCutShort(PeerError):
    """
    The connection ended before the body was complete; sizes are in bytes.

    Attributes:
        received: what came of the body.
        expected: what Content-Length promised; None where the body is chunked.
    """

    exit_status = 18

    def __init__(self, received: int, expected: int | None) -> None:
        super().__init__(received, expected)
        self.received = received
        self.expected = expected

    def __str__(self) -> str:
        if self.expected is None:
            return f"the body was cut short after {self.received} bytes"
        return f"the body was cut short: {self.received} of {self.expected} bytes came"


class TooLarge(PeerError):
    """
    A body is larger than the caller allowed; the limit is in bytes.

    Attributes:
        ratio: the times that a compressed body may grow, if that was the limit.
    """

    exit_status = 63

    def __init__(self, limit: int, ratio: int | None = None) -> None:
        super().__init__(limit, ratio)
        self.limit = limit
        self.ratio = ratio

    def __str__(self) -> str:
        if self.ratio is not None:
            return (
                f"the body grows by more than {self.ratio} times when it is decoded,"
                f" and has passed {self.limit} bytes"
            )
        return f"the body is larger than the {self.limit} bytes that are allowed"


class CodingMalformed(PeerError):
    """
    A body's content or transfer coding is not known, or its bytes are broken.
    """

    exit_status = 61

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"the body cannot be decoded: {self.problem}"


class StatusRefused(PeerError):
    """
    The status is 400 or more, and the caller had asked to fail then.
    """

    exit_status = 22

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason

    def __str__(self) -> str:
        return f"the response has status {self.status} {self.reason}".rstrip()


class RedirectRefused(PeerError):
    """
    A redirect leads where it must not be followed.
    """

    exit_status = 1

    def __init__(self, location: str, problem: str) -> None:
        super().__init__(location, problem)
        self.location = location
        self.problem = problem

    def __str__(self) -> str:
        return f"the redirect to {self.location!r} is not followed: {self.problem}"


class TooManyRedirects(PeerError):
    """
    One redirect led to the next, more often than is allowed.
    """

    exit_status = 47

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"more than {self.limit} redirects came"
