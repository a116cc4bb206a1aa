"""`python -m ensue` is the command `ensue`."""

import os
import sys

from ensue.cli import main

if __name__ == "__main__":
    status = main()
    if "RANK" in os.environ:  # one of several, started by torchrun
        from ensue.train.distributed import end

        end(status)
    sys.exit(status)
