"""`python -m ensue` is the command `ensue`."""

import sys

from ensue.cli import main

if __name__ == "__main__":
    sys.exit(main())
