"""The vectors of features, and how they join those of items.

Suffixes: `N` items, `M` values of an item, `D` width; `P` stands for any number of events or candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ensue.data.features import Feature
from ensue.errors import DataError
from ensue.nn.embedding import lookup
from ensue.registry import OWN, Registry

# The feature and, for a column of items, the codes of all items, [N + 2, M] (see `Feature.item_codes`).
Coded = tuple[Feature, Tensor | None]


class FeatureVectors(nn.Module):
    """A table of vectors for each feature: [rows, D].

    The vectors of a missing and of an unseen value start at zero. An unseen value does not occur in training, so its
    vector stays there: such an event is read as if it had no such feature.
    """

    def __init__(self, features: Sequence[Coded], hidden_units: int) -> None:
        super().__init__()
        self.features = tuple(feature for feature, _ in features)
        self.tables = nn.ParameterList(torch.empty(feature.rows, hidden_units) for feature in self.features)
        for number, (_, codes_NM) in enumerate(features):
            self.register_buffer(f"codes_{number}", codes_NM, persistent=False)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Set the vectors of missing and unseen values to zero; the others follow the general rule."""
        for feature, table in zip(self.features, self.tables, strict=True):
            table[0] = 0.0
            if feature.values is not None:
                table[-1] = 0.0

    def forward(self, items_P: Tensor, codes: Mapping[str, Tensor] | None) -> list[Tensor]:
        """The vectors of each feature, [..., D], for items and the codes of their events.

        Args:
            items_P: item numbers, of any shape.
            codes: name -> the codes of features of events and users, of the same shape.

        Raises:
            DataError: the codes of a feature are absent.
        """
        vectors = []
        for number, (feature, table) in enumerate(zip(self.features, self.tables, strict=True)):
            if feature.of == "item":
                vectors.append(_mean(table, self.get_buffer(f"codes_{number}")[items_P]))
            elif codes is None or feature.name not in codes:
                raise DataError(
                    f"this model reads the {feature.of} feature {feature.name!r}, which is absent: give it "
                    f"(features={{{feature.name!r}: ...}}, --feature {feature.name}=...)"
                )
            else:
                vectors.append(lookup(table, codes[feature.name]))
        return vectors


def _mean(table: Tensor, codes_PM: Tensor) -> Tensor:
    """The mean vector of the values that are not missing, [..., D]; the vector of a missing value without any."""
    if codes_PM.shape[-1] == 1:
        return lookup(table, codes_PM[..., 0])
    is_value = (codes_PM > 0).to(table.dtype)
    # Without any value the first place, which is the missing value, counts.
    is_value[..., 0] = torch.where(is_value.sum(-1) == 0, 1.0, is_value[..., 0])
    weights = is_value / is_value.sum(-1, keepdim=True)
    return (lookup(table, codes_PM) * weights[..., None]).sum(-2)


class Sum(nn.Module):
    """x + sum_f F_f."""

    def __init__(self, count: int, hidden_units: int) -> None:
        super().__init__()

    def forward(self, x_PD: Tensor, vectors: list[Tensor]) -> Tensor:
        """[..., D] from the item's vector and those of its features."""
        return reduce(add, vectors, x_PD)


class Concat(nn.Module):
    """W [x; F_1; ...; F_f] + b, of width D."""

    def __init__(self, count: int, hidden_units: int) -> None:
        super().__init__()
        self.joined = nn.Linear((1 + count) * hidden_units, hidden_units)

    def forward(self, x_PD: Tensor, vectors: list[Tensor]) -> Tensor:
        """[..., D] from the item's vector and those of its features."""
        joined: Tensor = self.joined(torch.cat((x_PD, *vectors), -1))
        return joined


class Gate(nn.Module):
    """x + sigmoid(W [x; f] + b) * f, with f = sum_f F_f."""

    def __init__(self, count: int, hidden_units: int) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * hidden_units, hidden_units)

    def forward(self, x_PD: Tensor, vectors: list[Tensor]) -> Tensor:
        """[..., D] from the item's vector and those of its features."""
        f_PD = reduce(add, vectors)
        return x_PD + F.sigmoid(self.gate(torch.cat((x_PD, f_PD), -1))) * f_PD


# (number of features, D) -> a module of the item's vector and those of its features.
FEATURE_MODES: Registry[Callable[[int, int], nn.Module]] = Registry("feature_mode", hint=OWN)
FEATURE_MODES.register("sum")(Sum)
FEATURE_MODES.register("concat")(Concat)
FEATURE_MODES.register("gate")(Gate)


class FeatureInput(nn.Module):
    """The vectors of events: those of their items, joined with those of their features.

    Args:
        features: the features.
        hidden_units: D.
        mode: a name of `FEATURE_MODES`.
    """

    def __init__(self, features: Sequence[Coded], hidden_units: int, mode: str) -> None:
        super().__init__()
        self.vectors = FeatureVectors(features, hidden_units)
        self.join = FEATURE_MODES[mode](len(features), hidden_units)

    def forward(self, x_PD: Tensor, items_P: Tensor, codes: Mapping[str, Tensor] | None) -> Tensor:
        """[..., D] from the items' vectors, their numbers, and the codes of features of events and users."""
        joined: Tensor = self.join(x_PD, self.vectors(items_P, codes))
        return joined
