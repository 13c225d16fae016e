"""python -m asap.calibrate: see asap/cli/calibrate.py."""

from asap.cli.calibrate import main

if __name__ == "__main__":
    main()
