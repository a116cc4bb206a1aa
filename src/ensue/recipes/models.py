"""Recipes of the models other than SASRec and TiSASRec."""

from __future__ import annotations

from ensue.recipes.presets import Values, recipe, sasrec_ce


@recipe("bert4rec-ce")
def bert4rec_ce() -> Values:
    """BERT4Rec with the full softmax for long histories: cloze task, a fifth of the events masked.

    Expect: ML-1M, full: HR@10 .302, NDCG@10 .167 (seed 0, bf16); 60 epochs of 34 s on one core
    Command: ensue train data/ml-1m --preset bert4rec-ce --out runs/bert4rec-ce
    """
    values = sasrec_ce()
    return {
        **values,
        "model": {"name": "bert4rec", "hidden_units": 128, "num_heads": 2, "newest_share": 0.1},
        "train": {**values["train"], "num_epochs": 60, "batch_size": 64},
    }


@recipe("gru4rec-ce")
def gru4rec_ce() -> Values:
    """GRU4Rec with the full softmax over whole histories, tied item vectors.

    Expect: ML-1M, full: HR@10 .316, NDCG@10 .186 (seed 0, bf16); 30 epochs of 70 s on one core
    Command: ensue train data/ml-1m --preset gru4rec-ce --out runs/gru4rec-ce
    """
    values = sasrec_ce()
    return {
        **values,
        "model": {"name": "gru4rec", "hidden_units": 128, "dropout_rate": 0.2, "hidden_dropout_rate": 0.2},
        "train": {**values["train"], "batch_size": 64, "lr": 0.004},
    }


@recipe("bsarec-sparse")
def bsarec_sparse() -> Values:
    """BSARec as published for Amazon Beauty (Shin et al. 2024): every prefix an example, full softmax.

    Expect: Beauty, full: HR@10 .0983, NDCG@10 .0588 (seed 0, bf16; 44 epochs of 39 s on one core); paper: .1008, .0611
    Command: ensue train data/beauty --preset bsarec-sparse --out runs/bsarec-sparse
    """
    return {
        "model": {"name": "bsarec", "alpha": 0.7, "frequencies": 3},
        "objective": {"loss": "ce"},
        "train": {
            "num_epochs": 200,
            "batch_size": 256,
            "lr": 0.0005,
            "beta2": 0.999,
            "eval_epochs": 2,
            "patience": 5,
        },
    }


@recipe("fmlprec-sparse")
def fmlprec_sparse() -> Values:
    """FMLP-Rec for sparse logs (Zhou et al. 2022), trained as bsarec-sparse.

    Expect: not run yet on Beauty, full; at most 200 epochs
    Command: ensue train data/beauty --preset fmlprec-sparse --out runs/fmlprec-sparse
    """
    return {**bsarec_sparse(), "model": {"name": "fmlprec"}}


@recipe("hstu-query-time")
def hstu_query_time() -> Values:
    """HSTU with the request's time and the full softmax (Zhai et al. 2024), for long histories.

    Expect: ML-1M, 3,706 items, full+query-time: HR@10 .337, NDCG@10 .200 (seed 0, bf16); 30 epochs of 55 s on one core
    Command: ensue train data/ml-1m --preset hstu-query-time --out runs/hstu-query-time
    """
    values = sasrec_ce()
    return {**values, "model": {"name": "hstu", "hidden_units": 128, "num_heads": 2, "query_time": True}}


@recipe("retention-ce")
def retention_ce() -> Values:
    """Retention, a linear recurrence that fades with events and with time, and the full softmax, for long histories.

    Expect: not run yet on ML-1M, full; 30 epochs
    Command: ensue train data/ml-1m --preset retention-ce --out runs/retention-ce
    """
    return {**sasrec_ce(), "model": {"name": "retention", "hidden_units": 128}}


@recipe("caser-paper")
def caser_paper() -> Values:
    """Caser with the paper's filters (Tang & Wang 2018), a vector for each user, and the full softmax.

    Expect: not run yet on ML-1M, full; 60 epochs
    Command: ensue train data/ml-1m --preset caser-paper --out runs/caser-paper
    """
    return {**bert4rec_ce(), "model": {"name": "caser", "user": "vectors"}}


@recipe("esasrec")
def esasrec() -> Values:
    """eSASRec (Tikhonovich et al., RecSys 2025) for sparse logs: gated residuals, sampled softmax, mixed negatives.

    The feed-forward has width D and GELU, where the authors' is SwiGLU.

    Expect: not run yet on Beauty, full; at most 100 epochs
    Command: ensue train data/beauty --preset esasrec --out runs/esasrec
    """
    model = {"name": "sasrec", "maxlen": 50, "hidden_units": 64, "dropout_rate": 0.5, "residual": "gated"}
    return {
        "model": {**model, "activation": "gelu"},
        "objective": {"loss": "sampled-softmax", "negatives": "mixed", "num_negatives": 256},
        "train": {"num_epochs": 100, "eval_epochs": 2, "patience": 5},
    }


@recipe("cl4srec")
def cl4srec() -> Values:
    """SASRec with the full softmax and CL4SRec's contrastive term (Xie et al. 2022), for sparse logs.

    Expect: not run yet on Beauty, full; at most 100 epochs
    Command: ensue train data/beauty --preset cl4srec --out runs/cl4srec
    """
    return {
        "model": {"name": "sasrec", "maxlen": 50, "hidden_units": 64, "dropout_rate": 0.5},
        "objective": {"loss": "ce", "auxiliary": "contrastive"},
        "train": {"num_epochs": 100, "batch_size": 256, "eval_epochs": 2, "patience": 5},
    }


@recipe("bst-ranker")
def bst_ranker() -> Values:
    """BST (Chen et al. 2019): binary cross-entropy on every prefix, four negatives, judged on sampled candidates.

    Expect: not run yet on Beauty, uniform-100; at most 30 epochs
    Command: ensue train data/beauty --preset bst-ranker --out runs/bst-ranker
    """
    return {
        "model": {"name": "bst"},
        "objective": {"loss": "bce", "num_negatives": 4},
        "train": {"num_epochs": 30, "batch_size": 256, "patience": 3, "validation_protocol": "uniform-100"},
        "evaluate": {"protocol": "uniform-100"},
    }


@recipe("tiger")
def tiger() -> Values:
    """TIGER (Rajput et al. 2023) with the paper's codes, from the items near each other in the log, and SASRec's trunk.

    Expect: Beauty, full: HR@10 .0789, NDCG@10 .0419 (seed 0, stopped after 23 epochs of 8 to 67 s on a shared core)
    Command: ensue train data/beauty --preset tiger --out runs/tiger
    """
    return {
        "model": {"name": "tiger", "maxlen": 50, "hidden_units": 64, "dropout_rate": 0.5},
        "objective": {"loss": "likelihood"},
        "train": {
            "num_epochs": 60,
            "batch_size": 256,
            "lr": 0.002,
            "eval_epochs": 2,
            "patience": 5,
            "validation_users": 6_000,
        },
    }
