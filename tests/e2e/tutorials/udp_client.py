"""
The tutorials' UDP client: HOST PORT.
"""

# ruff: noqa: T201

import socket
import sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for data in [b"Michael", b"Tracy", b"Sarah"]:
    s.sendto(data, (sys.argv[1], int(sys.argv[2])))
    print(s.recv(1024).decode("utf-8"))
s.close()
