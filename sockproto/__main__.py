"""
Runs the command as `python -m sockproto`.
"""

from sockproto.cli import main

if __name__ == "__main__":
    main()
