"""The errors a user can cause. Each message names the thing, the rule and the value that broke it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EnsueError(ValueError):
    """Bad input or a bad state of files: shown as one line on the command line, without a traceback."""


class ConfigError(EnsueError):
    """A setting is unknown or out of range."""


class DataError(EnsueError):
    """A log, a store or a split breaks a rule."""


class ArtefactError(EnsueError):
    """A file of a run or store folder is missing, altered, foreign or truncated."""


class TrainingError(EnsueError):
    """Training cannot go on: another training writes there, or a rank is lost."""


class NotFiniteError(TrainingError):
    """The loss or the gradient is NaN or infinite."""


class OtherRunError(TrainingError):
    """The folder holds a run of other data or settings."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known name `name` was probably meant to be, and list the known ones.

    >>> nearest("sasrek", ["sasrec", "markov"])
    "did you mean 'sasrec'? Known: markov, sasrec"
    """
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(names) or 'none'}"
