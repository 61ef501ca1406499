"""
The tests; the tree mirrors the package, and e2e/ has what needs real processes.
"""

import signal

from hypothesis import settings
from twisted._version import __version__ as version

# A slow machine is no failure.
settings.register_profile("sockproto", deadline=None)
settings.load_profile("sockproto")

# Older ones say what is wrong, and exit as if nothing was.
TWISTD_USAGE_STATUS = 1 if (version.major, version.minor) >= (26, 10) else 0

# What `nohup` starts, or a script's `&`, ignores these signals, and so would all
# programs that tests start, which are sent them. Who handles one passes on nothing.
for _number in (signal.SIGHUP, signal.SIGINT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)
