"""What a model needs of memory, by its settings: it is built on torch's meta device, where no tensor has data."""

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
# The weights, and the file's tensors that they are taken from.
LOADING = 2
# The least that a model has whose sizes are beyond 64 bits.
UNCOUNTABLE = 1 << 63
# Tensors that a run's file may have; a thousand blocks have fewer. A small file could ask for many more, and for the
# modules and the header that belong to them.
TENSOR_LIMIT = 1 << 15


class ModelSize(NamedTuple):
    """What a model holds.

    Attributes:
        tensors: tensors of its state.
        state_bytes: of its state, as a file keeps it.
        total_bytes: of its parameters and all its buffers, as memory keeps them.
    """

    tensors: int
    state_bytes: int
    total_bytes: int


class _Untouched(TorchFunctionMode):
    """Leaves parameters as they are made: on the meta device filling them loads torch's compiler, a second's work."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def measure(build: Build, config: Config, catalogue: Catalogue) -> ModelSize:
    """The size of a model that is not built. Of many blocks, which are all alike, only two are looked at.

    Args:
        build: makes the model of a configuration, on the meta device too.
        config: its settings, however large.
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
        # What does not fit into 64 bits has no class of its own: "... overflowed", "Overflow ...", "int too big ...".
        if not isinstance(error, OverflowError) and "overflow" not in str(error).lower():
            raise
        return ModelSize(1, UNCOUNTABLE, UNCOUNTABLE)
    # Not the model's own method: one that only counts has no state before it is fitted.
    state = nn.Module.state_dict(model).values()
    whole = chain(model.parameters(), model.buffers())
    return ModelSize(len(state), sum(tensor.nbytes for tensor in state), sum(tensor.nbytes for tensor in whole))


def check_memory(build: Build, config: Config, catalogue: Catalogue, copies: int) -> None:
    """Make sure that a model fits into memory and into a run's file, before any of it is there.

    Args:
        build: makes the model.
        config: its settings.
        catalogue: the items.
        copies: `TRAINING` or `LOADING`. Training may take place in a GPU's memory.

    Raises:
        ConfigError: it does not fit; the size, the limit and the setting to lower are named.
    """
    limit, (tensors, _, size) = memory(), measure(build, config, catalogue)
    if copies * size <= limit or (size <= limit and copies * size <= gpu_memory()):
        if tensors > TENSOR_LIMIT:
            raise ConfigError(
                f"the model has {tensors:,} tensors, more than the {TENSOR_LIMIT:,} that a run's file may have: "
                f"lower num_blocks (got {getattr(config, 'num_blocks', 'none')})"
            )
        return
    parts = "weights, gradients and Adam's two moments" if copies == TRAINING else "weights, and those of the file"
    # One item is what a model is tried with before there is a catalogue.
    items = f" of {catalogue.num_items:,} items" if catalogue.num_items > 1 else ""
    raise ConfigError(
        f"the model{items} needs at least {_gib(copies * size)} of memory ({parts}), more than the {_gib(limit)} that "
        f"are here: {_lower(build, config, catalogue, size)}"
    )


def _lower(build: Build, config: Config, catalogue: Catalogue, size: int) -> str:
    """Which setting to lower: the one whose default would leave least; the width if none is above its default."""
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
