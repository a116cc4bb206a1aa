"""The command line of SASRec.pytorch and TiSASRec.pytorch; all of it is in `ensue.classic` (see `--help`)."""

from ensue.classic import main
from ensue.cli import leave

if __name__ == "__main__":
    leave(main())
