"""
Places and addresses; no name of a file among them may leave the empty folder.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any

from twisted.internet.endpoints import _parse as split_by_twisted
from twisted.internet.testing import MemoryReactorClock

from fuzzing.targets import Given, target, told
from sockproto import places, spelling
from sockproto.errors import AddressMalformed, PlaceError

PLACE_WORDS = (
    *(b"tcp:", b"tcp6:", b"udp:", b"unix:", b"ssl:", b"tls:", b"systemd:", b"stdio:"),
    *(b":interface=", b"127.0.0.1", b"[::1]", b"\\:\\:1", b":port=", b":backlog="),
    *(b"privateKey=", b"0.0.0.0", b"localhost", b"65536", b"haproxy:", b":host="),
    *(b":timeout=", b"trustRoots=", b"certificate=", b"\\", b"="),
)


def without_slashes(text: str) -> str:
    """The text as it can name no file elsewhere, nor a device."""
    return text.replace("/", "_")


@target(
    b"tcp:9999:interface=127.0.0.1",
    b"haproxy:tcp\\:9:interface=[::1]:a=b=c",
    b"a\\",
    words=PLACE_WORDS,
)
def split(given: Given) -> None:
    """
    A description without brackets is split as Twisted splits it.
    """
    text = given.text
    try:
        found = places.split_description(text)
    except ValueError as error:
        told(error)
        return
    # Twisted takes names in ASCII alone, and has no brackets.
    if text.isascii() and "=[" not in text:
        args, named = split_by_twisted(text)
        assert found == (list(args), dict(named)), (found, args, named)


@target(
    b"tcp:9999:interface=127.0.0.1",
    b"tcp6:9999:interface=[::1]:backlog=5",
    b"haproxy:tcp:9999:127.0.0.1",
    b"unix:hello.sock:mode=660",
    b"ssl:9443:privateKey=key.pem:certKey=cert.pem",
    b"tls:certificates:9443",
    b"systemd:INET:index=0",
    b"tcp:port=1:interface=",
    words=PLACE_WORDS,
)
def stream_place(given: Given) -> None:
    """
    A description is a place, or one line says what is wrong; a place that is said to
    be this machine's alone listens on loopback or a unix socket, and the backlog and
    the port are within bounds.
    """
    text = without_slashes(given.text)
    try:
        place = places.stream_place(MemoryReactorClock(), "hello", text, 511)
    except PlaceError as error:
        told(error)
        return
    endpoint: Any = place.endpoint
    while hasattr(endpoint, "_wrappedEndpoint"):
        endpoint = endpoint._wrappedEndpoint  # noqa: SLF001 - nothing else tells
    interface = getattr(endpoint, "_interface", None)
    port = getattr(endpoint, "_port", None)
    assert port is None or isinstance(port, str) or 0 <= port <= 65535, port
    if not place.faces_network:
        local = type(endpoint).__name__ == "UNIXServerEndpoint"
        assert local or ip_address(str(interface).partition("%")[0]).is_loopback, text
    if place.behind_proxy:
        assert "haproxy" in text


@target(
    b"udp:9999:interface=127.0.0.1", b"udp:port=9:interface=[::1]", words=PLACE_WORDS
)
def udp_place(given: Given) -> None:
    """
    A description is a place, or one line says what is wrong; spelled again, it is
    the same.
    """
    try:
        place = places.udp_place("udp", given.text)
    except PlaceError as error:
        told(error)
        return
    assert 0 <= place.port <= 65535
    spelled = f"udp:{place.port}"
    if place.interface:
        ip_address(place.interface.partition("%")[0])
        quoted = re.sub(r"([\\:])", r"\\\1", place.interface)
        if not re.search(r"=\[", spelled + f":interface={quoted}"):
            spelled += f":interface={quoted}"
            assert places.udp_place("udp", spelled) == place, spelled


@target(
    b"127.0.0.1:9999", b"[::1]:80", b"[fe80::1%eth0]:80", b"a.test:0", words=(b"[",)
)
def host_port(given: Given) -> None:
    """
    HOST:PORT is read or refused; what is read leads somewhere, and reads back.
    """
    text = given.text
    try:
        found = places.host_port(text)
    except AddressMalformed as error:
        told(error)
        return
    if found is None:
        return
    host, port = found
    assert host
    assert 0 < port < 65536
    if not host.lower().startswith("::ffff:"):
        assert places.host_port(spelling.host_and_port(host, port)) == found, found


@target(
    b"127.0.0.1:9999",
    b"tcp:a.test:80:timeout=5",
    b"tls:a.test:443:trustRoots=certificates:timeout=3",
    b"unix:hello.sock",
    b"ssl:a.test:443",
    b"tcp:host=a.test:port=9",
    b"tls:a.test:443:trustRoots=a\nb",
    words=PLACE_WORDS,
)
def client_endpoint(given: Given) -> None:
    """
    An address is an endpoint, or one line says what is wrong with it.
    """
    text = without_slashes(given.text)
    family = (None, 4, 6)[given.choice % 3]
    try:
        endpoint: Any = places.client_endpoint(
            MemoryReactorClock(), text, family=family
        )
    except AddressMalformed as error:
        told(error)
        return
    assert callable(endpoint.connect)
