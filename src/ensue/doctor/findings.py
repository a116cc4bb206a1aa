"""What a check-up finds: one thing looked at, and how bad it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

Level: TypeAlias = Literal["ok", "warn", "problem"]
LEVELS: tuple[Level, ...] = ("ok", "warn", "problem")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    Attributes:
        name: a short fixed name.
        level: "ok", "warn" (know this) or "problem" (mend this first).
        value: the number behind it; None if it cannot be measured.
        text: one sentence that says what was found.
        advice: what to do; empty if nothing.
    """

    name: str
    level: Level
    value: float | None
    text: str
    advice: str = ""


def graded(value: float, warn: float, problem: float = np.inf) -> Level:
    """The level of a share: above `problem`, above `warn`, or fine."""
    return "problem" if value > problem else "warn" if value > warn else "ok"
