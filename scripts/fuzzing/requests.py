"""
Requests of HTTP, what is asked, and the URLs that say where.
"""

from __future__ import annotations

import re

from fuzzing.targets import Given, target, told
from sockproto.errors import (
    HeaderNotSendable,
    RedirectRefused,
    SchemeNotSupported,
    UrlMalformed,
)
from sockproto.fetching.asking import Asking
from sockproto.fetching.url import Url
from sockproto.wire.request import Request, method_of
from sockproto.wire.response import HeadCame


def check_one_request(request: Request, sent: bytes) -> None:
    """What is sent reads back as this request and nothing else."""
    head, end, body = sent.partition(b"\r\n\r\n")
    assert end
    assert body == request.body
    start, *rest = head.split(b"\r\n")
    assert not any(byte in b"\r\n\0" for line in (start, *rest) for byte in line), sent
    method, target, version = start.split(b" ")
    assert (method.decode(), target, version) == (
        request.method,
        request.target,
        b"HTTP/1.1",
    )
    fields = [tuple(line.split(b": ", 1)) for line in rest]
    assert fields == list(request.headers), fields
    assert method_of(sent) == request.method


@target(
    b"GET\0/a\0Host\0localhost", b"POST\0/\0A\0b\0Cookie\0c", words=(b"\r\n", b": ")
)
def request(given: Given) -> None:
    """
    A request is refused, or is one request, which says what it was told to.
    """
    texts = given.stream.split(b"\0")
    method, wanted, *rest = [*texts, b"", b""][: max(2, len(texts))]
    pairs = tuple(zip(rest[::2], rest[1::2], strict=False))
    try:
        made = Request(method.decode("latin-1"), wanted, pairs, b"body")
    except HeaderNotSendable as error:
        told(error)
        return
    check_one_request(made, made.encode())


@target(
    b"http://a.test/\0/b\0GET\0A\0b",
    b"https://me:x@a.test/?q\0http://a.test\0POST\0Host\0b.test\0Content-Length\x001",
    b"http://a.test/\0//b.test/\0PUT\0Transfer-Encoding\0chunked",
    "http://a.test/\0//\uff1ab/".encode(),
    words=(
        *(c.encode() for c in "\uff1a\u202e\x9b"),
        b"http://",
        b"https://a.test",
        b"\r\n",
        b"\0Host\0",
        b"%2e%2e/",
        b"@",
    ),
)
def asking(given: Given) -> None:
    """
    What is asked is one request; no other origin is sent a secret by a redirect.
    """
    texts = given.text.split("\0") if given.has(7) else given.words
    url, location, method, *rest = [*texts, "", "", ""][: max(3, len(texts))]
    own: list[tuple[str, str | None]] = [
        *zip(rest[::2], rest[1::2], strict=False),
        ("Cookie", "secret"),
    ]
    try:
        parsed = Url.parse(url)
        asked = Asking.make(
            parsed,
            method or None,
            own,
            given.stream if given.has(0) else None,
            "me:secret",
            decompress=given.has(1),
        )
    except (HeaderNotSendable, UrlMalformed, SchemeNotSupported) as error:
        told(error)
        return
    check_one_request(asked.request(), asked.request().encode())
    status = (301, 302, 303, 307, 308, 200)[given.other % 6]
    try:
        raw = location.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return
    try:
        head = HeadCame(b"", "1.1", status, "", ((b"Location", raw),))
        following = asked.redirected(head)
    except RedirectRefused as error:
        told(error)
        return
    if following is None:
        assert status == 200 or not raw
        return
    check_one_request(following.request(), following.request().encode())
    assert (parsed.scheme, following.url.scheme) != ("https", "http")
    if following.url.origin != asked.url.origin:
        said = following.request().head
        secrets = (b"\r\nauthorization:", b"\r\ncookie:", b"secret")
        asks_for_it = "secret" in url + location + method + "".join(rest)
        assert asks_for_it or not any(each in said.lower() for each in secrets), said


@target(
    b"http://a.test/b?c#d",
    b"a.test",
    b"https://me:pw@[fe80::1%25eth0]:8443/%41?\xff",
    b"http://b\xc3\xbccher.test:80/../x;y",
    b"../c?d\0//e.test/f",
    b"http://[::]@[:]/",
    words=(
        *(c.encode() for c in "\uff1a\u202e\x9b"),
        *(b"http://", b"https://", b"@", b"[::1]", b"%25", b":80", b"?", b"#", b"//"),
    ),
)
def url(given: Given) -> None:
    """
    A URL is refused, or is the same when it is spelled and read again; its parts are
    fit for a request and its name for a file, and where it leads tells no secret.
    """
    text, _, reference = given.text.partition("\0")
    try:
        parsed = Url.parse(text)
    except (UrlMalformed, SchemeNotSupported) as error:
        told(error)
        parsed = Url.parse("http://a.test/b/c?d")
    check_url(parsed)
    try:
        joined = parsed.join(reference.encode("utf-8", "surrogatepass"))
    except (UrlMalformed, SchemeNotSupported) as error:
        told(error)
        return
    assert joined.user is None
    check_url(joined)


def check_url(parsed: Url) -> None:
    """Hold a URL to what the target `url` says."""
    spelled = str(parsed)
    again = Url.parse(spelled)
    for part in ("scheme", "host", "port", "target"):
        assert getattr(again, part) == getattr(parsed, part), (parsed, again)
    assert re.fullmatch(r"[!-~]+", spelled), spelled
    assert re.fullmatch(r"[a-z0-9._:%~-]+", parsed.host.lower()), parsed
    assert 0 < parsed.port < 65536, parsed
    assert parsed.target[0] == "/", parsed
    name = parsed.file_name
    assert 0 < len(name) <= 200, parsed
    assert "/" not in name, parsed
    assert name[0] != ".", parsed
