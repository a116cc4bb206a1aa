"""The command line of SASRec.pytorch and TiSASRec.pytorch; all of it is in `ensue.classic` (see `--help`)."""

import os
import sys

from ensue.classic import main
from ensue.train.distributed import end

if __name__ == "__main__":
    status = main()
    if "RANK" in os.environ:  # one of several, started by torchrun
        end(status)
    sys.exit(status)
