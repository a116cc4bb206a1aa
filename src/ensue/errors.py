"""The errors that a user can cause. Each message names the thing, the rule and the value that breaks it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def printable(text: str) -> str:
    """The text with control characters written as escapes, so that the content of a file cannot steer a terminal.

    >>> printable("a" + chr(27) + "[31m")
    'a\\x1b[31m'
    """
    return "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text)


class EnsueError(ValueError):
    """Bad input or bad files; the command line prints one line, without a traceback.

    Args:
        message: the thing, the rule, the value and what to do; control characters in it are written as escapes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class ConfigError(EnsueError):
    """A setting is unknown or out of range, or settings contradict each other."""


class DataError(EnsueError):
    """A log, a store or a split breaks a rule."""


class ArtefactError(EnsueError):
    """A file of a run or store folder is missing, altered, foreign or truncated."""


class TrainingError(EnsueError):
    """Training cannot continue: another training writes to the folder, or a rank is lost."""


class LostRankError(TrainingError):
    """Another rank of the training was killed, failed or does not answer."""


class InterruptedTrainingError(TrainingError):
    """A signal ended the training of a command.

    Attributes:
        status: the exit status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class NotFiniteError(TrainingError):
    """The loss or the gradient is NaN or infinite."""


class OtherRunError(TrainingError):
    """The folder contains a run of other data or settings."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggest the known name that is nearest to `name`, and list the known names.

    >>> nearest("sasrek", ["sasrec", "markov"])
    "did you mean 'sasrec'? Known: markov, sasrec"
    """
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(names) or 'none'}"


def counted(count: int, noun: str) -> str:
    """A number of things, in words.

    >>> counted(1, "epoch"), counted(1200, "epoch")
    ('1 epoch', '1,200 epochs')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8; not so are half characters, and names of files in other encodings."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
