"""Item vectors, position vectors and initial weights.

Suffixes: `P` events of all rows, `R` rows of a table, `N` items, `D` width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ensue.nn.native.rows import add_rows, is_native
from ensue.rng import torch_seed

NORMALISATIONS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d)
Positions = Literal["learned", "sinusoidal", "rotary", "relative", "none"]


class ItemEmbedding(nn.Embedding):
    """Vectors of items 1..N. Row 0, the padding, is zero; it is never looked up and never a candidate.

    The gradient of a lookup is sparse, so the several lookups of a training step (inputs, targets, negatives) do not
    each fill a table of the catalogue's size. `dense_gradients` combines them into one dense table.

    Attributes:
        content: (vectors of ids, items) -> vectors that join the content of the items, an `ItemContent`, or None.

    Args:
        num_items: N.
        hidden_units: D.
        extra: number of additional rows N + 1 .. N + extra, for inputs that are not items, such as [MASK].
    """

    def __init__(self, num_items: int, hidden_units: int, extra: int = 0) -> None:
        super().__init__(1 + num_items + extra, hidden_units)
        self.num_items = num_items
        self.content: nn.Module | None = None

    def forward(self, items: Tensor) -> Tensor:
        """The vectors of item numbers, [...] -> [..., D]."""
        vectors = lookup(self.weight, items)
        return vectors if self.content is None else self._with_content(vectors, items)

    def catalogue(self) -> Tensor:
        """The vectors of all items, without extra rows: [N, D], row j is item j + 1."""
        vectors_ND = self.weight[1 : self.num_items + 1]
        return vectors_ND if self.content is None else self._with_content(vectors_ND, None)

    def _with_content(self, ids: Tensor, items: Tensor | None) -> Tensor:
        assert self.content is not None
        vectors: Tensor = self.content(ids, items)
        return vectors


class PositionEmbedding(nn.Module):
    """Add to each event the vector of its age, from 0 for the newest event of its row to maxlen - 1.

    Counting from the newest event, as implementations with left padding do, makes the vectors independent of padding.
    """

    def __init__(self, maxlen: int, hidden_units: int, kind: Positions) -> None:
        super().__init__()
        self.table: Tensor | None
        if kind == "learned":
            self.table = nn.Parameter(torch.empty(maxlen, hidden_units))
        elif kind == "sinusoidal":
            self.register_buffer("table", sinusoids(maxlen, hidden_units), persistent=False)
        else:
            self.table = None

    def forward(self, x_PD: Tensor, age_P: Tensor) -> Tensor:
        """[P, D] plus the vectors of `age_P`."""
        return x_PD if self.table is None else x_PD + lookup(self.table, age_P)


def lookup(table_RD: Tensor, rows_P: Tensor) -> Tensor:
    """Rows of a table, [P, D]. On devices with sparse tensors the gradient is sparse, for `dense_gradients`."""
    return nn.functional.embedding(rows_P, table_RD, sparse=table_RD.device.type in ("cpu", "cuda"))


def sinusoids(maxlen: int, hidden_units: int) -> Tensor:
    """Sines and cosines with geometric wavelengths, [maxlen, D] (Vaswani et al. 2017, section 3.5)."""
    age = torch.arange(maxlen, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, hidden_units, 2) * (-math.log(10_000.0) / hidden_units))
    table = torch.zeros(maxlen, hidden_units)
    table[:, 0::2] = torch.sin(age * rate)
    table[:, 1::2] = torch.cos(age * rate)[:, : hidden_units // 2]
    return table


def dense_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the sparse gradients of lookups by dense ones, which optimisers and gradient norms need.

    On a CPU `index_add_` takes a fifth of the time of torch's own gradient of a lookup. It is not used on other
    devices: there it adds in no fixed order, and a resumed run would not give the same bits.
    """
    for parameter in parameters:
        grad = parameter.grad
        if grad is None or not grad.is_sparse:
            continue
        rows, values = grad._indices()[0], grad._values()
        if is_native(values, parameter):
            parameter.grad = torch.zeros_like(parameter)
            add_rows(parameter.grad, rows, values)
        elif values.device.type == "cpu":
            parameter.grad = torch.zeros_like(parameter).index_add_(0, rows, values)
        else:
            parameter.grad = torch.ops.aten.embedding_dense_backward(values, rows, parameter.shape[0], -1, False)


@runtime_checkable
class StartsItself(Protocol):
    """A module that sets its own initial weights."""

    def initialise(self, generator: torch.Generator) -> None:
        """Set the module's own parameters, drawing only from `generator`."""
        ...


@torch.no_grad()
def initialise(module: nn.Module, seed: int) -> None:
    """Set every parameter as a function of `seed`, each from a random stream of its own, keyed by its name.

    Matrices and tables are Xavier-normal. Biases (one-dimensional parameters with "bias" in their name) are zero,
    weights of normalisation layers are one, and the padding row of an `ItemEmbedding` is zero. Afterwards, modules with
    a method `initialise(generator)` set their own parameters.

    Raises:
        TypeError: a parameter with fewer than two dimensions is covered by no rule.
    """
    unset = {}
    for name, parameter in module.named_parameters():
        path, _, own_name = name.rpartition(".")
        if parameter.dim() >= 2:
            generator = torch.Generator().manual_seed(torch_seed(seed, f"initialise {name}"))
            nn.init.xavier_normal_(parameter, generator=generator)
        elif "bias" in own_name:
            parameter.zero_()
        elif isinstance(module.get_submodule(path), NORMALISATIONS):
            parameter.fill_(1.0)
        else:
            parameter.fill_(float("nan"))
            unset[name] = parameter
    for name, part in module.named_modules():
        if isinstance(part, StartsItself):
            part.initialise(torch.Generator().manual_seed(torch_seed(seed, f"initialise {name}")))
        if isinstance(part, ItemEmbedding):
            part.weight[0] = 0.0
    for name, parameter in unset.items():
        if bool(parameter.isnan().any()):
            raise TypeError(
                f"no rule initialises parameter {name} of shape {list(parameter.shape)}, which is not a matrix, bias "
                "or normalisation weight: give its module a method initialise(generator) that sets it"
            )
