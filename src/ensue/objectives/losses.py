"""One function per loss. Losses are not reduced: the training loop takes the mean once, over all asked events.

`Loss = (pos_Q, neg_QK) -> loss_Q` compares the target's logit with those of K negatives. The full softmax,
`(h_QD, target_Q, items_ND) -> loss_Q`, reads the catalogue in chunks. All are computed in float32, except the full
softmax under autocast, and are finite for logits of +-1e4.

Suffixes: `Q` asked events, `K` negatives, `N` items of the catalogue, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from ensue.errors import ConfigError
from ensue.nn.ops.full_softmax import cross_entropy
from ensue.registry import OWN, Registry

if TYPE_CHECKING:
    from ensue.objectives.objective import ObjectiveConfig

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class SampledLoss:
    """A loss that compares the target with negatives.

    Attributes:
        function: (pos_Q, neg_QK) -> loss_Q.
        logq: whether the log rate of each negative is subtracted from its logit first.
        is_softmax: whether the softmax of the scores of a model trained with it is the probability of the next item.
    """

    function: Loss
    logq: bool = False
    is_softmax: bool = False


@dataclass(frozen=True, slots=True)
class CatalogueLoss:
    """A loss over the whole catalogue, which needs no negatives.

    Attributes:
        function: (states h_QD, target_Q counted from 0, item vectors items_ND) -> loss_Q.
        is_softmax: as in `SampledLoss`.
    """

    function: Callable[[Tensor, Tensor, Tensor], Tensor]
    is_softmax: bool = False


@dataclass(frozen=True, slots=True)
class LikelihoodLoss:
    """The target's score itself, of models whose scores are log-probabilities; it needs no negatives.

    Attributes:
        function: log_p_Q -> loss_Q.
        is_softmax: as in `SampledLoss`.
    """

    function: Callable[[Tensor], Tensor]
    is_softmax: bool = True


AnyLoss = SampledLoss | CatalogueLoss | LikelihoodLoss
# Functions from (settings, number of items) to the loss, by name.
LOSSES: Registry[Callable[[ObjectiveConfig, int], AnyLoss]] = Registry("loss", hint=OWN)


def register_loss(name: str) -> Callable[[Loss], Loss]:
    """Return a decorator that registers a loss (pos_Q, neg_QK) -> loss_Q without settings of its own."""

    def put(loss: Loss) -> Loss:
        LOSSES.register(name)(lambda config, num_items: SampledLoss(loss))
        return loss

    return put


@register_loss("bce")
def bce(pos_Q: Tensor, neg_QK: Tensor) -> Tensor:
    """Binary cross-entropy: -log s(pos) - sum_k log(1 - s(neg_k)). Source: SASRec (2018), eq. 7.

    Args:
        pos_Q: logits of the targets, [Q].
        neg_QK: logits of the negatives, [Q, K].

    Returns:
        [Q].
    """
    return F.softplus(-pos_Q.float()) + F.softplus(neg_QK.float()).sum(-1)


def gbce(beta: float) -> Loss:
    """Generalised binary cross-entropy, -(log s(pos)^beta + sum_k log(1 - s(neg_k))) / (K + 1).

    Source: gSASRec (Petrov & Macdonald, RecSys 2023), eq. 6. `beta` comes from `gbce_beta`.
    """

    def loss(pos_Q: Tensor, neg_QK: Tensor) -> Tensor:
        total = beta * F.softplus(-pos_Q.float()) + F.softplus(neg_QK.float()).sum(-1)
        return total / (neg_QK.shape[-1] + 1)

    return loss


def gbce_beta(num_negatives: int, num_items: int, t: float) -> float:
    """beta = a (t (1 - 1/a) + 1/a), with a = K / (N - 1) the sampling rate, at most 1 (gSASRec, eq. 10).

    t = 0 gives 1, the plain BCE; t = 1 gives a, which calibrates the scores to the full softmax. With K >= N - 1 there
    is nothing to calibrate, and beta is 1.
    """
    rate = min(1.0, num_negatives / max(1, num_items - 1))
    return rate * (t * (1 - 1 / rate) + 1 / rate)


@LOSSES.register("gbce")
def _gbce(config: ObjectiveConfig, num_items: int) -> SampledLoss:
    if config.is_whole_batch:
        raise ConfigError("gbce needs a fixed number of negatives, but shared in-batch ones vary: use uniform")
    return SampledLoss(gbce(gbce_beta(config.num_negatives, num_items, config.gbce_t)))


@LOSSES.register("ce")
def _ce(config: ObjectiveConfig, num_items: int) -> CatalogueLoss:
    smoothing = config.label_smoothing
    return CatalogueLoss(smoothed_cross_entropy(smoothing) if smoothing else cross_entropy, is_softmax=True)


def smoothed_cross_entropy(smoothing: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The full softmax with label smoothing e: (1 - e) CE(target) + e mean_i CE(i).

    It equals CE(target) + e (logit of the target - mean of all logits), and the mean of the logits is the product with
    the mean of the item vectors, so no more than the plain loss is computed.
    Source: Szegedy et al., CVPR 2016, section 7.
    """

    def loss(h_QD: Tensor, target_Q: Tensor, items_ND: Tensor) -> Tensor:
        away_QD = items_ND[target_Q] - items_ND.mean(0)
        return cross_entropy(h_QD, target_Q, items_ND) + smoothing * (h_QD * away_QD).sum(-1).float()

    return loss


