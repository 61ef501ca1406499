"""
The protocols as pure machines: bytes in, events out.

Nothing here knows Twisted, a clock or a socket.
"""
