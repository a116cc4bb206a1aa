"""The command line of SASRec.pytorch and TiSASRec.pytorch, mapped to this package, and their `.pth` files."""

from ensue.classic.run import main

__all__ = ["main"]
