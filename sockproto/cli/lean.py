"""
Starts the reactor without what a plain connection does not need.

Twisted's TCP imports OpenSSL where it is installed, and its text tools the
standard library's cookies: together a third of the time in which a small fetch
is over. TLS is imported by `sockproto.tls` if a connection turns out to need it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import LazyLoader, find_spec, module_from_spec

__all__ = ["import_reactor_without_tls"]

_TLS = "OpenSSL"
_REACTOR = ("twisted.internet.reactor", "twisted.internet.endpoints")


def import_reactor_without_tls() -> None:
    """
    Import the reactor as if OpenSSL were not installed, and then admit that it is.

    Without effect where either is imported already. Only for a program that has
    no `ssl:` or `tls:` endpoint descriptions: those of Twisted would say that
    there is no OpenSSL.
    """
    if _TLS in sys.modules or "twisted.internet" in sys.modules:
        return
    _import_when_used("http.cookiejar")
    sys.modules[_TLS] = None  # type: ignore[assignment]
    try:
        for name in _REACTOR:
            import_module(name)
    finally:
        del sys.modules[_TLS]


def _import_when_used(name: str) -> None:
    """Have a module of a package run when something of it is first used."""
    spec = find_spec(name)
    if spec is None or spec.loader is None or name in sys.modules:
        return
    spec.loader = LazyLoader(spec.loader)
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    package, _, child = name.rpartition(".")
    setattr(import_module(package), child, module)
