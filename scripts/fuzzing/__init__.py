"""
The targets of `fuzz.py`, by what they feed, and what makes inputs of others.
"""
