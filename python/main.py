"""The command line of SASRec.pytorch and TiSASRec.pytorch; all of it is in `ensue.classic` (see `--help`)."""

import sys

from ensue.classic import main

if __name__ == "__main__":
    sys.exit(main())
