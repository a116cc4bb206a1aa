"""A .pth file gives the scores of its own program, or is refused by name."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from ensue.batches.batch import SequenceBatch
from ensue.classic.artefact import save_import
from ensue.classic.pth import Imported, PthOptions, read_pth
from ensue.cli import main
from ensue.data.store import SequenceStore
from ensue.data.vocabulary import Vocabulary
from ensue.errors import ArtefactError, ConfigError, DataError
from ensue.nn.block import Activation, Norm
from ensue.recommender import Recommender

from .conftest import BLOCKS, HEADS, MAXLEN, SPAN, D, N, Save, State, listed, sasrec_state, tisasrec_state
from .reference import sasrec_scores, tisasrec_scores

HISTORIES = [[7], [3, 3], [1, 2, 3, 4, 30], list(range(1, MAXLEN)), list(range(5, 5 + MAXLEN)), [9] * MAXLEN]
TOLERANCE = 1e-5


def doubles(state: State) -> dict[str, np.ndarray]:
    return {name: tensor.double().numpy() for name, tensor in state.items()}


def scores_of(result: Imported, times: list[list[int]] | None = None) -> np.ndarray:
    lengths = np.array([len(history) for history in HISTORIES])
    stamps = None if times is None else np.concatenate(times)
    batch = SequenceBatch.from_numpy(np.concatenate(HISTORIES), lengths, stamps)
    with torch.inference_mode():
        return np.asarray(result.model.logits(batch).double())


@pytest.mark.parametrize(
    ("of_2020", "norm", "asked"),
    [
        (True, "original", None),
        (False, "original", "original"),
        (False, "post", "post"),
        (False, "post", None),
        (False, "pre", "pre"),
    ],
)
def test_sasrec_gives_its_program_scores(save: Save, of_2020: bool, norm: str, asked: Norm | None) -> None:
    state = sasrec_state(of_2020)
    result = read_pth(save(state), PthOptions(norm=asked, num_heads=HEADS))
    weights = doubles(state)
    want = [sasrec_scores(weights, history, MAXLEN, norm, HEADS, of_2020) for history in HISTORIES]
    assert np.abs(scores_of(result) - np.array(want)).max() < TOLERANCE
    assert result.norm_assumed == (asked is None and not of_2020)
    assert (result.config.maxlen, result.config.model_dump()["norm"]) == (MAXLEN, norm)


def test_tisasrec_gives_its_program_scores(save: Save) -> None:
    state = tisasrec_state()
    result = read_pth(save(state), PthOptions(num_heads=HEADS, time_unit=1))
    rng = np.random.default_rng(0)
    # Gaps up to beyond the span, and ties.
    units = [(1 + np.concatenate([[0], np.cumsum(rng.integers(0, 9, len(h) - 1))])).tolist() for h in HISTORIES]
    assert max(row[-1] for row in units) > SPAN
    want = [tisasrec_scores(doubles(state), h, t, MAXLEN, HEADS) for h, t in zip(HISTORIES, units, strict=True)]
    assert np.abs(scores_of(result, units) - np.array(want)).max() < TOLERANCE
    # Without a unit, seconds are counted in the row's smallest gap.
    own = read_pth(save(state), PthOptions(num_heads=HEADS))
    want = [tisasrec_scores(doubles(state), h, range(1, len(h) + 1), MAXLEN, HEADS) for h in HISTORIES]
    seconds = [[1_000 + 60 * place for place in range(len(history))] for history in HISTORIES]
    assert np.abs(scores_of(own, seconds) - np.array(want)).max() < TOLERANCE


@pytest.mark.parametrize("of_time", [False, True])
@pytest.mark.parametrize(
    ("in_file", "chosen", "activation"),
    [
        (None, None, "relu"),
        ("none", None, "none"),
        ("relu", None, "relu"),
        (None, "none", "none"),
        ("relu", "none", "none"),
    ],
)
def test_the_activation_is_that_of_the_file(
    save: Save, of_time: bool, in_file: str | None, chosen: Activation | None, activation: str
) -> None:
    """Programs before 10 October 2020 had none; the file's list of modules says so, else the option does."""
    state = tisasrec_state() if of_time else sasrec_state(True)
    path = save(state if in_file is None else listed(state, in_file))
    result = read_pth(path, PthOptions(activation=chosen, num_heads=HEADS, time_unit=1))
    weights, units = doubles(state), [list(range(1, len(h) + 1)) for h in HISTORIES]
    if of_time:
        rows = zip(HISTORIES, units, strict=True)
        want = [tisasrec_scores(weights, h, t, MAXLEN, HEADS, activation) for h, t in rows]
    else:
        want = [sasrec_scores(weights, h, MAXLEN, "original", HEADS, True, activation) for h in HISTORIES]
    assert np.abs(scores_of(result, units) - np.array(want)).max() < TOLERANCE
    assert result.activation_assumed == (in_file is None and chosen is None)


