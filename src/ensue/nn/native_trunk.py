"""When a trunk runs in the native library, and with which settings. `Trunk.forward` is the plain form.

Suffixes: `P` events of all rows, `Q` asked events, `B` rows, `D` width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from ensue.batches.layout import Layout
from ensue.nn.attention import FullAttention
from ensue.nn.block import LAYER_NORM_EPS, Block
from ensue.nn.native.library import compute
from ensue.nn.native.trunk import ACTIVATIONS, NORMS, Plan, encode, newest
from ensue.nn.native.usage import count_native, count_torch
from ensue.nn.ops.dropout import random_bytes, threshold
from ensue.nn.ops.relation_terms import Relations
from ensue.nn.residual import PlainResidual

if TYPE_CHECKING:
    from ensue.nn.trunk import Trunk


# With a single block, torch is faster if fewer than one event in SPARSE is asked: it computes the asked ones alone.
SPARSE = 20


def native_states(trunk: Trunk, x_PD: Tensor, layout: Layout, relations: Relations | None) -> Tensor | None:
    """What `Trunk.forward` returns, from the native library; None if torch has to compute it."""
    chosen = compute()
    if not chosen.is_native:
        return None
    reason = _reason(trunk, x_PD, layout, relations)
    if reason:
        count_torch(reason)
        return None
    count_native()
    blocks = [cast(Block, block) for block in trunk.blocks]
    parameters = [parameter for block in blocks for parameter in _parameters(block)]
    parameters += trunk.norm.weight, trunk.norm.bias
    plan = _plan(trunk, blocks)
    asked = layout.asked
    if asked is not None and _asks_newest(layout):
        return newest(chosen.name, plan, parameters, x_PD, layout.last_B)
    h_PD = encode(chosen.name, plan, parameters, x_PD, layout.last_B)
    return h_PD if asked is None else h_PD[asked.event_Q]


def _asks_newest(layout: Layout) -> bool:
    """Whether the newest event of each row is asked, and no gradient: the last block computes these events alone."""
    asked = layout.asked
    return asked is not None and not torch.is_grad_enabled() and torch.equal(asked.event_Q, layout.last_B)


def _plan(trunk: Trunk, blocks: list[Block]) -> Plan:
    first = blocks[0]
    drop_below = threshold(first.attention.heads.dropout_rate) if trunk.training else 0
    return Plan(
        width=first.attention.out.in_features,
        heads=first.attention.num_heads,
        blocks=len(blocks),
        norm=NORMS[first.norm],
        activation=ACTIVATIONS[first.feed_forward.kind],
        causal=first.attention.causal,
        threads=torch.get_num_threads(),
        drop_below=drop_below,
        epsilon=LAYER_NORM_EPS,
        # The seed comes from the generator of the other draws, so it is a function of (seed, epoch, step) as they are.
        seed=int(random_bytes((8,)).view(torch.int64)) & (2**64 - 1) if drop_below else 0,
    )


def _parameters(block: Block) -> list[Tensor]:
    """In the order of `Places` in plan.h."""
    attention, feed_forward = block.attention, block.feed_forward
    parts: tuple[nn.Linear | nn.LayerNorm, ...] = (
        *(attention.qkv, attention.out, block.attention_norm),
        *(feed_forward.inner, feed_forward.outer, block.feed_forward_norm),
    )
    # Read from the dictionary, since a module's attributes take a fifth of the time of a request.
    return [cast(Tensor, part._parameters[name]) for part in parts for name in ("weight", "bias")]


def _reason(trunk: Trunk, x_PD: Tensor, layout: Layout, relations: Relations | None) -> str:
    """Why torch has to compute the states; empty if the library can."""
    first = cast(Block, trunk.blocks[0])
    if x_PD.device.type != "cpu" or x_PD.dtype != torch.float32 or first.attention.out.weight.dtype != torch.float32:
        return f"{x_PD.dtype} on {x_PD.device.type} has no native form".replace("torch.", "")
    if torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return "mixed precision, compilation and export have no native form"
    if any(not isinstance(cast(Block, block).attention.kind, FullAttention) for block in trunk.blocks):
        return "attention other than full has no native form"
    if relations is not None:
        return "terms for pairs of events have no native form"
    if first.attention.rotary is not None:
        return "rotary positions have no native form"
    if first.feed_forward.kind not in ACTIVATIONS:
        return f"activation {first.feed_forward.kind} has no native form"
    asked = layout.asked
    is_sparse = asked is not None and SPARSE * len(asked.event_Q) < len(x_PD)
    if is_sparse and len(trunk.blocks) == 1 and not _asks_newest(layout):
        return "a single block, asked for few events, has no native form"
    for block in trunk.blocks:
        if (
            type(block.attention_residual) is not PlainResidual
            or type(block.feed_forward_residual) is not PlainResidual
        ):
            return f"residual {type(block.attention_residual).__name__} has no native form"
    if any(module._forward_hooks or module._forward_pre_hooks for module in trunk.parts):
        return "hooks on modules need torch"
    return ""
