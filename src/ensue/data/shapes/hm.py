"""H&M transactions_train.csv: `t_dat,customer_id,article_id,price,sales_channel_id`; article ids start with zeros."""

from __future__ import annotations

from ensue.data.shape import SHAPES, Sample, Shape, by_header


@SHAPES.register("hm")
def recognise(sample: Sample) -> Shape | None:
    """The header of the transactions."""
    return by_header(sample, "hm", "t_dat customer_id article_id", user="customer_id", item="article_id", time="t_dat")
