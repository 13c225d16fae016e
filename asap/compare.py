"""python -m asap.compare: see asap/cli/compare.py."""

from asap.cli.command import exit_with
from asap.cli.compare import main

if __name__ == "__main__":
    exit_with(main)
