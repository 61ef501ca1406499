"""
Lets twistd, twist and trial find the reactor; names it, and imports none of it.
"""

from twisted.application.reactors import Reactor

uvloop = Reactor(
    "uvloop",
    "sockproto.uvreactor",
    "Twisted on uvloop, TCP by uvloop's own transports (the extra sockproto[uvloop]).",
)
