"""What a search varies: settings with ranges, from their types or from a text such as `lr=1e-4..1e-2`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from ensue.errors import ConfigError, nearest
from ensue.models import is_counted
from ensue.recipes.presets import completed, sections
from ensue.registry import Registry
from ensue.runs.config import RunConfig

Value = str | int | float | bool
# Settings that are varied unless others are named; a counted model varies all of its own.
USUAL = ("lr", "dropout_rate", "hidden_units", "num_blocks", "batch_size")
# Settings of the training that must be the same in all trials.
FIXED = (
    "seed", "threads", "device", "checkpoint_minutes", "max_minutes", "validation_metric", "validation_protocol",
    "validation_users",
)  # fmt: skip
SEARCHED = ("model", "objective", "train")
# Around a default that has no other limits: this factor below and above.
FLOAT_FACTOR, INT_FACTOR = 10, 4
# From this ratio of its ends on, a range is searched on a logarithmic scale.
LOG_FROM = 10


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`, both included; whole numbers if `whole`, on a logarithmic scale if `log`."""

    low: float
    high: float
    whole: bool
    log: bool

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{', logarithmic' if self.log else ''}"

    @property
    def ends(self) -> tuple[Value, ...]:
        """The lowest and the highest value."""
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)

    def grid(self) -> list[Value]:
        """The ends and the middle."""
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        points = [self.low, middle, self.high]
        return sorted({round(point) for point in points}) if self.whole else list(dict.fromkeys(points))


@dataclass(frozen=True, slots=True)
class Choices:
    """A list of values."""

    values: tuple[Value, ...]

    def __contains__(self, value: object) -> bool:
        return value in self.values

    def __str__(self) -> str:
        return ", ".join(str(value) for value in self.values)

    @property
    def ends(self) -> tuple[Value, ...]:
        """All values."""
        return self.values

    def grid(self) -> list[Value]:
        """All values."""
        return list(self.values)


Axis = Range | Choices
Space = dict[str, Axis]


def space_of(config: RunConfig, searched: Iterable[str] = ()) -> Space:
    """The search space around some settings.

    Args:
        config: the settings, whose values must lie in the space: they are the first trial.
        searched: texts `NAME`, with a range from the setting's type; `NAME=LOW..HIGH`; or `NAME=A,B,...`. Without any,
            the usual settings of the model.

    Raises:
        ConfigError: an unknown setting, a text that is none of these, a value that the setting refuses, a setting
            without a range of its own, or a default outside its range.
    """
    space: Space = {}
    for text in searched or usual(config):
        name, _, written = (part.strip() for part in text.partition("="))
        field, default = _field(config, name)
        space[name] = _written(name, written, field) if written else _typed(name, field, default)
    for name, axis in space.items():
        _, default = _field(config, name)
        for value in axis.ends:
            changed(config, {name: value})
        if default not in axis:
            raise ConfigError(
                f"--search {name}: {default} is not among {axis}. The search starts from it: include it, or set "
                f"--{name.replace('_', '-')} to a value that is"
            )
    return space


def usual(config: RunConfig) -> list[str]:
    """The settings that a search varies by default."""
    own = [name for name in sections(config.model.name)["model"] if name != "maxlen"]
    if not is_counted(config.model):
        own = [name for name in USUAL if any(name in fields for fields in sections(config.model.name).values())]
    result = []
    for name in own:
        field, default = _field(config, name)
        try:
            _typed(name, field, default)
        except ConfigError:
            continue
        result.append(name)
    if not result:
        raise ConfigError(f"model {config.model.name!r} has no settings to search: name some with --search")
    return result


def changed(config: RunConfig, settings: dict[str, Any]) -> RunConfig:
    """The settings with some changed, by flat names.

    Raises:
        ConfigError: as `completed`.
    """
    return completed(config.model_dump(mode="json", exclude_none=True), dict(settings))


def value_of(config: RunConfig, name: str) -> Any:
    """The value of a setting that can be searched, by its flat name."""
    return _field(config, name)[1]