def test_modules_are_listed_under_prefixes_too(save: Save) -> None:
    state = listed(sasrec_state(True), "none")
    prefixed = OrderedDict((f"module.{name}", tensor) for name, tensor in state.items())
    vars(prefixed)["_metadata"] = {f"module.{name}": {} for name in vars(state)["_metadata"]}
    assert read_pth(save({"state_dict": prefixed})).config.model_dump()["activation"] == "none"


def test_an_unknown_activation_is_refused(save: Save) -> None:
    state = listed(sasrec_state(True), "none")
    vars(state)["_metadata"]["forward_layers.0.gelu"] = {"version": 1}
    with pytest.raises(ArtefactError, match=r"unknown module forward_layers\.0\.gelu: choose activation relu or none"):
        read_pth(save(state))
    assert read_pth(save(state), PthOptions(activation="none")).config.model_dump()["activation"] == "none"


def test_rows_for_longer_intervals_are_never_read(save: Save) -> None:
    state = tisasrec_state()
    longer = {**state, "time_matrix_K_emb.weight": torch.cat((state["time_matrix_K_emb.weight"], torch.ones(9, D)))}
    times = [list(range(len(history))) for history in HISTORIES]
    assert np.array_equal(scores_of(read_pth(save(state)), times), scores_of(read_pth(save(longer)), times))


def test_heads_and_epoch_are_read_from_the_name(save: Save) -> None:
    name = f"SASRec.epoch=20.lr=0.001.layer=2.head=2.hidden={D}.maxlen={MAXLEN}.pth"
    result = read_pth(save(sasrec_state(True), name))
    assert (result.epoch, result.config.model_dump()["num_heads"]) == (20, 2)
    with pytest.raises(ArtefactError, match=f"those of maxlen {MAXLEN} .got maxlen 11"):
        read_pth(save(sasrec_state(True), name.replace(f"maxlen={MAXLEN}", "maxlen=11")))


class _Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("run",)


def _changed(**changes: torch.Tensor) -> State:
    return {**sasrec_state(False), **changes}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"item_emb.weight": _Harmful()}, "cannot be read safely as a state dict"),
        ([1, 2], "must contain a state dict .*, but contains a list"),
        ({}, "contains an empty dict"),
        ({"state_dict": {}}, "contains an empty dict"),
        ({"epoch": 3}, "entry 'epoch' must be a tensor"),
        ({"state_dict": {"epoch": 3}}, "entry 'epoch' must be a tensor"),
        ({"state_dict": [3]}, "entry 'state_dict' must be a tensor"),
        ({"weight": torch.ones(2)}, "SASRec.pytorch .with pos_emb.weight. or .* contains weight"),
        ({"module.weight": torch.ones(2), "bias": torch.ones(2)}, "contains bias, module.weight"),
        (
            _changed(**{"item_emb.weight": torch.full((N + 1, D), float("nan"))}),
            "'item_emb.weight' contains a value that is",
        ),
        (_changed(**{"last_layernorm.bias": torch.ones(D + 1)}), r"'last_layernorm.bias' is \[13\], must be \[12\]"),
        (_changed(extra=torch.ones(1)), "has unknown tensors: extra"),
        (
            {k: v for k, v in sasrec_state(True).items() if "out_proj.bias" not in k},
            "lacks tensors: attention_layers",
        ),
        (
            _changed(**{"item_emb.weight": torch.ones(N + 1, D)}),
            "row 0 .padding. of tensor 'item_emb.weight' must be zero",
        ),
        (_changed(**{"pos_emb.weight": torch.ones(5, D + 1)}), r"'pos_emb.weight' is \[5, 13\], must be \[rows, 12\]"),
    ],
)
def test_other_files_are_refused(save: Save, content: object, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ArtefactError, match=message):
        read_pth(save(content))
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict"])
def test_wrapped_state_dicts_are_read(save: Save, prefix: str, key: str | None) -> None:
    """As DataParallel, torch.compile and checkpoints of training programs write them."""
    state = sasrec_state(False)
    prefixed = {prefix + name: tensor for name, tensor in state.items()}
    content = prefixed if key is None else {"epoch": 7, key: prefixed, "optimizer": {"step": torch.ones(1)}}
    plain, wrapped = read_pth(save(state, "plain.pth")), read_pth(save(content, "wrapped.pth"))
    assert np.array_equal(scores_of(wrapped), scores_of(plain))
    assert wrapped.config == plain.config


def test_tensors_larger_than_the_file_are_refused(save: Save) -> None:
    """One number, repeated: a file may say so, and a copy of it would fill any memory."""
    state = _changed(**{"item_emb.weight": torch.zeros(1, 1).expand(10**9, 10**6)})
    with pytest.raises(ArtefactError, match=r"'item_emb.weight' is \[1000000000, 1000000\], more than the file can"):
        read_pth(save(state))


