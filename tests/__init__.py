"""
The tests; the tree mirrors the package, and e2e/ has what needs real processes.
"""

from hypothesis import settings
from twisted._version import __version__ as version

# A slow machine is no failure.
settings.register_profile("sockproto", deadline=None)
settings.load_profile("sockproto")

# Older ones say what is wrong, and exit as if nothing was.
TWISTD_USAGE_STATUS = 1 if (version.major, version.minor) >= (26, 10) else 0
