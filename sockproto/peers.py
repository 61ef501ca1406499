"""
Who a peer is where peers are counted, allowed and denied.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network

from twisted.internet import address as twisted_address

from sockproto.errors import SettingError

__all__ = ["UNIX", "Networks", "peer_group", "peer_group_of"]

UNIX = "unix"
"""The word that stands for all peers on unix sockets in a list of networks."""

# As plain integers: an enumeration's member costs more to look up and to pass.
_IPV4 = int(socket.AF_INET)
_IPV6 = int(socket.AF_INET6)

_IPV4_BYTES = 4
_IPV6_BYTES = 16
_MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96 (RFC 4291, section 2.5.5.2)
_GROUP = 8
"""Bytes of an IPv6 address that count; the rest a host chooses (RFC 4862)."""

_Network = IPv4Network | IPv6Network
_TwistedIP = twisted_address.IPv4Address | twisted_address.IPv6Address

_ALLOWED = (
    "a network such as 192.0.2.0/24 or 2001:db8::/32, an address without a scope,"
    f" or {UNIX}"
)


def peer_group(host: str) -> bytes | None:
    """
    Find the key by which a peer at this address is counted.

    It is an IPv4 address as such, also where an IPv6 socket shows it as
    `::ffff:a.b.c.d`, and an IPv6 address by its /64, since whoever has one address
    of a /64 has them all. Link-local ones of different scopes (`fe80::1%eth0`) are
    kept apart. The key is short and hashed with a secret: peers that choose their
    addresses cannot make a table of groups slow, as they could with integers.

    Returns:
        None, if it is no address; such peers cannot be told apart.
    """
    packed = _packed(host)
    if packed is None or len(packed) == _IPV4_BYTES:
        return packed
    scope = host.partition("%")[2]
    return packed[:_GROUP] + scope.encode("utf-8", "surrogatepass")


def peer_group_of(address: object) -> bytes | None:
    """
    Find the group of an address of Twisted's, as `peer_group` does of a host.

    Returns:
        None for a unix socket, and for all that has no IP address: not counted.
    """
    if isinstance(address, _TwistedIP):
        return peer_group(address.host)
    return None


def _packed(host: str) -> bytes | None:
    # This runs for each datagram. There is no cache, because a miss would cost
    # more than the work, and a flood of forged addresses is made of misses.
    try:
        if ":" not in host:
            return socket.inet_pton(_IPV4, host)
        packed = socket.inet_pton(_IPV6, host.partition("%")[0])
    except (OSError, ValueError):  # a NUL, or a letter that is none, is a ValueError
        return None
    return packed.removeprefix(_MAPPED)


class Networks:
    """
    A set of networks, from a setting's text; it can be asked for peers.

    `host in networks` is true of an address in one of them. A peer that an IPv6
    socket shows as `::ffff:a.b.c.d` is looked for among the IPv4 networks alone,
    `::/0` is every IPv6 peer and no IPv4 one, and scopes are looked through.
    `"unix" in networks` tells whether that word is in the list. To ask costs a step
    for each different prefix length, however many networks there are.

    An empty set is false. Sets are equal if their networks are. Iterating gives the
    words that would make the same set.

    Args:
        name: the setting, for errors.
        seen: networks, addresses, and `unix` for all peers on unix sockets; one
            text with commas, or several such texts.

    Raises:
        SettingError: one of them is something else, or names an address within the
            network instead of its first; the error then says which network it is.
    """

    def __init__(self, name: str, seen: object = ()) -> None:
        networks: list[_Network] = []
        self._unix = False
        for word in _words(name, seen):
            if word == UNIX:
                self._unix = True
            else:
                networks.append(_network(name, word))
        self._networks = tuple(dict.fromkeys(networks))
        # By the packed address's length, then by mask: where the networks start.
        self._starts: dict[int, dict[int, set[int]]] = {
            _IPV4_BYTES: {},
            _IPV6_BYTES: {},
        }
        for network in self._networks:
            masks = self._starts[network.max_prefixlen // 8]
            starts = masks.setdefault(int(network.netmask), set())
            starts.add(int(network.network_address))

    def __contains__(self, host: object) -> bool:
        if not isinstance(host, str):
            return False
        return self._unix if host == UNIX else self._has_host(host)

    def has(self, address: object) -> bool:
        """
        Tell whether a peer with this address of Twisted's is in the set.
        """
        if isinstance(address, twisted_address.UNIXAddress):
            return self._unix
        return isinstance(address, _TwistedIP) and self._has_host(address.host)

    def _has_host(self, host: str) -> bool:
        packed = _packed(host)
        if packed is None:
            return False
        number = int.from_bytes(packed, "big")
        for mask, starts in self._starts[len(packed)].items():
            if number & mask in starts:
                return True
        return False

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Networks):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[bool, frozenset[_Network]]:
        return self._unix, frozenset(self._networks)

    def __iter__(self) -> Iterator[str]:
        yield from map(str, self._networks)
        if self._unix:
            yield UNIX

    def __str__(self) -> str:
        return ",".join(self)

    def __repr__(self) -> str:
        return f"<Networks {self}>"


def _words(name: str, seen: object) -> Iterable[str]:
    texts = (seen,) if isinstance(seen, str) else seen
    if not isinstance(texts, Iterable):
        raise SettingError(name, seen, _ALLOWED)
    for text in texts:
        if not isinstance(text, str):
            raise SettingError(name, text, _ALLOWED)
        for word in text.split(","):
            yield word.strip()


def _network(name: str, word: str) -> _Network:
    # `ipaddress` would take masks (/255.255.255.0, and /0.0.0.255 as its reverse),
    # lengths with zeros before them, and scopes, which would not be compared.
    if not re.fullmatch(r"[0-9A-Fa-f.:]+(/(0|[1-9][0-9]{0,2}))?", word):
        raise SettingError(name, word, _ALLOWED)
    try:
        network = _unmapped(ip_network(word, strict=False))
        first = _unmapped(ip_network(word.partition("/")[0]))
    except ValueError:
        raise SettingError(name, word, _ALLOWED) from None
    if first.network_address != network.network_address:
        allowed = f"the network {network}, or the address {first.network_address},"
        raise SettingError(name, word, allowed)
    return network


def _unmapped(network: _Network) -> _Network:
    start = network.network_address
    if isinstance(start, IPv6Address) and start.ipv4_mapped is not None:
        return IPv4Network((start.ipv4_mapped, network.prefixlen - 8 * len(_MAPPED)))
    return network
