"""The report of an experiment: who was shown what, and what they did then.

The unit is the user, since users are assigned. A user's first exposure starts the clock; the user succeeds if an event
of one of the shown items follows within the window.

Sources: Wilson, JASA 1927 (intervals of rates); Newcombe, Statistics in Medicine 1998, method 10 (interval of their
difference); Fabijan et al., KDD 2019 (sample ratio mismatch).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from ensue.errors import DataError
from ensue.serving.events import EVENTS, EXPOSURES, EventLog, LogError
from ensue.serving.experiment import CONTROL

# A sample ratio mismatch below this p-value means that the counts are wrong, not unlucky.
MISMATCH_P = 0.001
LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Arm:
    """The users of a variant.

    Attributes:
        variant: its name.
        share: the probability with which users were assigned to it.
        users: number of users who were shown a list.
        successes: number of those who did something with a shown item.
        low: lower end of the 95 % interval of their rate.
        high: upper end.
    """

    variant: str
    share: float
    users: int
    successes: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        """The share of the users who succeeded."""
        return self.successes / self.users if self.users else 0.0


@dataclass(frozen=True, slots=True)
class Contrast:
    """A variant beside the control: the difference of their rates, its 95 % interval, and the two-sided p-value."""

    variant: str
    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True)
class AbReport:
    """The result of an experiment.

    Attributes:
        experiment: its name.
        arms: the variants, the control first.
        contrasts: the other variants beside the control.
        mismatch_p: p-value of the numbers of users under the shares; small values mean that users were lost.
        sentence: the result in one sentence.
    """

    experiment: str
    arms: tuple[Arm, ...]
    contrasts: tuple[Contrast, ...]
    mismatch_p: float
    sentence: str


def wilson(successes: int, users: int) -> tuple[float, float]:
    """The 95 % interval of a rate."""
    if users == 0:
        return 0.0, 1.0
    z = stats.norm.ppf(1 - LEVEL / 2)
    rate, scale = successes / users, 1 + z**2 / users
    centre = (rate + z**2 / (2 * users)) / scale
    half = z * math.sqrt(rate * (1 - rate) / users + z**2 / (4 * users**2)) / scale
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def contrast(arm: Arm, control: Arm) -> Contrast:
    """The difference of two rates: Newcombe's interval, and the p-value of Pearson's test."""
    difference = arm.rate - control.rate
    low = difference - math.hypot(arm.rate - arm.low, control.high - control.rate)
    high = difference + math.hypot(arm.high - arm.rate, control.rate - control.low)
    table = np.array([[each.successes, each.users - each.successes] for each in (arm, control)])
    has_both = table.sum(0).all() and table.sum(1).all()
    p = float(stats.chi2_contingency(table, correction=False).pvalue) if has_both else 1.0
    return Contrast(arm.variant, difference, low, high, p)


def mismatch(arms: Sequence[Arm]) -> float:
    """The p-value of the numbers of users under the shares of their variants."""
    observed = np.array([arm.users for arm in arms if arm.share > 0])
    shares = np.array([arm.share for arm in arms if arm.share > 0])
    if len(observed) < 2:
        return 1.0
    return float(stats.chisquare(observed, observed.sum() * shares / shares.sum()).pvalue)


def report(log: EventLog, experiment: str, window_days: float) -> AbReport:
    """The report of an experiment from its log.

    Args:
        log: the log of events and exposures.
        experiment: the name of the experiment.
        window_days: days after a user's first exposure in which events count.

    Raises:
        DataError: the log has no exposure of this experiment.
        LogError: the database failed.
    """
    try:
        users, shares, winners = _outcomes(log, experiment, window_days)
    except SQLAlchemyError as error:
        raise LogError(f"the database of events failed ({type(error).__name__})") from None
    arms = _arms(users, shares, winners)
    contrasts = tuple(contrast(arm, arms[0]) for arm in arms[1:])
    p = mismatch(arms)
    return AbReport(experiment, arms, contrasts, p, sentence(arms, contrasts, p))


def _outcomes(log: EventLog, experiment: str, window_days: float) -> tuple[dict[str, str], dict[str, float], set[str]]:
    """User -> variant, variant -> share, and the users who succeeded."""
    exposures = (
        select(EXPOSURES.c.user, EXPOSURES.c.variant, EXPOSURES.c.share, EXPOSURES.c.time, EXPOSURES.c["items"])
        .where(EXPOSURES.c.experiment == experiment)
        .order_by(EXPOSURES.c.time, EXPOSURES.c.number)
    )
    users: dict[str, str] = {}
    first: dict[str, int] = {}
    shares: dict[str, float] = {}
    shown: dict[str, dict[str, int]] = {}
    with log.engine.connect() as connection:
        for user, variant, share, seconds, items in connection.execute(exposures):
            # A user of two variants, as after a change of the shares, counts for the first.
            if users.setdefault(user, variant) != variant:
                continue
            first.setdefault(user, seconds)
            shares[variant] = share
            for item in json.loads(items):
                shown.setdefault(user, {}).setdefault(item, seconds)
        if not users:
            raise DataError(f"the log has no exposure of the experiment {experiment!r}")
        since = min(first.values())
        events = select(EVENTS.c.user, EVENTS.c.item, EVENTS.c.time).where(EVENTS.c.time >= since)
        window = window_days * 86_400
        winners = {
            user
            for user, item, seconds in connection.execute(events)
            if user in shown and item in shown[user] and shown[user][item] <= seconds <= first[user] + window
        }
    return users, shares, winners


def _arms(users: dict[str, str], shares: dict[str, float], winners: set[str]) -> tuple[Arm, ...]:
    arms = []
    for variant in sorted(shares, key=lambda name: (name != CONTROL, name)):
        own = [user for user, name in users.items() if name == variant]
        successes = sum(user in winners for user in own)
        arms.append(Arm(variant, shares[variant], len(own), successes, *wilson(successes, len(own))))
    return tuple(arms)


def sentence(arms: Sequence[Arm], contrasts: Sequence[Contrast], mismatch_p: float) -> str:
    """The result in one sentence; with several variants, p-values are compared with a part of the level each."""
    if mismatch_p < MISMATCH_P:
        return (
            f"Do not use this result: the numbers of users contradict the shares (p = {mismatch_p:.1g}), so that users "
            "of a variant were lost or counted twice."
        )
    if not contrasts or arms[0].variant != CONTROL:
        return "There is nothing to compare: the log has users of one variant only."
    parts = []
    for each in contrasts:
        points = f"{100 * each.difference:+.2f} percentage points [{100 * each.low:+.2f}, {100 * each.high:+.2f}]"
        if each.p >= LEVEL / len(contrasts):
            parts.append(f"{each.variant} does not differ significantly from control ({points}, p = {each.p:.2g})")
        else:
            better = "better" if each.difference > 0 else "worse"
            parts.append(f"{each.variant} is {better} than control ({points}, p = {each.p:.2g})")
    return "; ".join(parts) + ". The test holds for one look at a number of users that was chosen before."
