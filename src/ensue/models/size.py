"""The memory that a model needs, from its settings: it is built on torch's meta device, where tensors have no data."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ensue.config import Config
from ensue.errors import ConfigError
from ensue.models.catalogue import Catalogue
from ensue.runtime.limits import gpu_memory, memory

Build = Callable[[Any, Catalogue], nn.Module]
# The weights, their gradients and Adam's two moments.
TRAINING = 4
# The weights, and the tensors of the file from which they are copied.
LOADING = 2
# A lower bound for models whose sizes do not fit into 64 bits.
UNCOUNTABLE = 1 << 63
# Maximum number of tensors in a run's file; a thousand blocks have fewer. Without a limit, a small file could require
# many more, with their modules and a large header.
TENSOR_LIMIT = 1 << 15


class ModelSize(NamedTuple):
    """The size of a model.

    Attributes:
        tensors: number of tensors in its state.
        state_bytes: bytes of its state, as in a file.
        total_bytes: bytes of its parameters and all its buffers, as in memory.
    """

    tensors: int
    state_bytes: int
    total_bytes: int


class _Untouched(TorchFunctionMode):
    """Skip the filling of parameters, which on the meta device would load torch's compiler and take a second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def measure(build: Build, config: Config, catalogue: Catalogue) -> ModelSize:
    """The size of a model that is not built. Since all blocks are alike, at most two of them are measured.

    Args:
        build: builds the model of a configuration, also on the meta device.
        config: the model's settings, of any size.
        catalogue: the items.
    """
    blocks = getattr(config, "num_blocks", 1)
    if blocks <= 2:
        return _measure(build, config, catalogue)
    one, two = (_measure(build, config.model_copy(update={"num_blocks": count}), catalogue) for count in (1, 2))
    return ModelSize(*(first + (blocks - 1) * (second - first) for first, second in zip(one, two, strict=True)))


def _measure(build: Build, config: Config, catalogue: Catalogue) -> ModelSize:
    try:
        with torch.device("meta"), _Untouched():
            model = build(config, catalogue)
    except (RuntimeError, TypeError, OverflowError) as error:
        # Sizes beyond 64 bits have no error class of their own: "... overflowed", "Overflow ...", "int too big ...".
        if not isinstance(error, OverflowError) and "overflow" not in str(error).lower():
            raise
        return ModelSize(1, UNCOUNTABLE, UNCOUNTABLE)
    # The model's own method is not used, since a counted model has no state before it is fitted.
    state = nn.Module.state_dict(model).values()
    whole = chain(model.parameters(), model.buffers())
    return ModelSize(len(state), sum(tensor.nbytes for tensor in state), sum(tensor.nbytes for tensor in whole))


def check_memory(build: Build, config: Config, catalogue: Catalogue, copies: int) -> None:
    """Check that a model fits into memory and into a run's file, before it is built.

    Args:
        build: builds the model.
        config: its settings.
        catalogue: the items.
        copies: `TRAINING` or `LOADING`. Training may take place in a GPU's memory.

    Raises:
        ConfigError: it does not fit; the message names the size, the limit and the setting to lower.
    """
    limit, (tensors, _, size) = memory(), measure(build, config, catalogue)
    if copies * size <= limit or (size <= limit and copies * size <= gpu_memory()):
        if tensors > TENSOR_LIMIT:
            raise ConfigError(
                f"the model has {tensors:,} tensors, but a run's file may have at most {TENSOR_LIMIT:,}: "
                f"lower num_blocks (got {getattr(config, 'num_blocks', 'none')})"
            )
        return
    parts = "weights, gradients and Adam's two moments" if copies == TRAINING else "weights, in the model and the file"
    # Before the catalogue is known, a model is checked with one item.
    items = f" of {catalogue.num_items:,} items" if catalogue.num_items > 1 else ""
    raise ConfigError(
        f"the model{items} needs at least {_gib(copies * size)} of memory ({parts}), but only {_gib(limit)} are "
        f"available: {_lower(build, config, catalogue, size)}"
    )


def _lower(build: Build, config: Config, catalogue: Catalogue, size: int) -> str:
    """The setting to lower: the one whose default gives the smallest model; the width if none is above its default."""
    left = {}
    for name, field in type(config).model_fields.items():
        if type(value := getattr(config, name)) is int and type(field.default) is int and value > field.default:
            left[name] = measure(build, config.model_copy(update={name: field.default}), catalogue).total_bytes
    name = min(left, key=lambda name: left[name], default="hidden_units")
    if left.get(name, size) == size:
        name = "hidden_units"
    return f"lower {name} (got {getattr(config, name, 'none')})"


def _gib(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"