def test_broken_and_missing_files_are_refused(save: Save, tmp_path: Path) -> None:
    path = save(sasrec_state(True))
    path.write_bytes(path.read_bytes()[:1000])
    for broken in (path, tmp_path / "none.pth"):
        with pytest.raises(ArtefactError, match=str(broken)):
            read_pth(broken)


def test_settings_that_do_not_fit_are_refused(save: Save) -> None:
    with pytest.raises(ConfigError, match="num_heads 5 must divide hidden_units 12"):
        read_pth(save(sasrec_state(True)), PthOptions(num_heads=5))
    with pytest.raises(ConfigError, match=r"'num_heads': input should be greater than or equal to 1 \(got 0\)"):
        read_pth(save(sasrec_state(True), "SASRec.head=2.pth"), PthOptions(num_heads=0))
    with pytest.raises(ArtefactError, match="got maxlen 0"):
        read_pth(save(sasrec_state(True)), PthOptions(maxlen=0))
    with pytest.raises(ConfigError, match=r"must be 'original' for TiSASRec.pytorch \(got 'pre'\)"):
        read_pth(save(tisasrec_state()), PthOptions(norm="pre"))


def test_items_follow_the_vocabulary(save: Save) -> None:
    """SASRec.pytorch's item numbers are the ids; ids without an event have a row and no place in the data."""
    path = save(sasrec_state(False))
    ids = [2, 5, 6, 7, 30]
    items = read_pth(path, None, Vocabulary.from_ids(ids)).model.state_dict()["items.weight"]
    assert torch.equal(items, sasrec_state(False)["item_emb.weight"][[0, *ids]])
    for wrong in (Vocabulary.of_range(N + 1), Vocabulary.from_ids([1, N + 1]), Vocabulary.from_ids(["a", "b"])):
        with pytest.raises(DataError, match="trained on 30 items, but the data has"):
            read_pth(path, None, wrong)
    named = Vocabulary.from_ids([f"item {i}" for i in range(N)])
    assert len(read_pth(save(tisasrec_state()), None, named).model.state_dict()["items.weight"]) == N + 1


def test_a_run_folder_gives_the_same_scores(save: Save, tmp_path: Path) -> None:
    path = save(sasrec_state(False))
    result = read_pth(path, PthOptions(norm="pre", num_heads=HEADS))
    save_import(tmp_path / "run", result, path)
    loaded = Recommender.load(tmp_path / "run")
    want = sasrec_scores(doubles(sasrec_state(False)), [4, 9, 4], MAXLEN, "pre", HEADS, False)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.log == [{"imported from": path.name, "sha256": digest}]
    card = (tmp_path / "run" / "card.md").read_text()
    assert "- Epochs trained: 0\n" in card
    assert f"- Weights imported from `{path.name}`, SHA-256 `{digest}`\n" in card
    best = loaded.recommend([4, 9, 4, 1_000], k=3)
    assert best.unknown == (1_000,)
    want[[3, 8]] = -np.inf
    assert best.ids == (1 + np.argsort(-want)[:3]).tolist()
    assert [entry.score for entry in best] == pytest.approx(sorted(want, reverse=True)[:3], abs=TOLERANCE)


def test_import_command(save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(sasrec_state(False))
    assert main(["import", str(path), "--out", str(tmp_path / "run"), "--num-heads", "2"]) == 0
    lines = capsys.readouterr().out
    assert "assumed norm post" in lines
    assert "assumed activation" not in lines
    assert f"{BLOCKS} blocks of width {D}, 2 heads, maxlen {MAXLEN}" in " ".join(lines.split())
    assert main(["import", str(path), "--out", str(tmp_path / "run")]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["import", str(path), "--out", str(tmp_path / "b"), "--norm", "post", "--norm-first"]) == 2
    assert not (tmp_path / "b").exists()
    assert main(["import", str(path), "--out", str(tmp_path / "b"), "--activation", "none"]) == 0
    lines = capsys.readouterr().out
    assert "norm post, activation none, " in " ".join(lines.split())
    older = save(sasrec_state(True), "2020.pth")
    assert main(["import", str(older), "--out", str(tmp_path / "c"), "--num-heads", "2"]) == 0
    assert "assumed activation relu" in " ".join(capsys.readouterr().out.split())
    assert main(["recommend", str(tmp_path / "run"), "--history", "4,9", "-k", "2", "--json"]) == 0


def test_import_with_data(save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [[1, 2, 3, 4], [2, 3, 4, 5], list(range(1, N + 1))]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    ids = Vocabulary.from_ids([f"i{n:02}" for n in range(N)])
    SequenceStore.from_arrays(offsets=offsets, items=np.concatenate(rows), item_ids=ids).save(tmp_path / "store")
    path = save(sasrec_state(True))
    out = str(tmp_path / "run")
    assert main(["import", str(path), "--out", out, "--data", str(tmp_path / "store")]) == 0
    assert main(["evaluate", out]) == 0
    assert "uniform-100" in capsys.readouterr().out
    assert main(["recommend", out, "--history", "i03", "-k", "1"]) == 0
