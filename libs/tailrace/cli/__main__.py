"""`python -m tailrace.cli`: the `tailrace` command where it is not on the path."""

from __future__ import annotations

from tailrace.cli import main

main()
