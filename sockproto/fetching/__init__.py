"""
The HTTP client of the tutorials: one request, its response as it came.

The package is not named `fetch`, since a module of that name would take the
place of the function `sockproto.fetch`.
"""

from sockproto.fetching.client import Response, fetch
from sockproto.fetching.protocol import FetchObserver, FetchProtocol, Sink
from sockproto.fetching.saving import Saving
from sockproto.fetching.url import Url

__all__ = [
    "FetchObserver",
    "FetchProtocol",
    "Response",
    "Saving",
    "Sink",
    "Url",
    "fetch",
]
