"""Recipes of the models other than SASRec and TiSASRec."""

from __future__ import annotations

from ensue.recipes.presets import Values, recipe


@recipe("bert4rec-ce")
def bert4rec_ce() -> Values:
    """BERT4Rec with the full softmax for long histories: cloze, a fifth of the events masked.

    Expect: not run yet on ML-1M, full; 60 epochs
    Command: ensue train data/ml-1m --preset bert4rec-ce --out runs/bert4rec-ce
    """
    return {
        "model": {"name": "bert4rec", "hidden_units": 128, "num_heads": 2, "newest_share": 0.1},
        "objective": {"loss": "ce"},
        "train": {
            "num_epochs": 60,
            "eval_epochs": 3,
            "patience": 0,
            "window": "sliding",
            "lr": 0.0015,
            "schedule": "cosine",
            "warmup_steps": 200,
        },
    }


@recipe("gru4rec-ce")
def gru4rec_ce() -> Values:
    """GRU4Rec with the full softmax over whole histories, tied item vectors.

    Expect: not run yet on ML-1M, full; 30 epochs
    Command: ensue train data/ml-1m --preset gru4rec-ce --out runs/gru4rec-ce
    """
    values = bert4rec_ce()
    return {
        **values,
        "model": {"name": "gru4rec", "hidden_units": 128, "dropout_rate": 0.2, "hidden_dropout_rate": 0.2},
        "train": {**values["train"], "num_epochs": 30},
    }
