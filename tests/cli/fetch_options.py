"""
What `fetch` is asked for when it is given a URL and no option.
"""

from __future__ import annotations

from sockproto.cli.fetching import FetchOptions

__all__ = ["PLAIN"]

PLAIN = FetchOptions(
    urls=("http://h/a",),
    outputs=(),
    remote_name=False,
    include=False,
    head=False,
    verbose=False,
    headers=(),
    method=None,
    data=(),
    user=None,
    user_agent=None,
    location=False,
    max_redirs=20,
    fail=False,
    insecure=False,
    cacert=None,
    family=None,
    resolve=(),
    unix_socket=None,
    timeout=60.0,
    connect_timeout=None,
    max_time=None,
    max_filesize=None,
    compressed=False,
    raw=False,
    raw_request=None,
    report=None,
)
