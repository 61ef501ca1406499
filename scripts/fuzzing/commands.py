"""
Arguments of commands, and a file that one of them names.
"""

from __future__ import annotations

import contextlib
import io
import math
from ipaddress import ip_address
from pathlib import Path

import click

from fuzzing.places import without_slashes
from fuzzing.requests import check_one_request
from fuzzing.targets import Given, target, told
from sockproto import cli
from sockproto.cli import fetching as fetch_command
from sockproto.errors import SockprotoError, TrustMalformed
from sockproto.fetching.asking import Asking
from sockproto.fetching.url import Url
from sockproto.tls import trust_in


@target(
    b"http://a.test/\0-o\0-\0-H\0A: b\0-d\0x",
    b"a.test\0--resolve\0a.test:80:192.0.2.1,[::1]\0-u\0me:pw\0-L\0-A\0",
    b"a.test\0-I\0-X\0GET\0--max-redirs\x003\0--timeout=1e3\0-4\0-6",
    b"a\0b\0-o\0c\0--raw-request\0-\0--report\0-\0-d\0@-",
    words=(
        b"--resolve\0",
        b"--raw-request\0",
        b"-H\0",
        b"-d\0@",
        b"-u\0",
        b"nan",
        b";",
    ),
)
def fetch_options(given: Given) -> None:
    """
    Arguments of `fetch` are those of a request, or what is wrong is said in a line.
    """
    words = [
        without_slashes(word).replace("http:__", "http://") for word in given.words
    ]
    command = cli._sockproto.commands["fetch"]  # noqa: SLF001 - it has no other name
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            params = command.make_context("fetch", words).params
        asked = fetch_command.FetchOptions(**params)
        arguments = fetch_command._arguments(asked)  # noqa: SLF001
        outputs = fetch_command._outputs(asked)  # noqa: SLF001
        assert len(outputs) == len(asked.urls)
        for each in asked.urls:
            made = Asking.make(
                Url.parse(each),
                arguments["method"],
                arguments["headers"],
                arguments["body"],
                arguments["user"],
                decompress=arguments["decompress"],
            )
            check_one_request(made.request(), made.request().encode())
        for (host, port), addresses in arguments["resolve"].items():
            assert host == host.lower()
            assert 0 < port < 65536
            for address in addresses:
                ip_address(address)
    except click.exceptions.Exit:
        return
    except click.ClickException as error:
        told(error)
    except SockprotoError as error:
        told(error)


@target(
    b"hello\0-c\0a.test:9\0--framing=line\0Michael",
    b"udp\0--tries=2\0--timeout=1\0x",
    b"connect\0a.test\0smtp\0--crlf",
    b"serve\0--hello=tcp:1",
    b"hello\0--timeout=inf",
    words=(b"--framing=", b"--timeout=", b"--tries=", b"-c", b"-v", b"-4"),
)
def commands(given: Given) -> None:
    """
    Arguments of a command are read, or refused by its name.
    """
    name, *words = given.words or ["hello"]
    group = cli._sockproto  # noqa: SLF001 - it has no other name
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            group.make_context("sockproto", [name, *words])
            command = group.commands.get(name)
            if command is not None:
                timeout = command.make_context(name, words).params.get("timeout")
                assert timeout is None or 0 < timeout < math.inf, timeout
    except click.exceptions.Exit:
        return
    except click.ClickException as error:
        told(error)


@target(
    b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    b"x",
    words=(b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----", b"MIIC"),
)
def authorities(given: Given) -> None:
    """
    A file has authorities in it, or is refused.
    """
    place = Path("authorities.pem")
    place.write_bytes(given.stream)
    with contextlib.suppress(TrustMalformed):
        trust_in(str(place))
