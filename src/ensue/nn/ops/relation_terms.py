"""The attention terms for the interval between two events, without a [T, T, D] tensor.

Source: TiSASRec, Li, Wang & McAuley, WSDM 2020, eq. 5 to 8:

    e_ij = q_i . (k_j + R^K[r_ij]) / sqrt(d)        z_i = sum_j softmax(e)_ij (v_j + R^V[r_ij])

r_ij is one of a few hundred buckets. Therefore q_i . R^K[r_ij] is a gather from the small product q R^K^T, and the
value term is a scatter-add of the weights into buckets followed by a product with R^V: O(T T + T R) memory per head.
The position vectors of eq. 5 belong to single events, so they are added to k and v.

Suffixes: `B` rows of the batch, `P` events of all rows, `G` rows of a group, `X` rows and heads of a group (G * H),
`A` queries of a strip, `K` keys of a strip, `R` buckets, `H` heads, `D` width, `d` width of a head, `E` 3 D.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ensue.nn.ops.heads import join_heads, split_heads

Buckets = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Relations:
    """The relation terms of one batch for pairs of events; all blocks use the same.

    Attributes:
        buckets: r_ij for each group of the layout and each strip of all its queries: int64 [G, A, K].
        asked_buckets: the same for the queries of the asked events only; empty if all events are asked.
        position_PE: vectors to add to queries (zeros), keys and values, side by side, [P, 3 D]; or None.
        keys_BRD: R^K for each row in the layout's order, [B, R, D], or for all rows, [1, R, D]; None omits the term.
        values_BRD: R^V, likewise.
        bias_HR: a scalar for each head and bucket, added to e_ij; None omits the term.
    """

    buckets: tuple[Buckets, ...]
    asked_buckets: tuple[Buckets, ...] = ()
    position_PE: Tensor | None = None
    keys_BRD: Tensor | None = None
    values_BRD: Tensor | None = None
    bias_HR: Tensor | None = None


@dataclass
class Terms:
    """The tables for the heads of one group, or their gradients: keys and values [X, R, d], bias [H, R]."""

    keys: Tensor | None = None
    values: Tensor | None = None
    bias: Tensor | None = None

    @classmethod
    def of_rows(cls, tables: tuple[Tensor | None, ...], rows: slice, heads: int) -> Terms:
        """The terms of some rows, from the tables of `Relations`: keys_BRD, values_BRD, bias_HR."""

        def of(table_BRD: Tensor | None) -> Tensor | None:
            if table_BRD is None:
                return None
            part = table_BRD[rows] if table_BRD.shape[0] > 1 else table_BRD.expand(rows.stop - rows.start, -1, -1)
            return split_heads(part, 1, heads)[0]

        return cls(of(tables[0]), of(tables[1]), tables[2])

    def zeros(self) -> Terms:
        """Zero gradients of the same shapes, to add to."""
        return Terms(*(None if t is None else t.new_zeros(t.shape) for t in (self.keys, self.values, self.bias)))

    def add_to(self, tables: list[Tensor | None], rows: slice, heads: int) -> None:
        """Add these gradients of one group to the gradients of the whole tables."""
        for part_XRD, table in zip((self.keys, self.values), tables, strict=False):
            if part_XRD is not None and table is not None:
                joined = join_heads(part_XRD[None], heads)
                if table.shape[0] > 1:
                    table[rows] += joined
                else:
                    table += joined.sum(0, keepdim=True)
        if self.bias is not None and tables[2] is not None:
            tables[2] += self.bias

    def add_to_scores(self, scores: Tensor, q: Tensor, bucket: Tensor, scale: float) -> None:
        """scores += scale q . R^K[r] + bias[r], in place."""
        table = None if self.keys is None else q.bmm(self.keys.transpose(1, 2)).mul_(scale)
        if self.bias is not None:
            heads, count = self.bias.shape
            bias_XAR = self.bias.repeat(q.shape[0] // heads, 1)[:, None].expand(-1, q.shape[1], count)
            table = bias_XAR if table is None else table + bias_XAR
        if table is not None:
            scores.add_(table.gather(2, bucket))

    def add_to_output(self, out: Tensor, weights: Tensor, bucket: Tensor) -> None:
        """out += sum_j weights_ij R^V[r_ij], in place."""
        if self.values is not None:
            out.baddbmm_(by_bucket(weights, bucket, self.values.shape[1]), self.values)

    def add_to_weights_gradient(self, grad_weights: Tensor, grad: Tensor, bucket: Tensor) -> None:
        """Add the gradient of the weights through the value term, from the output's gradient [X, A, d], in place."""
        if self.values is not None:
            grad_weights.add_(grad.bmm(self.values.transpose(1, 2)).gather(2, bucket))

    def add_to_queries_gradient(self, grad_q: Tensor, grad_XAR: Tensor | None) -> None:
        """Add the queries' gradient through the key term, from the scores' gradient summed by bucket, in place.

        Both are without the scale.
        """
        if self.keys is not None and grad_XAR is not None:
            grad_q.baddbmm_(grad_XAR, self.keys)

    def add_scores_gradient(self, grad_scores: Tensor, q_scaled: Tensor, bucket: Tensor) -> Tensor | None:
        """On gradients: add those of R^K and the bias; return `grad_scores` summed by bucket, [X, A, R], if needed."""
        table = self.keys if self.keys is not None else self.bias
        if table is None:
            return None
        grad_XAR = by_bucket(grad_scores, bucket, table.shape[1])
        if self.keys is not None:
            self.keys.baddbmm_(grad_XAR.transpose(1, 2), q_scaled)
        if self.bias is not None:
            self.bias += grad_XAR.sum(1).view(-1, *self.bias.shape).sum(0)
        return grad_XAR

    def add_values_gradient(self, weights: Tensor, grad: Tensor, bucket: Tensor) -> None:
        """On gradients: add that of R^V, from the weights and the output's gradient."""
        if self.values is not None:
            self.values.baddbmm_(by_bucket(weights, bucket, self.values.shape[1]).transpose(1, 2), grad)


def by_bucket(weights_XAK: Tensor, bucket_XAK: Tensor, count: int) -> Tensor:
    """The weights of a query's keys summed by bucket: [X, A, R]."""
    return weights_XAK.new_zeros(*weights_XAK.shape[:2], count).scatter_add_(2, bucket_XAK, weights_XAK)
