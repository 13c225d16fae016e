"""python -m asap.dashboards: see asap/cli/dashboards.py."""

from asap.cli.command import exit_with
from asap.cli.dashboards import main

if __name__ == "__main__":
    exit_with(main)
