"""python -m asap.report: see asap/cli/report.py."""

from asap.cli.command import exit_with
from asap.cli.report import main

if __name__ == "__main__":
    exit_with(main)
