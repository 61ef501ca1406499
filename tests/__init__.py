"""
The tests; the tree mirrors the package, and e2e/ has what needs real processes.
"""

from hypothesis import settings

# A slow machine is no failure.
settings.register_profile("sockproto", deadline=None)
settings.load_profile("sockproto")
