"""A loss, negatives, a residual, a task, a split and a metric of a user's own file are choices of the command line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

OWN = """
import numpy as np

from ensue.batches.tasks import TASKS, Task, next_items
from ensue.data.split import SPLITS
from ensue.evaluation.metrics import METRICS
from ensue.nn.residual import RESIDUALS, PlainResidual, PlainStream, ResidualEntry
from ensue.objectives.losses import register_loss
from ensue.objectives.negatives import NEGATIVES, UniformNegatives


@register_loss("hinge")
def hinge(pos_Q, neg_QK):
    return (1 - pos_Q[:, None] + neg_QK).relu().sum(-1)


NEGATIVES.register("unseen")(lambda config, seen, counts_N: UniformNegatives(seen))
RESIDUALS.register("sum")(ResidualEntry(lambda config: PlainStream(), lambda config, sublayer: PlainResidual()))
TASKS.register("soon")(Task(next_items))
SPLITS.register("held-out")(SPLITS["leave-one-out"])
METRICS.register("first")(lambda better_B, equal_B, num_candidates_B, k=None: (better_B == 0) / (1 + equal_B))
"""
CHOICES = ("--loss", "hinge", "--negatives", "unseen", "--residual", "sum", "--task", "soon", "--split", "held-out")
SIZE = ("--num-epochs", 1, "--hidden-units", 8, "--num-blocks", 1, "--maxlen", 5, "--device", "cpu")


def ensue(folder: Path, *words: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, since registering a name is for the whole process."""
    command = [sys.executable, "-m", "ensue", *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "log.csv").write_text(
        "user,item\n" + "".join(f"{u},{(u + t) % 7}\n" for u in range(9) for t in range(5))
    )
    return tmp_path


def test_own_choices_train_and_are_loaded(folder: Path) -> None:
    train = ("train", "log.csv", "--model", "sasrec", *CHOICES, *SIZE, "--out", "run")
    done = ensue(folder, *train)
    assert done.returncode == 2
    assert "unknown value 'soon': Known: last, next, prefixes. A name of your own needs" in done.stderr
    done = ensue(folder, *train, "--model-module", "own.py")
    assert done.returncode == 0, done.stderr
    config = (folder / "run" / "config.toml").read_text()
    assert all(f'"{name}"' in config for name in CHOICES[1::2])
    done = ensue(folder, "evaluate", "run", "--data", "log.csv", "--metrics", "first", "--model-module", "own.py")
    assert done.returncode == 0, done.stderr
    assert "first" in done.stdout
    recommend = ("recommend", "run", "--history", "1,2", "-k", 1)
    assert ensue(folder, *recommend, "--model-module", "own.py").returncode == 0
    done = ensue(folder, *recommend)
    assert done.returncode != 0
    assert "--model-module FILE.py" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_lists_own_choices(folder: Path) -> None:
    done = ensue(folder, "train", "--help", "--model", "sasrec", "--model-module", "own.py")
    shown = "".join(done.stdout.replace("│", "").split())
    for name in CHOICES[1::2]:
        assert re.search(rf"oneof[\w,-]*\b{name}\b", shown)
