"""A finding of a check-up, with its level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

Level: TypeAlias = Literal["ok", "warn", "problem"]
LEVELS: tuple[Level, ...] = ("ok", "warn", "problem")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one examination.

    Attributes:
        name: a short fixed name.
        level: "ok", "warn" (be aware of this) or "problem" (fix this first).
        value: the measured number; None if it cannot be measured.
        text: the result, in one sentence.
        advice: what to do; empty if nothing is needed.
    """

    name: str
    level: Level
    value: float | None
    text: str
    advice: str = ""


def graded(value: float, warn: float, problem: float = np.inf) -> Level:
    """The level of a share: "problem" above `problem`, "warn" above `warn`, otherwise "ok"."""
    return "problem" if value > problem else "warn" if value > warn else "ok"


def warned(name: str, share: float, limit: float, text: str, advice: str) -> Finding:
    """A finding that is "warn", with its advice, if a share is above a limit, and "ok" otherwise."""
    level = graded(share, limit)
    return Finding(name, level, share, text, "" if level == "ok" else advice)
