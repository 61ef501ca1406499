"""
The tutorials' echo client: HOST PORT LINE ...
"""

# ruff: noqa: T201

import socket
import sys

s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
s.connect((sys.argv[1], int(sys.argv[2])))
for line in sys.argv[3:]:
    s.send(line.encode())
    print(s.recv(1024).decode("utf-8"))
s.close()
