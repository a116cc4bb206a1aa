"""The time of a bench: its text form, and its shares."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ensue.errors import ConfigError

UNITS = {"s": 1, "m": 60, "h": 3600}


def parse_duration(text: str) -> float:
    """A duration in seconds.

    >>> parse_duration("90s"), parse_duration("30m"), parse_duration("1.5h"), parse_duration("2")
    (90.0, 1800.0, 5400.0, 120.0)

    Raises:
        ConfigError: the text is not a number above 0 with the unit s, m or h; without a unit it is minutes.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?)([smh]?)", text.strip())
    seconds = float(match[1]) * UNITS[match[2] or "m"] if match else 0.0
    if not seconds > 0:
        raise ConfigError(f"a duration must be a number above 0 and s, m or h, such as 90s, 30m or 1.5h (got {text!r})")
    return seconds


def shares(needs: Mapping[str, float], budget: float) -> dict[str, float]:
    """Divide a budget: who needs less than an equal share gets what is needed, and the others share the rest equally.

    >>> shares({"markov": 2, "gru4rec": 100, "sasrec": 90}, 102)
    {'markov': 2, 'sasrec': 50.0, 'gru4rec': 50.0}
    """
    result: dict[str, float] = {}
    left = max(0.0, budget)
    for name, need in sorted(needs.items(), key=lambda pair: pair[1]):
        result[name] = min(need, left / (len(needs) - len(result)))
        left -= result[name]
    return result
