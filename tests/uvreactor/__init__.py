"""
What our reactor keeps of what Twisted's own do, tested on both.
"""
