"""Gates: the rules that a comparison must satisfy for a model to be accepted, as in `ndcg@10 > -0.5%`.

A gate holds if the whole 95 % interval of the difference satisfies it. A model that breaks the rule therefore passes in
at most 2.5 % of all comparisons, and one that only just satisfies it needs many users. `>` with a negative value is a
test of non-inferiority, with 0 or more of superiority; `within` is a test of equivalence (Schuirmann 1987).
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from ensue.errors import ConfigError
from ensue.evaluation.contrast import Contrast
from ensue.evaluation.significance import Interval

Rule: TypeAlias = Literal[">", "<", "within"]
_GATE = re.compile(
    r"\s*(?P<metric>[^\s<>]+)\s*(?P<rule>>|<|within\b)\s*(?P<value>[+-]?\d+(\.\d+)?)\s*(?P<percent>%?)\s*"
)


@dataclass(frozen=True, slots=True)
class Gate:
    """A rule for the difference of two models.

    Attributes:
        metric: name of the metric, in lower case.
        rule: `>` and `<`: the difference is above or below the value; `within`: between minus the value and the value.
        value: a difference of the metric, or a share of the second model's mean.
        relative: whether it is a share.
    """

    metric: str
    rule: Rule
    value: float
    relative: bool

    def __str__(self) -> str:
        value = f"{100 * self.value:g}%" if self.relative else f"{self.value:g}"
        return f"{self.metric} {self.rule} {value}"

    def interval(self, contrast: Contrast) -> Interval | None:
        """The interval that the gate reads; None if the second model's mean is 0, so that there is no relative one."""
        return contrast.relative if self.relative else contrast.effect

    def is_passed(self, contrast: Contrast) -> bool:
        """Whether the whole interval of the difference satisfies the rule."""
        interval = self.interval(contrast)
        if interval is None:
            return False
        if self.rule == ">":
            return interval.low > self.value
        if self.rule == "<":
            return interval.high < self.value
        return -self.value < interval.low and interval.high < self.value


@dataclass(frozen=True, slots=True)
class GateResult:
    """A gate and whether a comparison passed it.

    Attributes:
        gate: the rule as text.
        metric: full name of the metric.
        passed: whether the whole interval satisfies the rule.
        interval: the difference, relative to the second model if the gate is; None if that model's mean is 0.
        relative: whether it is relative.
    """

    gate: str
    metric: str
    passed: bool
    interval: Interval | None
    relative: bool

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def parse_gate(text: str) -> Gate:
    """Read a gate: a metric, `>`, `<` or `within`, and a value with or without %.

    >>> parse_gate("NDCG@10 > -0.5%")
    Gate(metric='ndcg@10', rule='>', value=-0.005, relative=True)

    Raises:
        ConfigError: the text is not a gate.
    """
    match = _GATE.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"gate {text!r}: must be a metric, >, < or within, and a value, such as 'ndcg@10 > -0.5%', "
            "'hr@10 > 0.001' or 'ndcg@10 within 1%'"
        )
    rule: Rule = "within" if match["rule"] == "within" else ">" if match["rule"] == ">" else "<"
    value, is_relative = float(match["value"]), match["percent"] == "%"
    if rule == "within" and value <= 0:
        raise ConfigError(f"gate {text!r}: the value of within must be above 0")
    return Gate(match["metric"].lower(), rule, value / 100 if is_relative else value, is_relative)


def judge(gate: Gate, contrasts: dict[str, Contrast]) -> GateResult:
    """Apply a gate to a comparison.

    Args:
        gate: the rule.
        contrasts: name of the metric -> comparison. A gate may leave out the mark of the protocol: `hr@10` for
            `hr@10|uni100`.

    Raises:
        ConfigError: the comparison does not have the metric.
    """
    name = next((name for name in contrasts if gate.metric in (name, name.partition("|")[0])), None)
    if name is None:
        raise ConfigError(f"gate {str(gate)!r}: {gate.metric} was not evaluated: choose one of {', '.join(contrasts)}")
    chosen = contrasts[name]
    return GateResult(str(gate), name, gate.is_passed(chosen), gate.interval(chosen), gate.relative)
