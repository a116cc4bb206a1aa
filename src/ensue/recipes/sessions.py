"""Recipes of the models of sessions, and of what they are compared with."""

from __future__ import annotations

from ensue.recipes.presets import Values, recipe


@recipe("recent-popularity")
def recent_popularity() -> Values:
    """What was popular lately: the newest 20,000 events, half the weight every 2,000.

    Expect: .0817 / .0398 on ML-100K (HR@10 / NDCG@10, full), in under a second
    Command: ensue train data/ml-100k --preset recent-popularity --out runs/recent-popularity
    """
    return {"model": {"name": "recent-popularity", "span": 20_000, "half_life": 2_000}}


@recipe("markov-skips")
def markov_skips() -> Values:
    """A Markov chain that also counts what came up to eleven steps after an item, chosen on validation.

    Expect: .1580 / .0834 on ML-100K (HR@10 / NDCG@10, full; order 1 without skips: .1448 / .0761), in under a second
    Command: ensue train data/ml-100k --preset markov-skips --out runs/markov-skips
    """
    return {"model": {"name": "markov", "smoothing": 10.0, "skips": 10, "skip_weight": 0.9}}


@recipe("vsknn")
def vsknn() -> Values:
    """Session neighbours with linear decay and inverse frequency.

    Expect: 52.03 / 18.32 on Diginetica (P@20 / MRR@20, every prefix of the test sessions), in 12 s of one core
    Command: ensue train data/diginetica --preset vsknn --split session --split-feature split --out runs/vsknn
    """
    return {"model": {"name": "vsknn"}}


@recipe("stan")
def stan() -> Values:
    """Session neighbours weighted by place and age, chosen on the newest tenth of Diginetica's training sessions.

    Expect: 52.85 / 18.71 on Diginetica (P@20 / MRR@20, every prefix of the test sessions), in 12 s of one core
    Command: ensue train data/diginetica --preset stan --split session --split-feature split --out runs/stan
    """
    return {"model": {"name": "vsknn", "variant": "stan", "neighbours": 200}}


@recipe("fpmc")
def fpmc() -> Values:
    """Factorised personalised Markov chains with BPR, one negative for each event (Rendle et al. 2010).

    Expect: .2036 / .1062 on ML-100K (HR@10 / NDCG@10, full, seed 0; markov: .1448 / .0761), 55 epochs, a minute
    Command: ensue train data/ml-100k --preset fpmc --out runs/fpmc
    """
    return {
        "model": {"name": "fpmc"},
        "objective": {"loss": "bpr"},
        "train": {
            "num_epochs": 60,
            "lr": 0.005,
            "batch_size": 32,
            "window": "sliding",
            "eval_epochs": 5,
            "patience": 3,
        },
    }


@recipe("gru4rec-sessions")
def gru4rec_sessions() -> Values:
    """GRU4Rec on whole sessions, with the sampled softmax of the recipe srgnn.

    Expect: 42.53 / 12.66 on Diginetica (P@20 / MRR@20, all test prefixes, seed 0); settings not searched
    Command: ensue train data/diginetica --preset gru4rec-sessions --split session --split-feature split --out runs/gru
    """
    values = srgnn()
    return {
        **values,
        "model": {"name": "gru4rec", "maxlen": 50, "hidden_units": 100, "hidden_dropout_rate": 0.2},
        "train": {**values["train"], "num_epochs": 8, "window": "sliding"},
    }


@recipe("gru4rec-2018")
def gru4rec_2018() -> Values:
    """GRU4Rec with the settings of its authors of 2018: session-parallel lanes, BPR-max, 2,048 further negatives.

    Source: examples/rsc15/run_rsc15.py of github.com/hidasib/GRU4Rec, constrained embedding: 100 units, 32 sessions at
    a time, 10 epochs, sample_alpha 0, bpreg 0.5, no dropout. Three settings differ: Adam instead of Adagrad with rate
    0.2 and momentum 0.1, linear scores instead of ELU, and sessions in random order instead of by time.

    Expect: not run to the end yet on Diginetica, full; 10 epochs
    Command: ensue train data/diginetica --preset gru4rec-2018 --split session --split-feature split --out runs/gru4rec
    """
    return {
        "model": {"name": "gru4rec", "hidden_units": 100, "dropout_rate": 0.0, "lane_steps": 1},
        "objective": {
            "loss": "bpr-max",
            "bpr_max_regularisation": 0.5,
            "negatives": "in-batch",
            "num_negatives": 2_048,
            "share_negatives": True,
            "popularity_alpha": 0.0,
        },
        "train": {"num_epochs": 10, "batch_size": 32},
    }


@recipe("hgru4rec")
def hgru4rec() -> Values:
    """HGRU4Rec for users with several sessions (Quadrana et al. 2017), with session attention and a memory of 4 slots.

    Expect: Tmall purchases, full: NDCG@10 .2869, HR@10 .3565 (seed 0), as gru4rec (.2857, .3554); 8 epochs of 70 s
    Command: ensue train data/tmall --preset hgru4rec --out runs/hgru4rec
    """
    return {
        "model": {
            "name": "hgru4rec",
            "maxlen": 50,
            "user_state": "all",
            "session_attention": True,
            "memory_slots": 4,
            "dropout_rate": 0.3,
            "hidden_dropout_rate": 0.3,
        },
        "objective": {"loss": "sampled-softmax", "num_negatives": 2_048, "share_negatives": True},
        "train": {
            "num_epochs": 8,
            "eval_epochs": 2,
            "patience": 0,
            "lr": 0.003,
            "schedule": "cosine",
            "warmup_steps": 50,
            "window": "sliding",
            "validation_users": 5_000,
        },
    }


@recipe("srgnn")
def srgnn() -> Values:
    """SR-GNN on every prefix (Wu et al. 2019), with a sampled softmax of 2,048 shared negatives by popularity.

    Expect: 50.20 / 17.48 on Diginetica (P@20 / MRR@20, all prefixes of the test sessions) in 7 minutes on one core
    Command: ensue train data/diginetica --preset srgnn --split session --split-feature split --out runs/srgnn
    """
    return {
        "model": {"name": "srgnn"},
        "objective": {
            "loss": "sampled-softmax",
            "negatives": "popularity",
            "num_negatives": 2_048,
            "share_negatives": True,
        },
        "train": {"num_epochs": 4, "batch_size": 512, "lr": 0.003, "schedule": "cosine", "patience": 0},
    }


@recipe("gcegnn")
def gcegnn() -> Values:
    """GCE-GNN on every prefix (Wang et al. 2020), with the sampled softmax of the recipe srgnn.

    Expect: not run to the end yet on Diginetica; an epoch takes 190 s of one core (the full softmax: 740 s)
    Command: ensue train data/diginetica --preset gcegnn --split session --split-feature split --out runs/gcegnn
    """
    return {**srgnn(), "model": {"name": "gcegnn"}}
