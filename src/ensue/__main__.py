"""`python -m ensue` is the command `ensue`."""

from ensue.cli import leave, main

if __name__ == "__main__":
    leave(main())
