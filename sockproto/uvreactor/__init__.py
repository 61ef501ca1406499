"""
A Twisted reactor on uvloop, whose TCP transports are uvloop's own.
"""

from sockproto.uvreactor.reactor import UvloopReactor, check_uvloop, install

__all__ = ["UvloopReactor", "check_uvloop", "install"]
