"""Variants of an experiment, and the assignment of users to them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from ensue.errors import ConfigError

CONTROL = "control"


@dataclass(frozen=True)
class Experiment:
    """The variants and their shares of the users. A variant with the share 0 answers only if it is named.

    Attributes:
        name: of the experiment; users are assigned anew under another name.
        shares: variant -> probability; they sum to 1.
    """

    name: str
    shares: dict[str, float]

    @property
    def is_running(self) -> bool:
        """Whether users are assigned to more than one variant."""
        return sum(share > 0 for share in self.shares.values()) > 1

    def assign(self, user: str) -> str:
        """The variant of a user: the same in every process, and independent of other experiments."""
        digest = hashlib.sha256(f"{self.name}\0{user}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        for variant, share in self.shares.items():
            if place < share:
                return variant
            place -= share
        return CONTROL


def parse_variants(texts: list[str]) -> dict[str, tuple[str, float]]:
    """`["test=runs/b:0.2"]` -> {"test": ("runs/b", 0.2)}.

    Raises:
        ConfigError: a text has another form, a name is repeated, or a share is out of range.
    """
    result: dict[str, tuple[str, float]] = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        run, colon, number = rest.rpartition(":")
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if not (name and equals and run and colon) or not 0 <= share <= 1:
            raise ConfigError(f"--variant must be NAME=RUN:SHARE with a share from 0 to 1 (got {text!r})")
        if name in result or name == CONTROL:
            raise ConfigError(f"--variant: the name {name!r} is taken: use another one")
        result[name] = (run, share)
    total = sum(share for _, share in result.values())
    if total > 1:
        raise ConfigError(f"--variant: the shares must sum to at most 1 (got {total:g})")
    return result


def experiment_of(name: str, variants: dict[str, tuple[str, float]]) -> Experiment:
    """The experiment of some variants and the served run, which has the rest of the users."""
    shares = {variant: share for variant, (_, share) in variants.items()}
    return Experiment(name, {**shares, CONTROL: 1.0 - sum(shares.values())})
