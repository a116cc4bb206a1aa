"""A log that can be read in more than one way: the question, three rows, and the possible answers."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ensue.errors import DataError

# Rows shown of a log in doubt.
SHOWN_ROWS = 3


@dataclass(frozen=True)
class Answer:
    """One reading of a log.

    Attributes:
        settings: the settings of `Columns` that choose it.
        text: what it means.
    """

    settings: Mapping[str, Any]
    text: str

    @property
    def words(self) -> list[str]:
        """The settings as flags of `ensue prepare`.

        >>> Answer({"time": "my time", "header": False}, "").words
        ['--time', 'my time', '--no-header']
        """
        words: list[str] = []
        for name, value in self.settings.items():
            flag = name.replace("_", "-")
            words += [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", value]
        return words


@dataclass(frozen=True)
class Doubt:
    """What is in doubt about a log.

    Attributes:
        what: a sentence that names the thing and the evidence.
        answers: the readings, at least one.
        guess: the place of the most likely answer; None where none is more likely.
        where: what the log is called; its path, if it is a file.
        names: the columns of `rows`; empty where these are lines.
        rows: some rows of the log, as texts.
        sources: the log's files, as they were named; empty where it is the only one of the command.
    """

    what: str
    answers: tuple[Answer, ...]
    guess: int | None = 0
    where: str = ""
    names: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The name of the log and what is in doubt."""
        return f"{self.where}: {self.what}" if self.where else self.what

    @property
    def ordered(self) -> list[Answer]:
        """The answers, the guess first."""
        if self.guess is None:
            return list(self.answers)
        return [self.answers[self.guess], *self.answers[: self.guess], *self.answers[self.guess + 1 :]]


class UnclearLogError(DataError):
    """A log that cannot be read until the user states the meaning of its columns or its format.

    Args:
        doubt: what is unclear.
    """

    def __init__(self, doubt: Doubt) -> None:
        flags = [shlex.join(answer.words) for answer in doubt.ordered]
        listed = ", ".join(flags[:-1]) + " or " + flags[-1] if len(flags) > 1 else flags[0]
        super().__init__(f"{doubt.title}: choose with {listed}")
        self.doubt = doubt

    @property
    def flags(self) -> str:
        """The flags of `ensue prepare` for the guess, or for the first answer."""
        return shlex.join(self.doubt.ordered[0].words)

    def at(self, **changes: Any) -> UnclearLogError:
        """A copy of the error with some attributes of its doubt changed."""
        return UnclearLogError(replace(self.doubt, **changes))
