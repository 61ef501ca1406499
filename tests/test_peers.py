"""
Who a peer is where peers are counted, allowed and denied.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from hypothesis import assume, example, given, strategies as st
from twisted.internet.address import (
    HostnameAddress,
    IPv4Address as TwistedIPv4,
    IPv6Address as TwistedIPv6,
    UNIXAddress,
)
from twisted.trial.unittest import SynchronousTestCase

from sockproto.errors import SettingError
from sockproto.peers import UNIX, Networks, peer_group, peer_group_of

NO_ADDRESSES = ("", "localhost", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.256", ":")
ODD = ("\0", "1.2.3.4\0", "::1\0", "\udcff", ":\udcff", "1.2.3.\u0664", UNIX)

# Few bits, so that addresses and networks meet.
HOSTS = st.one_of(
    st.ip_addresses(),
    st.integers(0, 15).map(lambda low: IPv4Address(0xC0000200 | low)),
    st.integers(0, 15).map(lambda low: IPv6Address(0x20010DB8 << 96 | low)),
)
NETWORKS = st.builds(
    lambda host, spare: ip_network(
        (host, max(0, host.max_prefixlen - spare)), strict=False
    ),
    HOSTS.filter(lambda host: getattr(host, "ipv4_mapped", None) is None),
    st.one_of(st.integers(0, 4), st.integers(0, 128)),
)


def as_mapped(host: str) -> str:
    """An IPv4 address as an IPv6 socket shows it; an IPv6 one as it is."""
    return host if ":" in host else f"::ffff:{host}"


class PeerGroupTests(SynchronousTestCase):
    @given(one=st.ip_addresses(v=4), other=st.ip_addresses(v=4))
    def test_ipv4(self, one: IPv4Address, other: IPv4Address) -> None:
        """Each IPv4 address is counted by itself, on an IPv6 socket as well."""
        group = peer_group(str(one))
        self.assertIsNotNone(group)
        self.assertEqual(group, peer_group(as_mapped(str(one))))
        self.assertEqual(group, peer_group(f"::FFFF:{one}%lo"))
        self.assertEqual(group == peer_group(str(other)), one == other)

    @given(high=st.integers(1, 2**64 - 1), one=st.integers(0), other=st.integers(0))
    def test_ipv6(self, high: int, one: int, other: int) -> None:
        """Who has one address of a /64 is counted as one with all the others in it."""
        groups = {
            peer_group(str(IPv6Address(high << 64 | low % 2**64)))
            for low in (one, other)
        }
        self.assertEqual(len(groups), 1)
        self.assertNotIn(None, groups)
        self.assertNotIn(peer_group(str(IPv6Address((high ^ 1) << 64))), groups)

    def test_scopes(self) -> None:
        """The same link-local network on two links is two."""
        hosts = ["fe80::1", "fe80::1%eth0", "fe80::1%eth1", "fe80::1%\udcff"]
        self.assertEqual(len({peer_group(host) for host in hosts}), 4)
        self.assertEqual(peer_group("fe80::1%eth0"), peer_group("fe80::2%eth0"))

    def test_families_apart(self) -> None:
        """No IPv6 network is taken for an IPv4 address."""
        hosts = ["1.2.3.4", "::1.2.3.4", "102:304::", "::1", "0.0.0.1"]
        self.assertEqual(len({peer_group(host) for host in hosts}), 4)
        self.assertEqual(peer_group("::1.2.3.4"), peer_group("::1"))  # one /64

    def test_no_address(self) -> None:
        """What is no address is not counted."""
        for host in (*NO_ADDRESSES, *ODD):
            self.assertIsNone(peer_group(host), repr(host))

    @given(host=st.one_of(st.text(), st.text("0123456789abcdef.:%\0\udcff")))
    def test_any_text(self, host: str) -> None:
        """A host may be any text; behind a proxy it is what that says."""
        peer_group(host)
        self.assertNotIn(host, Networks("allow"))

    def test_of_an_address(self) -> None:
        """An address of Twisted's is counted as its host is, and others are not."""
        self.assertEqual(
            peer_group_of(TwistedIPv4("TCP", "192.0.2.1", 80)), peer_group("192.0.2.1")
        )
        self.assertEqual(
            peer_group_of(TwistedIPv6("UDP", "2001:db8::1", 80)),
            peer_group("2001:db8::"),
        )
        for address in (
            UNIXAddress(b"/run/hello.sock"),
            UNIXAddress(None),
            HostnameAddress(b"192.0.2.1", 80),
            TwistedIPv4("TCP", UNIX, 80),
            None,
        ):
            self.assertIsNone(peer_group_of(address), address)


