"""The commands that `ensue data check` proposes: the preparation or the training that fits its findings."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensue.terminal.output import Screen

if TYPE_CHECKING:
    from ensue.data.behaviours import Behaviours
    from ensue.data.split import Split
    from ensue.doctor.check import DoctorReport

_FEW = 5


def propose_store(
    screen: Screen,
    report: DoctorReport,
    words: Sequence[Any],
    out: str,
    kinds: Behaviours | None,
    least: float | None,
) -> None:
    """Print the preparation that fits the findings about a log, after possible alternatives.

    Args:
        screen: where to print.
        report: the findings.
        words: the log and the settings of its columns, as arguments.
        out: the folder to propose.
        kinds: the column with the kind of each event; the most frequent kind is proposed.
        least: the rating below which events may mean dislike.
    """
    from ensue.data.arrays import is_feature_name

    base = [*map(str, words)]
    if "exact_duplicates" in report["duplicates"].advice:
        base += ["--exact-duplicates", "drop"]
    others: list[tuple[str, list[str]]] = []
    if kinds is not None:
        others += [(f"only {kind}", [*base, "--where", kinds.where(kind)]) for kind in kinds.kinds[1:4]]
        if is_feature_name(kinds.column):
            others.append(("all kinds, kept as a feature", [*base, "--features", kinds.column]))
        base += ["--where", kinds.where(kinds.kinds[0])]
    if least is not None:
        others.append(("without low ratings", [*base, "--min-rating", f"{least:g}"]))
    rare = (report["short-users"], report["rare-items"])
    if any(finding.level != "ok" for finding in rare) and all((finding.value or 0.0) < 1 for finding in rare):
        core = ["--min-user-events", str(_FEW), "--min-item-events", str(_FEW), "--filter", "core"]
        others.append(("without rare users and items", [*base, *core]))
    for purpose, other in others:
        screen.say(f"{purpose}: {shlex.join(['ensue', 'prepare', *other, '--out', out])}", "dim")
    screen.next("ensue prepare", *base, "--out", out)


def propose_training(screen: Screen, folder: Path, split: Split, words: Sequence[str]) -> None:
    """Print the recipe that suits a store, and the command to train with it."""
    from ensue.recipes.auto import choose, profile

    recipe, why = choose(profile(split))
    screen.say(f"recipe for this data: {recipe}; {why}", "dim")
    screen.next("ensue train", folder, *words, "--out", "runs/sasrec")
