"""python -m asap.show: see asap/cli/show.py."""

from asap.cli.show import main

if __name__ == "__main__":
    main()
