"""`python -m tailrace.node.confined --read A:B --write C -- PROGRAM ...`: a program held as a worker is.

It has the network, reads and lists what is given besides the machine's programs and libraries, and writes below what is
given. For programs that run what others wrote, as building a package does.
"""

from __future__ import annotations

import argparse
import ctypes
import os

from tailrace.node._confine import Reach, confine

__all__ = ["main"]

_PR_SET_NO_NEW_PRIVS = 38


def main() -> None:
    """Confine this process, then become the program."""
    parser = argparse.ArgumentParser(prog="tailrace.node.confined", description=__doc__)
    parser.add_argument("--read", default="", help="files and folders, with colons between them")
    parser.add_argument("--write", default="", help="folders, with colons between them")
    parser.add_argument("program", nargs="+")
    given = parser.parse_args()
    reads, writes = (tuple(filter(None, text.split(":"))) for text in (given.read, given.write))
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    confine(Reach(reads=reads, writes=writes))
    os.execvp(given.program[0], given.program)  # noqa: S606 - that is what it is for


if __name__ == "__main__":
    main()
