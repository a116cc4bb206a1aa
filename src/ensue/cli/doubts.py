"""A log that can be read in several ways: a question on a terminal, elsewhere the command for each reading."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.text import Text

from ensue.cli.flags import flags_of, words_of
from ensue.terminal.output import Screen, clean, table

if TYPE_CHECKING:
    from ensue.data.doubt import Answer, Doubt

T = TypeVar("T")
_WIDEST = 40
_TRIES = 3


def settle(
    screen: Screen, use: Callable[[dict[str, Any]], T], settings: Mapping[str, Any] | None = None
) -> tuple[T, dict[str, Any]]:
    """Read a log; where it is in doubt and a person can be asked, read it again with the answer.

    Args:
        screen: where the answers are confirmed.
        use: reads the log with the given settings of its columns.
        settings: the settings to begin with.

    Returns:
        What `use` gave, and the settings that it was given.

    Raises:
        UnclearLogError: there is nobody to ask, or no answer; its answers have all settings so far.
    """
    from ensue.data.doubt import Answer, UnclearLogError

    chosen = dict(settings or {})
    while True:
        try:
            return use(chosen), chosen
        except UnclearLogError as error:
            doubt = error.doubt
            answer = ask(doubt) if screen.interactive else None
            if answer is None or all(chosen.get(name) == value for name, value in answer.settings.items()):
                full = tuple(Answer({**chosen, **each.settings}, each.text) for each in doubt.answers)
                raise error.at(answers=full) from None
        chosen |= answer.settings
        screen.say(f"read with {shlex.join(answer.words)}", "dim")


def ask(doubt: Doubt) -> Answer | None:
    """Show a doubt with some rows of the log, and take the number of an answer; Enter takes the guess.

    Returns:
        The answer; None at the end of the input, or after three lines that are no answer.
    """
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    answers = doubt.ordered
    console.print(Text(clean(doubt.title), style="bold"), soft_wrap=True)
    if doubt.rows:
        rows = [tuple(_short(cell) for cell in row) for row in doubt.rows]
        console.print(table([_short(name) for name in doubt.names] or ["first lines"], rows))
    for number, answer in enumerate(answers, start=1):
        mark = " (the guess)" if number == 1 and doubt.guess is not None else ""
        console.print(Text(clean(f"  {number}  {answer.text}{mark}: {shlex.join(answer.words)}")), soft_wrap=True)
    default = ", Enter for 1" if doubt.guess is not None else ""
    for _ in range(_TRIES):
        console.print(f"which (1 to {len(answers)}{default}): ", end="")
        line = sys.stdin.readline()
        given = line.strip()
        if not line or (not given and doubt.guess is None):
            return None
        if not given:
            return answers[0]
        if given.isascii() and given.isdigit() and 1 <= int(given[:9]) <= len(answers):
            return answers[int(given[:9]) - 1]
    return None


def commands(words: Sequence[str], doubt: Doubt) -> list[str]:
    """The command for each reading of a log in doubt, the guess first.

    Args:
        words: the command line that met the doubt. A command without flags for columns has to wait for
            `ensue prepare`.
        doubt: the doubt.
    """
    from ensue.data.interactions import Columns
    from ensue.data.queries import without_secrets

    flags = flags_of(Columns, "")
    own = [without_secrets(word) for word in words]
    reads = own[:1] == ["prepare"] or own[:2] == ["data", "check"]
    at = own.index("--") if "--" in own else len(own)
    lines = []
    for answer in doubt.ordered:
        extra = words_of(flags, answer.settings)
        if reads:
            line = [*own[:at], *extra, *own[at:]]
        else:
            sources = doubt.sources or (doubt.where,)
            line = ["prepare", *sources, *extra, "--out", f"data/{Path(sources[0]).name.split('.')[0] or 'log'}"]
        lines.append(clean(shlex.join(["ensue", *line])))
    return lines


def _short(cell: str) -> str:
    return cell if len(cell) <= _WIDEST else cell[: _WIDEST - 3] + "..."
