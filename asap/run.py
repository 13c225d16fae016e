"""python -m asap.run: see asap/cli/run.py."""

from asap.cli.run import main

if __name__ == "__main__":
    main()
