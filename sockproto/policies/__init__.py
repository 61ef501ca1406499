"""
Wrappers that fit any factory; none imports another.
"""
