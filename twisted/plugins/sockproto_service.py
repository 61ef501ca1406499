"""
Lets twistd and twist find the services; names them, and imports none of them.
"""

from twisted.application.service import ServiceMaker

sockproto = ServiceMaker(
    "sockproto",
    "sockproto.tap",
    "Hello and echo over TCP and UDP: the servers that socket tutorials begin with.",
    "sockproto",
)
