"""
Endpoint descriptions, ours and Twisted's, and plain words for what is wrong with one.
"""

from __future__ import annotations

import errno
import math
import os
import re
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.error import CannotListenError

from sockproto.connecting import CONNECT_SECONDS, Host
from sockproto.errors import AddressMalformed, PlaceError

if TYPE_CHECKING:
    from twisted.internet.interfaces import (
        IStreamClientEndpoint,
        IStreamServerEndpoint,
    )

    from sockproto.connecting import Observer

__all__ = [
    "StreamPlace",
    "UdpPlace",
    "client_endpoint",
    "host_port",
    "listening_problem",
    "split_description",
    "stream_place",
    "udp_place",
]

HIGHEST_PORT = 65_535

_BRACKETED = re.compile(r"=\[([^\[\]]*)\]")
_HOST_PORT = re.compile(
    r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<host>[^:\[\]/=\\]+)):(?P<port>\d+)"
)

# At which positional value each kind of Twisted's has its port and its backlog.
_PORT_AT = {"tcp": 1, "tcp6": 1, "ssl": 1, "tls": 2}
_BACKLOG_AT = {"tcp": 3, "tcp6": 2, "ssl": 6, "tls": 3, "unix": 3}

_INTERFACE_AT = {"tcp": 2, "tcp6": 3, "ssl": 5, "tls": 4}

_INTERFACE_HINT = "an IPv6 interface is written interface=[::1]"


def split_description(description: str) -> tuple[list[str], dict[str, str]]:
    r"""
    Split an endpoint description at its colons, with Twisted's quoting.

    `a:b:c=d` has the positional values `a` and `b`, and `c` is `d`. A backslash
    takes its meaning from the character that follows; so do brackets around a
    value (`c=[::1]`), which is ours.

    Raises:
        ValueError: a backslash at the end.
    """
    text = _without_brackets(description)
    args: list[str] = []
    named: dict[str, str] = {}
    parts = [""]
    at = iter(text)
    for character in at:
        if character == "\\":
            following = next(at, None)
            if following is None:
                raise ValueError("it ends in a backslash")
            parts[-1] += following
        elif character == "=" and len(parts) == 1:
            parts.append("")
        elif character == ":":
            _take(parts, args, named)
            parts = [""]
        else:
            parts[-1] += character
    _take(parts, args, named)
    return args, named


def _take(parts: list[str], args: list[str], named: dict[str, str]) -> None:
    if len(parts) == 1:
        args.append(parts[0])
    else:
        named[parts[0]] = parts[1]


def _without_brackets(description: str) -> str:
    return _BRACKETED.sub(lambda m: "=" + m[1].replace(":", "\\:"), description)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"{text!r} is no port number")
    if len(text) > len(str(HIGHEST_PORT)) or int(text) > HIGHEST_PORT:
        raise ValueError(f"port {text} is above {HIGHEST_PORT}")
    return int(text)


def _port_to_reach(text: str) -> int:
    port = _port(text)
    if port == 0:
        raise ValueError("port 0 cannot be connected to")
    return port


def _with_kind(args: list[str]) -> list[str]:
    if not args:
        raise ValueError("it does not say what kind of place it is")
    return args


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ValueError(f"the timeout {text!r} is no number of seconds above 0")
    return seconds


# Servers


@dataclass(frozen=True, slots=True)
class StreamPlace:
    """
    Where a stream service listens.

    Attributes:
        endpoint: listens; of a `haproxy:` place, what is behind the proxy.
        behind_proxy: whether each connection begins with a header of the PROXY
            protocol.
        faces_network: whether others than this machine may reach it. Of a place
            that does not say, it is assumed.
    """

    endpoint: IStreamServerEndpoint
    behind_proxy: bool
    faces_network: bool


def stream_place(
    reactor: Any, service: str, description: str, backlog: int
) -> StreamPlace:
    """
    Turn a description into a place to listen on.

    Args:
        reactor: will listen.
        service: the one that will be there, for error messages.
        description: as of Twisted's `serverFromString`, all plugins included.
        backlog: of the listening socket, where the description has none.

    Raises:
        PlaceError: it cannot be understood, or a file it names cannot be read.
    """
    try:
        args, named = split_description(description)
        # "haproxy:" stands before the description of what it wraps.
        kind, *rest = _with_kind(args[1:] if args[:1] == ["haproxy"] else args)
        if kind == "stdio":
            raise ValueError("standard input and output are no place to listen on")
        at = _PORT_AT.get(kind)
        port = named.get("port", rest[at - 1] if at and len(rest) >= at else None)
        if at and port is not None:
            _port(port)
        text = _without_brackets(description)
        folder = named.get("path", rest[0] if rest else None)
        if kind == "tls" and folder and not any(Path(folder).glob("*.pem")):
            # Twisted looks into it only when a client has come.
            raise ValueError(f"no certificate (*.pem) is in the folder {folder!r}")
        if len(rest) < _BACKLOG_AT.get(kind, 0) and "backlog" not in named:
            text += f":backlog={backlog}"
        behind = text.removeprefix("haproxy:")
        endpoint: IStreamServerEndpoint = serverFromString(reactor, behind)
        if kind == "systemd":
            _check_family(endpoint)
    except Exception as error:
        # Parsers are anybody's code: a plugin raises what it likes.
        problem = _parsing_problem(description, error)
        raise PlaceError(service, description, problem) from error
    at = _INTERFACE_AT.get(kind)
    interface = named.get("interface", rest[at - 1] if at and len(rest) >= at else "")
    return StreamPlace(
        endpoint,
        behind_proxy=behind != text,
        # What is behind a proxy faces whatever the proxy does.
        faces_network=behind != text
        or (kind != "unix" and not _is_loopback(interface)),
    )