@LOSSES.register("likelihood")
def _likelihood(config: ObjectiveConfig, num_items: int) -> LikelihoodLoss:
    return LikelihoodLoss(lambda log_p_Q: -log_p_Q.float())


def sampled_softmax(pos_Q: Tensor, neg_QK: Tensor) -> Tensor:
    """Cross-entropy among the target and its negatives: logsumexp(pos, neg_1..neg_K) - pos.

    With logits corrected by their log sampling rate (`logq`) it estimates the full softmax. Source: Bengio &
    Senecal, 2008; Yi et al., RecSys 2019.
    """
    pos = pos_Q.float()
    return torch.logaddexp(pos, neg_QK.float().logsumexp(-1)) - pos


def smoothed_sampled_softmax(smoothing: float) -> Loss:
    """`sampled_softmax` with label smoothing: the target and its negatives share `smoothing` of the labels equally."""

    def loss(pos_Q: Tensor, neg_QK: Tensor) -> Tensor:
        pos, neg = pos_Q.float(), neg_QK.float()
        mean_Q = (pos + neg.sum(-1)) / (neg.shape[-1] + 1)
        return sampled_softmax(pos, neg) + smoothing * (pos - mean_Q)

    return loss


@LOSSES.register("sampled-softmax")
def _sampled_softmax(config: ObjectiveConfig, num_items: int) -> SampledLoss:
    smoothing = config.label_smoothing
    loss = smoothed_sampled_softmax(smoothing) if smoothing else sampled_softmax
    # Without the correction, scores differ from those of the full softmax by the log rate of the negatives.
    return SampledLoss(loss, config.logq, is_softmax=config.logq or config.negatives == "uniform")


@register_loss("bpr")
def bpr(pos_Q: Tensor, neg_QK: Tensor) -> Tensor:
    """Pairwise ranking: -mean_k log s(pos - neg_k). Source: Rendle et al., UAI 2009."""
    return F.softplus(neg_QK.float() - pos_Q.float()[:, None]).mean(-1)


def bpr_max(regularisation: float = 1.0) -> Loss:
    """-log sum_k w_k s(pos - neg_k) + r sum_k w_k neg_k^2, with w the softmax over the negatives.

    Source: Hidasi & Karatzoglou, CIKM 2018, eq. 10 and 12. The first term is a logsumexp of
    log w_k + log s(pos - neg_k), so it stays finite.
    """

    def loss(pos_Q: Tensor, neg_QK: Tensor) -> Tensor:
        neg = neg_QK.float()
        log_w = neg.log_softmax(-1)
        ranking = -(log_w + F.logsigmoid(pos_Q.float()[:, None] - neg)).logsumexp(-1)
        return ranking + regularisation * (log_w.exp() * neg.square()).sum(-1)

    return loss


@LOSSES.register("bpr-max")
def _bpr_max(config: ObjectiveConfig, num_items: int) -> SampledLoss:
    return SampledLoss(bpr_max(config.bpr_max_regularisation))


@register_loss("top1")
def top1(pos_Q: Tensor, neg_QK: Tensor) -> Tensor:
    """mean_k s(neg_k - pos) + s(neg_k^2). Source: Hidasi et al., ICLR 2016, section 3.1.3."""
    neg = neg_QK.float()
    return ((neg - pos_Q.float()[:, None]).sigmoid() + neg.square().sigmoid()).mean(-1)


@register_loss("top1-max")
def top1_max(pos_Q: Tensor, neg_QK: Tensor) -> Tensor:
    """sum_k w_k (s(neg_k - pos) + s(neg_k^2)), w the softmax over the negatives (CIKM 2018, eq. 8)."""
    neg = neg_QK.float()
    return (neg.softmax(-1) * ((neg - pos_Q.float()[:, None]).sigmoid() + neg.square().sigmoid())).sum(-1)
