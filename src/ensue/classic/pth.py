"""State dicts of SASRec.pytorch and TiSASRec.pytorch (`.pth` files), mapped to models of this package.

The names, shapes and values of a file are checked against what those programs write. A file does not record the
placement of the normalisations, the number of heads, or external ids. The activation of the feed-forward layers has no
tensor, but `Module.state_dict` lists all modules, and `torch.save` keeps the list.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from ensue.classic.models import PaddedSASRecConfig, PaddedTiSASRecConfig
from ensue.classic.state_dict import Tensors, load_state_dict
from ensue.data.vocabulary import Vocabulary
from ensue.errors import ArtefactError, ConfigError, DataError
from ensue.models import Catalogue, Model, ModelConfig, build_model
from ensue.models.size import LOADING
from ensue.nn.block import Activation, Norm

Shapes = dict[str, tuple[int, ...]]
PaddedConfig = PaddedSASRecConfig | PaddedTiSASRecConfig
T = TypeVar("T")
# The modules of a feed-forward layer. The programs have the activation since 10 October 2020.
FEED_FORWARD = {"conv1", "conv2", "dropout1", "dropout2", "relu"}
# More blocks than any trained model has; without a limit a malicious file would be slow to refuse.
MAX_BLOCKS = 1000


@dataclass(frozen=True)
class PthOptions:
    """Settings that a file may not record; None takes the file's value or the usual one.

    Attributes:
        norm: where layers are normalised: "original" before May 2025, then "post", or "pre" with `--norm_first`.
        activation: of the feed-forward layers; by default from the file's list of modules, otherwise "relu".
        num_heads: attention heads; by default `head=` of the file's name, otherwise 1.
        maxlen: if given, it must equal the file's.
        time_unit: TiSASRec: seconds per unit of the intervals; 0: the smallest gap among the events that are read.
    """

    norm: Norm | None = None
    activation: Activation | None = None
    num_heads: int | None = None
    maxlen: int | None = None
    time_unit: int = 0


@dataclass(frozen=True)
class Imported:
    """A model from a `.pth` file.

    Attributes:
        model: the model, in evaluation mode.
        config: its settings.
        origin: the program and generation that wrote the file.
        norm_assumed: whether the file fits several normalisations and the options do not choose one.
        activation_assumed: whether the file may be from 2020, does not list its modules, and the options do not choose
            an activation.
        epoch: `epoch=` of the file's name; 0 without.
    """

    model: Model
    config: ModelConfig
    origin: str
    norm_assumed: bool
    activation_assumed: bool
    epoch: int


def read_pth(path: Path, options: PthOptions | None = None, item_ids: Vocabulary | None = None) -> Imported:
    """Read a `.pth` file as a model that gives the same scores as the program that wrote it.

    Args:
        path: the file.
        options: settings that the file may not record.
        item_ids: the items of the data; by default the file's own 1..N.

    Raises:
        ArtefactError: the file is missing or is not such a state dict, or a tensor has a wrong name, shape or value.
        DataError: the items of the data are not those of the file.
        ConfigError: an option contradicts the file.
    """
    options = options or PthOptions()
    file = load_state_dict(path)
    tensors, activation = file.tensors, options.activation or _activation(path, file.modules)
    options = replace(options, activation=activation or "relu")
    if "abs_pos_K_emb.weight" in tensors:
        config, state, origin, assumed = _tisasrec(path, tensors, options)
    elif "pos_emb.weight" in tensors:
        config, state, origin, assumed = _sasrec(path, tensors, options)
    else:
        raise ArtefactError(
            f"{path}: must be a state dict of SASRec.pytorch (with pos_emb.weight) or TiSASRec.pytorch (with "
            f"abs_pos_K_emb.weight), but contains {', '.join(sorted(tensors)[:5])}"
        )
    maxlen = _named(path, "maxlen", None) if options.maxlen is None else options.maxlen
    if maxlen is not None and maxlen != config.maxlen:
        raise ArtefactError(f"{path}: its position vectors are those of maxlen {config.maxlen} (got maxlen {maxlen})")
    if item_ids is not None:
        by_id = isinstance(config, PaddedSASRecConfig)
        state["items.weight"] = _items_of(path, state["items.weight"], item_ids, by_id)
    model = build_model(config, Catalogue(len(state["items.weight"]) - 1), LOADING)
    model.load_state_dict(state)
    # Files since June 2024 have another padding and always an activation.
    may_be_of_2020 = isinstance(config, PaddedTiSASRecConfig) or config.clear_padding
    activation_assumed = activation is None and may_be_of_2020
    return Imported(model.eval(), config, origin, assumed, activation_assumed, _named(path, "epoch", 0))


def _activation(path: Path, modules: frozenset[str]) -> Activation | None:
    """The activation of the first feed-forward layer; None if the file does not list its modules.

    Raises:
        ArtefactError: the layer has a module that those programs do not use.
    """
    start = "forward_layers.0."
    names = {name.removeprefix(start) for name in modules if name.startswith(start)}
    if "conv1" not in names:
        return None
    if unknown := names - FEED_FORWARD:
        raise ArtefactError(f"{path}: unknown module {start}{min(unknown)}: choose activation relu or none")
    return "relu" if "relu" in names else "none"


def _sasrec(path: Path, tensors: Tensors, options: PthOptions) -> tuple[PaddedConfig, Tensors, str, bool]:
    width, blocks, shapes = _common_shapes(path, tensors)
    rows = _rows(path, tensors, "pos_emb.weight", width)
    shapes["pos_emb.weight"] = (rows, width)
    for i in range(blocks):
        at = f"attention_layers.{i}."
        shapes |= {f"{at}in_proj_weight": (3 * width, width), f"{at}in_proj_bias": (3 * width,)}
        shapes |= {f"{at}out_proj.weight": (width, width), f"{at}out_proj.bias": (width,)}
    _check_shapes(path, tensors, shapes)
    table = tensors["pos_emb.weight"]
    # Since 2024 positions are numbered from 1, and row 0 (padding) is zero; before, row 0 was the leftmost position.
    is_older = bool(table[0].any())
    if not is_older and bool(tensors["item_emb.weight"][0].any()):
        raise ArtefactError(f"{path}: row 0 (padding) of tensor 'item_emb.weight' must be zero, as that of pos_emb is")
    norm: Norm = options.norm or ("original" if is_older else "post")
    config = PaddedSASRecConfig.parse(
        {
            "maxlen": rows if is_older else rows - 1,
            "clear_padding": is_older,
            **_trunk_settings(path, options, norm, width, blocks),
        },
        str(path),
    )
    state = _common_state(tensors, blocks)
    state["positions.table"] = (table if is_older else table[1:]).flip(0)
    for i in range(blocks):
        old, new = f"attention_layers.{i}.", f"trunk.blocks.{i}.attention."
        state[f"{new}qkv.weight"] = tensors[f"{old}in_proj_weight"]
        state[f"{new}qkv.bias"] = tensors[f"{old}in_proj_bias"]
        state[f"{new}out.weight"] = tensors[f"{old}out_proj.weight"]
        state[f"{new}out.bias"] = tensors[f"{old}out_proj.bias"]
    origin = f"SASRec.pytorch, code {'before' if is_older else 'since'} June 2024"
    return config, state, origin, options.norm is None and not is_older


def _tisasrec(path: Path, tensors: Tensors, options: PthOptions) -> tuple[PaddedConfig, Tensors, str, bool]:
    width, blocks, shapes = _common_shapes(path, tensors)
    maxlen = _rows(path, tensors, "abs_pos_K_emb.weight", width)
    spans = _rows(path, tensors, "time_matrix_V_emb.weight", width)
    shapes |= {"abs_pos_K_emb.weight": (maxlen, width), "abs_pos_V_emb.weight": (maxlen, width)}
    shapes["time_matrix_V_emb.weight"] = (spans, width)
    # The first published file has rows for intervals beyond the clipping limit, which are never read.
    longer = max(spans, _rows(path, tensors, "time_matrix_K_emb.weight", width))
    shapes["time_matrix_K_emb.weight"] = (longer, width)
    for i in range(blocks):
        for part in "QKV":
            at = f"attention_layers.{i}.{part}_w."
            shapes |= {f"{at}weight": (width, width), f"{at}bias": (width,)}
    _check_shapes(path, tensors, shapes)
    if options.norm not in (None, "original"):
        raise ConfigError(f"{path}: norm must be 'original' for TiSASRec.pytorch (got {options.norm!r})")
    config = PaddedTiSASRecConfig.parse(
        {
            "maxlen": maxlen,
            "time_span": spans - 1,
            "time_unit": options.time_unit,
            **_trunk_settings(path, options, "original", width, blocks),
        },
        str(path),
    )
    state = _common_state(tensors, blocks)
    state["relations.position_keys"] = tensors["abs_pos_K_emb.weight"].flip(0)
    state["relations.position_values"] = tensors["abs_pos_V_emb.weight"].flip(0)
    state["relations.interval_keys"] = tensors["time_matrix_K_emb.weight"][:spans]
    state["relations.interval_values"] = tensors["time_matrix_V_emb.weight"]
    for i in range(blocks):
        old, new = f"attention_layers.{i}.", f"trunk.blocks.{i}.attention."
        for end in ("weight", "bias"):
            state[f"{new}qkv.{end}"] = torch.cat([tensors[f"{old}{part}_w.{end}"] for part in "QKV"])
        state[f"{new}out.weight"], state[f"{new}out.bias"] = torch.eye(width), torch.zeros(width)
    return config, state, "TiSASRec.pytorch", False


def _common_shapes(path: Path, tensors: Tensors) -> tuple[int, int, Shapes]:
    """The width, the number of blocks, and the shapes of the tensors that both programs have."""
    items = tensors.get("item_emb.weight")
    if items is None or items.dim() != 2 or items.shape[0] < 2:
        actual = "is missing" if items is None else f"is {list(items.shape)}"
        raise ArtefactError(f"{path}: tensor 'item_emb.weight' {actual}, must be [items + 1, width]")
    width = items.shape[1]
    blocks = sum(re.fullmatch(r"attention_layernorms\.\d+\.weight", name) is not None for name in tensors)
    if not 1 <= blocks <= MAX_BLOCKS:
        raise ArtefactError(f"{path}: must have 1..{MAX_BLOCKS} blocks (tensors attention_layernorms.*), has {blocks}")
    shapes: Shapes = {"item_emb.weight": tuple(items.shape)}
    norms = [f"{kind}_layernorms.{i}" for kind in ("attention", "forward") for i in range(blocks)]
    for name in [*norms, "last_layernorm"]:
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    for i in range(blocks):
        for part in ("conv1", "conv2"):
            at = f"forward_layers.{i}.{part}."
            shapes |= {f"{at}weight": (width, width, 1), f"{at}bias": (width,)}
    return width, blocks, shapes


def _rows(path: Path, tensors: Tensors, name: str, width: int) -> int:
    table = tensors.get(name)
    if table is None or table.dim() != 2 or table.shape[0] < 2 or table.shape[1] != width:
        actual = "is missing" if table is None else f"is {list(table.shape)}"
        raise ArtefactError(f"{path}: tensor {name!r} {actual}, must be [rows, {width}]")
    return int(table.shape[0])


def _check_shapes(path: Path, tensors: Tensors, shapes: Shapes) -> None:
    for problem, names in (("lacks", shapes.keys() - tensors.keys()), ("has unknown", tensors.keys() - shapes)):
        if names:
            raise ArtefactError(f"{path}: {problem} tensors: {', '.join(sorted(names)[:5])}")
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise ArtefactError(f"{path}: tensor {name!r} is {list(tensors[name].shape)}, must be {list(shape)}")


def _trunk_settings(path: Path, options: PthOptions, norm: Norm, width: int, blocks: int) -> dict[str, object]:
    heads = _named(path, "head", 1) if options.num_heads is None else options.num_heads
    settings = {"hidden_units": width, "num_blocks": blocks, "num_heads": heads}
    return {**settings, "norm": norm, "activation": options.activation}


def _common_state(tensors: Tensors, blocks: int) -> Tensors:
    """Item vectors, normalisations and feed-forward layers under the names of this package."""
    items = tensors["item_emb.weight"].clone()
    # The model sets padding to zero before the first block, whatever its vector, and never recommends it.
    items[0] = 0.0
    state = {"items.weight": items}
    copies: list[tuple[str, str, Callable[[Tensor], Tensor]]] = [("last_layernorm", "trunk.norm", lambda x: x)]
    for i in range(blocks):
        at = f"trunk.blocks.{i}."
        copies.append((f"attention_layernorms.{i}", f"{at}attention_norm", lambda x: x))
        copies.append((f"forward_layernorms.{i}", f"{at}feed_forward_norm", lambda x: x))
        for old, new in (("conv1", "inner"), ("conv2", "outer")):
            # A convolution of width 1 is a linear layer.
            copies.append((f"forward_layers.{i}.{old}", f"{at}feed_forward.{new}", lambda x: x.squeeze(-1)))
    for old, new, change in copies:
        state[f"{new}.weight"] = change(tensors[f"{old}.weight"])
        state[f"{new}.bias"] = tensors[f"{old}.bias"]
    return state


def _items_of(path: Path, items: Tensor, item_ids: Vocabulary, by_id: bool) -> Tensor:
    """The vectors of the data's items: all rows if the numbers agree; for fewer ids, with `by_id`, row n for id n."""
    count = len(items) - 1
    if len(item_ids) == count:
        return items
    if by_id and item_ids.is_integer and len(item_ids) < count:
        numbers = torch.from_numpy(item_ids.ids.to_numpy().copy())
        if int(numbers.min()) >= 1 and int(numbers.max()) <= count:
            return torch.cat((items[:1], items[numbers]))
    raise DataError(f"{path}: trained on {count:,} items, but the data has {len(item_ids):,} other items")


def _named(path: Path, key: str, otherwise: T) -> int | T:
    """The number after `key=` in the file's name, as in SASRec.epoch=20.lr=0.001.layer=2.head=1.maxlen=200.pth."""
    match = re.search(rf"(?:^|\.){key}=(\d+)\.", path.name)
    return int(match[1]) if match else otherwise