def _check_family(endpoint: Any) -> None:
    """
    Refuse a socket that systemd passed as another than it is.

    Twisted would take its peers' addresses for others, and so would our limits.
    """
    with socket.socket(fileno=os.dup(endpoint.fileno)) as passed:
        actual = passed.family
    if actual != endpoint.addressFamily:
        name = actual.name.removeprefix("AF_")
        raise ValueError(f"the socket that systemd has passed is of systemd:{name}")


def _is_loopback(interface: str) -> bool:
    try:
        return ip_address(interface.partition("%")[0]).is_loopback
    except ValueError:
        return False  # all of them, or one that is found out when it listens


def _spell_file(name: object) -> str:
    # A problem is one line, whatever a file is called.
    text = str(name)
    return text if text.isprintable() else repr(text)


def _parsing_problem(description: str, error: Exception) -> str:
    kind = description.removeprefix("haproxy:").partition(":")[0]
    message = " ".join(str(error).split()) or type(error).__name__
    if message.startswith("Unknown endpoint type"):
        return (
            f"{kind!r} is no kind of place;"
            " tcp, tcp6, unix, ssl, tls, systemd and haproxy are"
        )
    if isinstance(error, OSError) and error.strerror:
        name = _spell_file(error.filename or kind)
        return f"{name}: {error.strerror.lower()}"
    if kind == "systemd" and isinstance(error, KeyError):
        return f"systemd has passed no socket named {message}"
    if kind == "systemd" and isinstance(error, TypeError | IndexError):
        return "systemd has passed no such socket"
    if isinstance(error, TypeError | IndexError):
        message = re.sub(r"^.*?\b_?\w+\(\) ", "", message)
        hint = f"; {_INTERFACE_HINT}" if "::" in description else ""
        return f"it is not understood ({message}){hint}"
    if message.startswith("invalid literal for int"):
        return f"{message.partition(': ')[2]} is no number"
    if isinstance(error, KeyError):
        return f"there is nothing named {message}"
    return message


def listening_problem(error: BaseException | None) -> str:
    """
    Say why a place could not be listened on, and what to do.
    """
    # A unix socket has a path; Twisted's lock beside it fails on its own.
    is_path = bool(getattr(error, "filename", None))
    if isinstance(error, CannotListenError):
        is_path = isinstance(error.port, str | bytes)
        error = error.socketError
    number = getattr(error, "errno", None)
    # Twisted's, of the file beside a unix socket.
    locked = is_path and str(error) == "Cannot acquire lock"
    if number == errno.EADDRINUSE or locked:
        return "it is in use; stop what listens there, or choose another"
    if number in (errno.EACCES, errno.EPERM) and is_path:
        return "not permitted; the socket's folder has to let us write into it"
    if number in (errno.EACCES, errno.EPERM):
        return "not permitted; a port below 1024 needs root or CAP_NET_BIND_SERVICE"
    if number == errno.EADDRNOTAVAIL:
        return "no interface of this machine has that address"
    if number == errno.EMFILE:
        return "too many open files; raise the limit (ulimit -n)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


@dataclass(frozen=True, slots=True)
class UdpPlace:
    """
    Where a UDP service listens; an empty `interface` is every IPv4 one.
    """

    port: int
    interface: str = ""

    @property
    def faces_network(self) -> bool:
        """Whether others than this machine may reach it."""
        return not _is_loopback(self.interface)


def udp_place(service: str, description: str) -> UdpPlace:
    """
    Read `udp:PORT[:interface=ADDRESS]`, in the quoting of endpoint descriptions.

    Raises:
        PlaceError: it is not of that form.
    """
    try:
        args, named = split_description(description)
        if _with_kind(args)[0] != "udp":
            raise ValueError(f"{args[0]!r} is no kind of UDP place; udp is")
        if len(args) > 2 or (len(args) == 2 and "port" in named):
            raise ValueError(f"it has too many values; {_INTERFACE_HINT}")
        port = _port(args[1] if len(args) == 2 else named.pop("port", ""))
        interface = named.pop("interface", "")
        if interface and not (isIPAddress(interface) or isIPv6Address(interface)):
            raise ValueError(f"the interface {interface!r} is no IP address")
        if named:
            raise ValueError(f"it has no {next(iter(named))!r}; interface is all")
    except ValueError as error:
        raise PlaceError(
            service, description, f"{error} (udp:PORT[:interface=ADDRESS])"
        ) from error
    return UdpPlace(port, interface)