class NetworksTests(SynchronousTestCase):
    @given(networks=st.lists(NETWORKS, max_size=6), host=HOSTS)
    def test_contains(self, networks: list[object], host: object) -> None:
        """An address is in the set if it is in one of the networks."""
        expected = any(
            ip_address(str(host)) in ip_network(str(network)) for network in networks
        )
        ours = Networks("allow", [str(network) for network in networks])
        assume(getattr(host, "ipv4_mapped", None) is None)
        self.assertEqual(str(host) in ours, expected)
        self.assertEqual(as_mapped(str(host)) in ours, expected)
        self.assertEqual(f"{as_mapped(str(host))}%lo" in ours, expected)

    @given(networks=st.lists(NETWORKS, min_size=1, max_size=6), space=st.booleans())
    def test_commas(self, networks: list[object], space: bool) -> None:
        """Networks may stand in one text or in several, and can be written out."""
        words = [str(network) for network in networks]
        ours = Networks("allow", words)
        self.assertEqual(Networks("allow", (", " if space else ",").join(words)), ours)
        self.assertEqual(Networks("allow", str(ours)), ours)
        self.assertEqual(Networks("allow", ours), ours)
        self.assertEqual(Networks("allow", [*words, *words[::-1]]), ours)
        self.assertEqual(str(Networks("allow", words * 2)), str(ours))
        self.assertEqual(hash(Networks("deny", words[::-1])), hash(ours))
        self.assertTrue(ours)

    @given(
        seen=st.one_of(
            st.text(),
            st.text("0123456789abcdef.:/,% "),
            st.builds("{}/{}".format, HOSTS, st.text("0123456789-+ ")),
            st.lists(st.one_of(st.text(), st.integers(), st.binary()), min_size=1),
            st.integers(),
            st.none(),
        )
    )
    @example(seen="unix")
    @example(seen=b"192.0.2.1")
    def test_any_value(self, seen: object) -> None:
        """Whatever is given is a set of networks or refused by the setting's name."""
        try:
            networks = Networks("deny", seen)
        except SettingError as error:
            self.assertEqual(error.name, "deny")
            self.assertIn(repr(error.seen), str(error))
        else:
            self.assertEqual(Networks("deny", str(networks)), networks)

    @given(network=NETWORKS, more=st.integers(1, 2**128))
    def test_bits_beyond_the_length(self, network: object, more: int) -> None:
        """Who names a host in a network is told which network that is."""
        whole = ip_network(str(network))
        host = whole[more % whole.num_addresses]
        assume(host != whole[0])
        assume(getattr(host, "ipv4_mapped", None) is None)
        with self.assertRaises(SettingError) as caught:
            Networks("allow", f"{host}/{whole.prefixlen}")
        self.assertEqual(caught.exception.seen, f"{host}/{whole.prefixlen}")
        self.assertIn(
            f"the network {whole}, or the address {host},", str(caught.exception)
        )

    def test_error(self) -> None:
        """An error says the setting, what was seen and what is allowed."""
        with self.assertRaises(SettingError) as caught:
            Networks("allow", "192.0.2.0/24,192.0.2.77/24")
        self.assertEqual(
            str(caught.exception),
            "allow is '192.0.2.77/24', where the network 192.0.2.0/24, or the address"
            " 192.0.2.77, is allowed",
        )
        with self.assertRaises(SettingError) as caught:
            Networks("deny", "example.org")
        self.assertEqual(
            str(caught.exception),
            "deny is 'example.org', where a network such as 192.0.2.0/24 or"
            " 2001:db8::/32, an address without a scope, or unix is allowed",
        )

    def test_refused(self) -> None:
        """Masks, short forms, scopes and gaps are refused: they could be mistakes."""
        for word in (
            *NO_ADDRESSES,
            "192.0.2.0/255.255.255.0",
            "192.0.2.0/0.0.0.255",
            "192.0.2.0/024",
            "192.0.2.0/33",
            "192.0.2.0/-1",
            "192.0.2.0/",
            "192.0.2.0/24/24",
            "192.0.2/24",
            "2001:db8::/129",
            "fe80::1%eth0",
            "[::1]",
            "192.0.2.1,",
            ",192.0.2.1",
            "192.0.2.1,,192.0.2.2",
            "192.0.2.1 192.0.2.2",
            "192.0.2.\u0661",
            "UNIX",
        ):
            self.assertRaises(SettingError, Networks, "allow", word)

    def test_mapped(self) -> None:
        """A network that is written as an IPv6 socket shows it is the IPv4 one."""
        self.assertEqual(
            Networks("allow", "::ffff:192.0.2.0/120"),
            Networks("allow", "192.0.2.0/24"),
        )
        self.assertIn("192.0.2.1", Networks("allow", "::ffff:192.0.2.1"))
        self.assertIn("192.0.2.1", Networks("allow", "::ffff:0:0/96"))
        self.assertRaises(SettingError, Networks, "allow", "::ffff:0:0/95")
        with self.assertRaises(SettingError) as caught:
            Networks("allow", "::ffff:192.0.2.1/120")
        self.assertIn("the network 192.0.2.0/24,", str(caught.exception))

    def test_everybody(self) -> None:
        """`0.0.0.0/0` is every IPv4 peer on whatever socket, `::/0` every IPv6 one."""
        ipv4, ipv6 = Networks("allow", "0.0.0.0/0"), Networks("allow", "::/0")
        for host in ("192.0.2.1", "::ffff:192.0.2.1"):
            self.assertIn(host, ipv4)
            self.assertNotIn(host, ipv6)
        self.assertIn("2001:db8::1", ipv6)
        self.assertNotIn("2001:db8::1", ipv4)

    def test_unix(self) -> None:
        """The word `unix` is for peers on unix sockets, and for nobody else."""
        networks = Networks("allow", "192.0.2.0/24,unix")
        self.assertIn(UNIX, networks)
        self.assertTrue(networks.has(UNIXAddress(None)))
        self.assertTrue(networks.has(TwistedIPv4("TCP", "192.0.2.1", 80)))
        self.assertFalse(networks.has(TwistedIPv4("TCP", "198.51.100.1", 80)))
        self.assertFalse(networks.has(TwistedIPv4("TCP", UNIX, 80)))
        self.assertFalse(networks.has(None))
        self.assertEqual(str(networks), "192.0.2.0/24,unix")
        without = Networks("allow", "0.0.0.0/0,::/0")
        self.assertNotIn(UNIX, without)
        self.assertFalse(without.has(UNIXAddress(None)))
        self.assertNotEqual(Networks("allow", UNIX), Networks("allow"))
        self.assertTrue(Networks("allow", UNIX))

    def test_empty(self) -> None:
        """Without networks the set is empty, which is not the empty text."""
        self.assertFalse(Networks("allow"))
        self.assertFalse(Networks("allow", []))
        self.assertNotIn("192.0.2.1", Networks("allow"))
        self.assertNotIn(7, Networks("allow"))
        self.assertNotEqual(Networks("allow"), None)
        self.assertEqual(repr(Networks("allow", "::1")), "<Networks ::1/128>")
        self.assertRaises(SettingError, Networks, "allow", "")