def _field(config: RunConfig, name: str) -> tuple[FieldInfo, Any]:
    """A setting's field and its value."""
    fields = sections(config.model.name)
    known = {flat: (section, own) for section in SEARCHED for flat, own in fields[section].items() if flat not in FIXED}
    if name not in known:
        raise ConfigError(f"--search: unknown setting {name!r} of model {config.model.name!r}: {nearest(name, known)}")
    section, own = known[name]
    part = getattr(config, section)
    return type(part).model_fields[own], getattr(part, own)


def _kinds(annotation: Any) -> list[Any]:
    """The types of an annotation without None, and the values of a Literal."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return [kind for part in get_args(annotation) for kind in _kinds(part)]
    if origin is Literal:
        return list(get_args(annotation))
    return [] if annotation is NoneType else [annotation]


def _typed(name: str, field: FieldInfo, default: Any) -> Axis:
    """The range that follows from a setting's type, limits and default."""
    registry = next((rule for rule in field.metadata if isinstance(rule, Registry)), None)
    kinds = _kinds(field.annotation)
    if registry is not None:
        return Choices(tuple(registry))
    if bool in kinds:
        return Choices((False, True))
    if kinds and not any(isinstance(kind, type) for kind in kinds):
        return Choices(tuple(kinds))
    if isinstance(default, int | float) and (int in kinds or float in kinds):
        return _around(name, field, default, whole=float not in kinds)
    raise ConfigError(f"--search {name}: has no range of its own: write --search {name}=LOW..HIGH or {name}=A,B,...")


def _around(name: str, field: FieldInfo, default: float, whole: bool) -> Range:
    low, high = _limits(field, whole)
    if high is not None and low is not None:
        return Range(low, high, whole, log=False)
    if default <= 0:
        raise ConfigError(f"--search {name}: its default is {default:g}, so its range must be given: {name}=LOW..HIGH")
    factor = INT_FACTOR if whole else FLOAT_FACTOR
    bottom, top = default / factor, default * factor
    if whole:
        bottom = max(1, math.ceil(bottom))
    return Range(
        max(bottom, low or 0), top if high is None else min(top, high), whole, log=not whole or top >= LOG_FROM
    )


def _limits(field: FieldInfo, whole: bool) -> tuple[float | None, float | None]:
    """The smallest and the largest value; an excluded bound of fractions is avoided by a tenth of the range."""
    bounds = {
        name: getattr(rule, name) for rule in field.metadata for name in ("ge", "gt", "le", "lt") if hasattr(rule, name)
    }
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    gap = 1.0 if whole else 0.1 * (high - low) if low is not None and high is not None else 0.0
    return (
        None if low is None else low + gap * ("ge" not in bounds),
        None if high is None else high - gap * ("le" not in bounds),
    )


def _written(name: str, text: str, field: FieldInfo) -> Axis:
    """The range of a text `LOW..HIGH` or `A,B,...`."""
    kinds = _kinds(field.annotation)
    if ".." not in text:
        return Choices(tuple(_value(name, part.strip(), kinds) for part in text.split(",")))
    low, high = (_value(name, part.strip(), kinds) for part in text.split("..", 1))
    is_number = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
    if not is_number or not float(low) < float(high):
        raise ConfigError(f"--search {name}: a range is LOW..HIGH, two numbers with LOW below HIGH (got {text!r})")
    whole = float not in kinds
    return Range(float(low), float(high), whole, log=float(low) > 0 and float(high) / float(low) >= LOG_FROM)


def _value(name: str, text: str, kinds: list[Any]) -> Value:
    """A value of a setting from its text."""
    if bool in kinds and text in ("true", "false", "yes", "no"):
        return text in ("true", "yes")
    for kind in (int, float):
        if kind in kinds or (kind is int and float in kinds):
            try:
                return kind(text)
            except ValueError:
                continue
    if int in kinds or float in kinds:
        raise ConfigError(f"--search {name}: {text!r} is not a number")
    return text