# Clients


def host_port(address: str) -> tuple[str, int] | None:
    """
    Read `HOST:PORT` or `[v6]:PORT`; None if it is neither.

    Raises:
        AddressMalformed: it is one, with a port that cannot be.
    """
    match = _HOST_PORT.fullmatch(address)
    if match is None:
        return None
    try:
        port = _port_to_reach(match["port"])
        v6 = match["v6"]
        # Twisted looks at nothing behind a `%`.
        if v6 and not (v6.isascii() and isIPv6Address(v6)):
            raise ValueError(f"{v6!r} is no IPv6 address")
    except ValueError as error:
        raise AddressMalformed(address, str(error)) from error
    return match["v6"] or match["host"], port


def client_endpoint(
    reactor: Any,
    address: str,
    *,
    family: int | None = None,
    observer: Observer | None = None,
) -> IStreamClientEndpoint:
    """
    Turn what a user calls an address into an endpoint to connect to.

    Args:
        reactor: will connect.
        address: `HOST:PORT`, `[v6]:PORT`, or a client endpoint description.
            `tls:HOST:PORT` proves the peer's name as `sockproto.tls` has it.
        family: 4 or 6, to take only addresses of that family of a host's.
        observer: is told what a host name resolved to.

    Raises:
        AddressMalformed: it is none of these.
    """
    host = host_port(address)
    if host is not None:
        return Host(reactor, *host, family=family, observer=observer)
    try:
        args, named = split_description(address)
        if args[0] == "tcp" and set(named) <= {"host", "port"}:
            rest = iter(args[1:])
            name = named.get("host") or next(rest)
            port = _port_to_reach(named.get("port") or next(rest, ""))
            if not name:
                raise ValueError("it has no host")
            if not list(rest):
                return Host(reactor, name, port, family=family, observer=observer)
        if args[0] == "tls":
            return _tls_endpoint(reactor, args[1:], named, family, observer)
        if args[0] == "ssl":
            raise ValueError(
                "ssl: proves no name; write tls:HOST:PORT,"
                " with trustRoots=DIRECTORY for an authority of your own"
            )
        endpoint: IStreamClientEndpoint = clientFromString(
            reactor, _without_brackets(address)
        )
    except Exception as error:
        raise AddressMalformed(address, _address_problem(address, error)) from error
    return endpoint


def _tls_endpoint(
    reactor: Any,
    args: list[str],
    named: dict[str, str],
    family: int | None,
    observer: Observer | None,
) -> IStreamClientEndpoint:
    from twisted.internet.ssl import PrivateCertificate, trustRootFromCertificates
    from twisted.python.filepath import FilePath

    from sockproto.tls import authorities_in, secured

    values = {**dict(zip(("host", "port"), args, strict=False)), **named}
    known = {"host", "port", "certificate", "privateKey", "trustRoots", "timeout"}
    if (
        len(args) > 2
        or not known.issuperset(values)
        or not {"host", "port"} <= set(values)
    ):
        raise ValueError(
            "TLS is tls:HOST:PORT[:trustRoots=DIRECTORY][:certificate=FILE]"
            "[:privateKey=FILE][:timeout=SECONDS]"
        )
    if not values["host"]:
        raise ValueError("it has no host")
    own = None
    if "certificate" in values:
        pem = FilePath(values["certificate"]).getContent()
        if "privateKey" in values:
            pem += b"\n" + FilePath(values["privateKey"]).getContent()
        own = PrivateCertificate.loadPEM(pem)
    roots = None
    if "trustRoots" in values:
        roots = trustRootFromCertificates(authorities_in(values["trustRoots"]))
    return secured(
        Host(
            reactor,
            values["host"],
            _port_to_reach(values["port"]),
            family=family,
            timeout_seconds=(
                _seconds(values["timeout"]) if "timeout" in values else CONNECT_SECONDS
            ),
            observer=observer,
        ),
        values["host"],
        trust_root=roots,
        certificate=own,
    )


def _address_problem(address: str, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{_spell_file(error.filename)}: {error.strerror.lower()}"
    if address.count(":") > 1 and isIPv6Address(address.rpartition(":")[0]):
        return "an IPv6 address goes in brackets: [::1]:9999"
    if ":" not in address:
        return "it has no port; HOST:PORT, [v6]:PORT or an endpoint description will do"
    message = " ".join(str(error).split())
    if message.startswith("Unknown endpoint type") or isinstance(
        error, TypeError | IndexError | KeyError | StopIteration
    ):
        return "HOST:PORT, [v6]:PORT or an endpoint description will do"
    return message or type(error).__name__
