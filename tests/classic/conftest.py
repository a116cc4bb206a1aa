"""State dicts as the published programs write them, and small data in their forms."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ensue.classic import main

N, D, BLOCKS, HEADS, MAXLEN, SPAN = 30, 12, 2, 2, 10, 20
State = dict[str, Tensor]
SMALL = ["--maxlen=10", "--hidden_units=8", "--num_blocks=1", "--num_epochs=2", "--lr=0.01"]
LINE = re.compile(
    r"epoch:\d+, time: \d+\.\d{6}\(s\), valid \(NDCG@10: 0\.\d{4}, HR@10: [01]\.\d{4}\), "
    r"test \(NDCG@10: 0\.\d{4}, HR@10: [01]\.\d{4}\)"
)


def random_state(shapes: dict[str, tuple[int, ...]]) -> State:
    generator = torch.Generator().manual_seed(0)
    state = {name: 0.4 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for name in state:
        if "layernorm" in name and name.endswith("weight"):
            state[name] += 1.0
    return state


def common_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"item_emb.weight": (N + 1, D)}
    for name in (
        *(f"{kind}_layernorms.{i}" for kind in ("attention", "forward") for i in range(BLOCKS)),
        "last_layernorm",
    ):
        shapes |= {f"{name}.weight": (D,), f"{name}.bias": (D,)}
    for i in range(BLOCKS):
        for conv in ("conv1", "conv2"):
            at = f"forward_layers.{i}.{conv}."
            shapes |= {f"{at}weight": (D, D, 1), f"{at}bias": (D,)}
    return shapes


def sasrec_state(of_2020: bool) -> State:
    shapes = {**common_shapes(), "pos_emb.weight": (MAXLEN if of_2020 else MAXLEN + 1, D)}
    for i in range(BLOCKS):
        at = f"attention_layers.{i}."
        shapes |= {f"{at}in_proj_weight": (3 * D, D), f"{at}in_proj_bias": (3 * D,)}
        shapes |= {f"{at}out_proj.weight": (D, D), f"{at}out_proj.bias": (D,)}
    state = random_state(shapes)
    if not of_2020:
        state["item_emb.weight"][0] = 0.0
        state["pos_emb.weight"][0] = 0.0
    return state


def tisasrec_state() -> State:
    shapes = common_shapes()
    shapes |= {"abs_pos_K_emb.weight": (MAXLEN, D), "abs_pos_V_emb.weight": (MAXLEN, D)}
    shapes |= {"time_matrix_K_emb.weight": (SPAN + 1, D), "time_matrix_V_emb.weight": (SPAN + 1, D)}
    for i in range(BLOCKS):
        for part in "QKV":
            at = f"attention_layers.{i}.{part}_w."
            shapes |= {f"{at}weight": (D, D), f"{at}bias": (D,)}
    return random_state(shapes)


def listed(state: State, activation: str) -> State:
    """The state with the list of modules that `Module.state_dict` adds, activations included."""
    parts = ["conv1", "dropout1", *(["relu"] if activation == "relu" else []), "conv2", "dropout2"]
    names = ["", "item_emb", *(f"forward_layers.{i}.{part}" for i in range(BLOCKS) for part in parts)]
    ordered = OrderedDict(state)
    vars(ordered)["_metadata"] = OrderedDict((name, {"version": 1}) for name in names)
    return ordered


Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """State -> a .pth file."""

    def write(state: object, name: str = "model.pth") -> Path:
        torch.save(state, tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture(scope="session")
def classic_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with data/plain.txt (two columns) and data/timed.txt (four): 60 users, items 1..30."""
    folder = tmp_path_factory.mktemp("classic")
    (folder / "data").mkdir()
    rng = np.random.default_rng(0)
    plain, timed = [], []
    for user in range(1, 61):
        item, time = int(rng.integers(1, N + 1)), 1_000_000 * user
        for _ in range(int(rng.integers(8, 16))):
            plain.append(f"{user} {item}")
            timed.append(f"{user}\t{item}\t5\t{time}")
            item = item % N + 1 if rng.random() < 0.8 else int(rng.integers(1, N + 1))
            time += 100 * int(rng.integers(0, 5))
    (folder / "data" / "plain.txt").write_text("\n".join(plain) + "\n")
    (folder / "data" / "timed.txt").write_text("\n".join(timed) + "\n")
    return folder


@pytest.fixture
def at(classic_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh working directory with the data in it."""
    (tmp_path / "data").symlink_to(classic_data / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines_of(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    capsys.readouterr()
    assert main(words) == 0
    return capsys.readouterr().out.splitlines()
