"""
The `sockproto` command.

What a command needs is imported when it runs: `--help` and `--version` answer
without Twisted.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from sockproto.cli.standard_files import reserve_standard_files, say
from sockproto.version import __version__

__all__ = ["main"]

USAGE, CANNOT_WRITE, INTERRUPTED = 2, 23, 130

_Command = Callable[..., None]
_Decorator = Callable[[_Command], _Command]

_ADDRESS = "HOST:PORT, [v6]:PORT or a client endpoint description"


def _shared(address: str | None, what: str = _ADDRESS) -> _Decorator:
    """Give a command the options that mean the same everywhere."""

    def decorate(command: _Command) -> _Command:
        options = [
            click.option("-4", "family", flag_value=4, type=int, help="IPv4 only."),
            click.option("-6", "family", flag_value=6, type=int, help="IPv6 only."),
            click.option(
                "-v", "--verbose", is_flag=True, help="Tell what happens on the socket."
            ),
        ]
        if address is not None:
            options.append(
                click.option(
                    "-c",
                    "--connect",
                    "address",
                    metavar="ADDRESS",
                    default=address,
                    show_default=True,
                    help=f"{what}.",
                )
            )
        for option in options:
            command = option(command)
        return command

    return decorate


def _finite(
    context: click.Context, option: click.Parameter, value: float | None
) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no number of seconds", context, option)
    return value


def _timeout(default: float | None, silence: str = "Seconds of silence") -> _Decorator:
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=default,
        show_default=default is not None,
        metavar="SECONDS",
        callback=_finite,
        help=f"{silence} from the peer to allow"
        + (" (for ever, if not given)." if default is None else "."),
    )


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit statuses are curl's: 0 done, 2 usage, 6 not resolved, 7 not connected,"
    " 18 cut short, 23 cannot write, 28 timed out, 56 reset, 60 certificate,"
    " 130 interrupted.",
)
@click.version_option(
    __version__, prog_name="sockproto", message="%(prog)s %(version)s"
)
def _sockproto() -> None:
    """
    The clients of socket tutorials, and their servers.
    """


@_sockproto.command("hello")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@_shared("127.0.0.1:9999")
@click.option(
    "--framing",
    type=click.Choice(["chunk", "line", "netstring"]),
    default="chunk",
    show_default=True,
    help="How names are told apart; chunk is one name at a time, one read an answer.",
)
@click.option("--no-greeting", is_flag=True, help="The server says nothing first.")
@_timeout(30)
def _hello(**options: Any) -> None:
    """
    Greet a hello service: print its greeting, and its answer to each NAME.

    Without names, it asks at a prompt, or takes a line each from a pipe. Then it
    says `exit`; so does a line `exit`.
    """
    from sockproto.cli.talking import hello

    hello(**options)


@_sockproto.command("udp")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@_shared("127.0.0.1:9999", "HOST:PORT or [v6]:PORT")
@_timeout(1, "Seconds of silence, a try,")
@click.option(
    "--tries",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="How many times a name is sent.",
)
@click.option(
    "--answer",
    default="Hello, NAME!",
    show_default=True,
    help="What the service's answers look like: they are matched to names by it.",
)
def _udp(**options: Any) -> None:
    """
    Greet a UDP hello service: one datagram a NAME.

    Without names, it asks at a prompt, or takes a line each from a pipe.
    """
    from sockproto.cli.talking import udp

    udp(**options)


@_sockproto.command("echo")
@_shared("127.0.0.1:10000")
@_timeout(None)
def _echo(**options: Any) -> None:
    """
    Send to an echo service, and print what comes back.

    On a terminal it asks at a prompt, and `exit` leaves. From a pipe it sends
    the bytes as they are, ends its side, and writes what comes back.
    """
    from sockproto.cli.piping import echo

    echo(**options)


@_sockproto.command("connect")
@click.argument("host")
@click.argument("port")
@_shared(None)
@click.option("--crlf", is_flag=True, help="Send each LF as CRLF.")
@_timeout(None)
def _connect(**options: Any) -> None:
    """
    A raw TCP conversation with HOST and PORT, which may be a service's name.

    Standard input goes to the socket, what the socket has to standard output.
    At the end of input our side is ended, and the peer heard to its end.
    """
    from sockproto.cli.piping import connect

    connect(**options)


_SECONDS = click.FloatRange(min=0, min_open=True)


@_sockproto.command("fetch")
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    "outputs",
    metavar="FILE",
    multiple=True,
    help="Save the body here, replacing what is there; `-` is standard output, and"
    " then the head is not shown. Once a URL.",
)
@click.option(
    "-O",
    "--remote-name",
    is_flag=True,
    help="Name the file after the URL's last segment, and replace nothing: as is"
    " done without.",
)
@click.option("-i", "--include", is_flag=True, help="With -o -: the head before it.")
@click.option("-I", "--head", is_flag=True, help="Ask for the head alone (HEAD).")
@click.option("-L", "--location", is_flag=True, help="Go where redirects lead.")
@click.option(
    "--max-redirs",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    metavar="NUMBER",
    help="How often.",
)
@click.option(
    "-f", "--fail", is_flag=True, help="Save nothing, and exit with 22, from 400 on."
)
@click.option(
    "-H",
    "--header",
    "headers",
    metavar="'NAME: VALUE'",
    multiple=True,
    help="Add a request header, or take the place of ours of that name; 'NAME:'"
    " leaves ours out. May be repeated.",
)
@click.option(
    "-X", "--request", "method", metavar="METHOD", help="In place of GET, or POST."
)
@click.option(
    "-d",
    "--data",
    multiple=True,
    metavar="DATA",
    help="POST this; @FILE sends a file's bytes as they are, @- standard input's.",
)
@click.option(
    "-u", "--user", metavar="NAME:PASSWORD", help="Basic authentication (RFC 7617)."
)
@click.option("-A", "--user-agent", metavar="NAME", help="Who we say that we are.")
@click.option(
    "--compressed", is_flag=True, help="Ask for gzip or deflate, and take it off."
)
@click.option(
    "--raw", is_flag=True, help="Take nothing off the body, not even its chunks."
)
@click.option(
    "--raw-request",
    metavar="FILE",
    help="Send these bytes, exactly, in place of a request of ours.",
)
@click.option(
    "-k", "--insecure", is_flag=True, help="Take whatever certificate there is."
)
@click.option(
    "--cacert", metavar="FILE", help="Authorities in PEM, in place of the system's."
)
@click.option(
    "--resolve",
    multiple=True,
    metavar="HOST:PORT:ADDRESS",
    help="Connect there, whatever the name resolves to. May be repeated.",
)
@click.option("--unix-socket", metavar="PATH", help="Connect there.")
@click.option(
    "--connect-timeout",
    type=_SECONDS,
    callback=_finite,
    metavar="SECONDS",
    help="For a connection, and for its TLS.",
)
@click.option(
    "--max-time",
    type=_SECONDS,
    callback=_finite,
    metavar="SECONDS",
    help="For all of a URL.",
)
@click.option(
    "--max-filesize",
    type=click.IntRange(min=0),
    metavar="BYTES",
    help="Of the body, decoded.",
)
@click.option(
    "--report",
    metavar="FILE",
    help="Write an account of what happened, a JSON object a URL, a line each; `-` is"
    " standard output, in place of the head.",
)
@_shared(None)
@_timeout(60)
def _fetch(**options: Any) -> None:
    """
    Fetch each URL over HTTP/1.1: print the response's head, save the body.

    The options are curl's where curl has them. There are no proxies, cookies,
    retries, resumed downloads or client certificates.
    """
    from sockproto.cli.lean import import_reactor_without_tls

    if not any(url.lower().startswith("https:") for url in options["urls"]):
        import_reactor_without_tls()
    from sockproto.cli.fetching import FetchOptions, fetch

    fetch(FetchOptions(**options))


@_sockproto.command(
    "serve",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def _serve(arguments: tuple[str, ...]) -> None:
    """
    Run the services, with the options of `twistd -n sockproto`, and some more.
    """
    from sockproto.errors import SettingError
    from sockproto.handover import Handover

    environment = dict(os.environ)
    try:
        handover = Handover.take()
    except SettingError as error:
        raise click.UsageError(str(error)) from error
    from sockproto.cli.serve import serve

    serve(arguments, handover, environment)


def main() -> NoReturn:
    """
    Run the command that the arguments name, and exit.
    """
    reserve_standard_files()
    try:
        # Not `main()` of click's: it makes a broken pipe status 1.
        with _sockproto.make_context("sockproto", sys.argv[1:]) as root:
            status = _sockproto.invoke(root)
    except click.exceptions.Exit as done:
        if sys.stdout is None:  # --help, and nowhere to write it
            _cannot_write("bad file descriptor")
        status = done.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        command = context.info_name if context and context.parent else None
        if context is None and sys.argv[1] in _sockproto.commands:
            command = sys.argv[1]  # click does not say whose option has no value
        prefix = f"sockproto: {command}" if command else "sockproto"
        say(f"{prefix}: {error.format_message()} ({USAGE})")
        sys.exit(USAGE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except OSError as error:
        if sys.stdout is sys.__stdout__:
            # What is still in its buffer would be complained of once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        _cannot_write((error.strerror or str(error)).lower())
    sys.exit(status if isinstance(status, int) else 0)


def _cannot_write(words: str) -> NoReturn:
    say(f"sockproto: cannot write to standard output: {words} ({CANNOT_WRITE})")
    sys.exit(CANNOT_WRITE)
