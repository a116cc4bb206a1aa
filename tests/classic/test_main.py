"""python/main.py end to end: its lines run as they stand, and its run folders are runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import cast

import pytest
import torch

from ensue.classic import main
from ensue.classic.run import ClassicTrainer, _read, device_of, patiently
from ensue.cli import main as ensue
from ensue.errors import DataError
from ensue.recommender import Recommender
from ensue.train.distributed import World
from ensue.train.loop import Trainer

from .conftest import HEADS, LINE, MAXLEN, SMALL, D, Save, lines_of, listed, sasrec_state, tisasrec_state

PROGRAM = Path(__file__).parents[2] / "python" / "main.py"


def test_the_program_trains_saves_and_evaluates(at: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, str(PROGRAM), *words]
        return subprocess.run(
            command, cwd=at, env=environment, capture_output=True, text=True, check=False, timeout=300
        )

    done = run("--dataset=plain", "--train_dir=default", "--device=cuda", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "warning: --device=cuda, but this machine has no CUDA GPU" in done.stderr
    printed = done.stdout.splitlines()
    assert printed[0].startswith("model: SASRec: time off, residual plain, norm post, maxlen 10")
    assert "older command line's" in printed[1]
    assert [bool(LINE.fullmatch(line)) for line in printed[3:5]] == [True, True]
    best = printed[5].split("test ")[1]
    again = run("--dataset=plain", "--train_dir=default", "--state_dict_path=plain_default", "--inference_only=true")
    assert again.stdout.splitlines()[-1] == f"test {best}", again.stderr
    assert Recommender.load(at / "plain_default").recommend([1, 2, 3], k=2).ids
    refused = run("--dataset=plain", "--train_dir=default", "--use_time")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "main.py: --use_time needs timestamps, but the data has none\n"


@pytest.mark.parametrize(
    ("dataset", "flags", "first"),
    [
        ("plain", ["--mhc_expansion_rate=2"], "SASRec: time off, residual mhc (2 streams"),
        ("plain", ["--no_time"], "SASRec: time off, residual mhc (4 streams"),
        ("plain", ["--no_time", "--no_mhc"], "SASRec: time off, residual plain, norm post"),
        ("timed", ["--use_time"], "TiSASRec: time on, residual mhc (4 streams"),
        ("timed", ["--no_mhc", "--time_span=9"], "TiSASRec: time on, residual plain, norm original"),
        ("timed", ["--use_amp", "--multi_gpu"], "TiSASRec: time on, residual mhc (4 streams"),
    ],
)
def test_every_system_trains(
    at: Path, dataset: str, flags: list[str], first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = lines_of(capsys, f"--dataset={dataset}", "--train_dir=x", "--device=cpu", *SMALL, *flags)
    assert printed[0].startswith(f"model: {first}")
    assert sum(bool(LINE.fullmatch(line)) for line in printed) == 2
    assert printed[-1] == f"Done; saved in {dataset}_x"
    assert (at / f"{dataset}_x" / "learning_curve.svg").is_file()
    # The run names its own store.
    assert ensue(["recommend", f"{dataset}_x", "--user", "1", "-k", "1"]) == 0


def test_the_best_state_is_that_of_validation(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = lines_of(
        capsys, "--dataset=plain", "--train_dir=x", "--device=cpu", *SMALL[:-2], "--num_epochs=12", "--lr=.1"
    )
    result = [re.match(r"epoch:(\d+), .*valid \(NDCG@10: ([\d.]+), .*", line) for line in printed]
    values = {int(match[1]): float(match[2]) for match in result if match}
    best = max(values, key=lambda epoch: (values[epoch], -epoch))
    assert len(values) == 12
    assert printed[-2].startswith(f"best by validation: epoch:{best}, valid (NDCG@10: {values[best]:.4f}")
    figures = next(line for line in printed if line.startswith(f"epoch:{best},")).split("valid ")[1]
    assert printed[-2].endswith(figures)


def test_a_finished_run_is_not_trained_again_and_another_is_refused(
    at: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["--dataset=plain", "--train_dir=x", "--device=cpu", *SMALL]
    first = lines_of(capsys, *line)
    # A program that ended before it wrote the run resumes from the last checkpoint.
    (at / "plain_x" / "manifest.json").unlink()
    (at / "plain_x" / "learning_curve.png").unlink()
    second = lines_of(capsys, *line)
    assert (at / "plain_x" / "learning_curve.png").is_file()
    assert "resuming from the checkpoint in plain_x" in second
    assert second[-2:] == first[-2:]
    shutil.rmtree(at / "plain_x" / "checkpoints")
    with monkeypatch.context() as patch:
        patch.setattr(ClassicTrainer, "run", lambda _: pytest.fail("trained again"))
        third = lines_of(capsys, *line)
    assert "already trained: plain_x" in third
    assert third[-2:] == first[-2:]
    assert main([*line, "--dropout_rate=0.5"]) == 1
    assert "model.dropout_rate: 0.5 now, 0.2 then" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("after", "words"), [(0, "starts from the beginning"), (1, "resumes from the last checkpoint")]
)
def test_ctrl_c_says_whether_there_is_a_checkpoint(
    at: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, after: int, words: str
) -> None:
    line = ["--dataset=plain", "--train_dir=x", "--device=cpu", *SMALL]
    epoch = Trainer._epoch

    def interrupt(self: Trainer) -> None:
        if self.progress.epoch == after:
            raise KeyboardInterrupt
        self.last_saved = -1e9
        epoch(self)

    monkeypatch.setattr(Trainer, "_epoch", interrupt)
    assert main(line) == 130
    assert capsys.readouterr().err == f"main.py: interrupted: the same command {words}\n"


def test_folders_of_others_are_not_written_to(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (at / "plain_x").mkdir()
    (at / "plain_x" / "config.toml").write_text("years of work")
    assert main(["--dataset=plain", "--train_dir=x", "--device=cpu", *SMALL]) == 1
    assert "ensue did not create config.toml" in capsys.readouterr().err
    assert [path.name for path in (at / "plain_x").iterdir()] == ["config.toml"]


def test_pth_files_are_evaluated(at: Path, save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(sasrec_state(True), f"SASRec.epoch=20.head=2.hidden={D}.maxlen={MAXLEN}.pth")
    line = ["--dataset=plain", "--train_dir=default", "--inference_only=true", "--device=cpu"]
    printed = lines_of(capsys, *line, f"--state_dict_path={path}", f"--maxlen={MAXLEN}")
    assert printed[0].startswith("model: SASRec: time off, residual plain, norm original")
    assert re.fullmatch(r"test \(NDCG@10: 0\.\d{4}, HR@10: 0\.\d{4}\)", printed[-2])
    assert printed[-1].startswith("note: the file does not list its modules, so activation relu is assumed")
    of_2020 = save(listed(sasrec_state(True), "none"), "2020.head=2.pth")
    printed = lines_of(capsys, *line, f"--state_dict_path={of_2020}")
    assert "activation none" in printed[0]
    assert printed[-1].startswith("test (")
    assert main([*line, f"--state_dict_path={path}", "--use_time"]) == 2
    assert "contradicts --state_dict_path, which is SASRec" in capsys.readouterr().err
    timed = save(listed(tisasrec_state(), "relu"), "TiSASRec.pth")
    line[0] = "--dataset=timed"
    printed = lines_of(capsys, *line, f"--state_dict_path={timed}", f"--num_heads={HEADS}")
    assert printed[0].startswith("model: TiSASRec: time on, residual plain, norm original")
    assert printed[-1].startswith("test (NDCG@10: ")
    assert main(["--dataset=plain", *line[1:], f"--state_dict_path={timed}"]) == 1
    assert "needs timestamps, but the data has none" in capsys.readouterr().err


def test_an_epoch_without_cases_is_reported_once(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (at / "data").unlink()
    (at / "data").mkdir()
    (at / "data" / "short.txt").write_text("".join(f"{user} {user % 7}\n{user} 8\n" for user in range(9)))
    printed = lines_of(capsys, "--dataset=short", "--train_dir=x", "--device=cpu", *SMALL)
    epochs = [line for line in printed if line.startswith("epoch:")]
    assert [line.split(",")[0] for line in epochs] == ["epoch:1", "epoch:2"]
    assert all("valid (no user has 3 events)" in line for line in epochs)


def test_epochs_between_evaluations_print_their_loss(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--dataset=plain", "--train_dir=x", "--device=cpu", "--maxlen=3", "--hidden_units=2", "--num_blocks=1"]
    printed = lines_of(capsys, *line, "--num_epochs=101")
    epochs = [line.split(", ") for line in printed if line.startswith("epoch:")]
    assert [first for first, *_ in epochs] == [f"epoch:{number}" for number in range(1, 102)]
    assert [parts[1].split(":")[0] for parts in epochs[:4]] == ["loss", "time", "loss", "time"]


def test_a_wrong_normalisation_is_noted(at: Path, save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    """A file trained with --norm_first and read without is told from its figures."""
    line = ["--dataset=plain", "--device=cpu"]
    start = save(sasrec_state(False), "SASRec.head=2.pth")
    trained = ["--train_dir=x", f"--state_dict_path={start}", "--norm_first", "--num_epochs=40", "--lr=0.01"]
    lines_of(capsys, *line, *trained)
    state = Recommender.load(at / "plain_x").run
    assert state is not None
    path = save(_as_pth(state.model.state_dict()), "SASRec.head=2.pth")
    printed = lines_of(capsys, *line, "--train_dir=x", f"--state_dict_path={path}", "--inference_only=true")
    assert "norm post" in printed[0]
    assert "with norm pre, and" in printed[-1]
    printed = lines_of(
        capsys, *line, "--train_dir=x", f"--state_dict_path={path}", "--inference_only=true", "--norm_first"
    )
    assert printed[-1].startswith("test (")


def _as_pth(ours: dict[str, object]) -> dict[str, object]:
    """Our tensors under the names and in the shapes of SASRec.pytorch."""
    words = {
        "items.weight": "item_emb.weight",
        "trunk.norm": "last_layernorm",
        "attention.qkv.weight": "in_proj_weight",
        "attention.qkv.bias": "in_proj_bias",
        "attention.out": "out_proj",
        "feed_forward.inner": "conv1",
        "feed_forward.outer": "conv2",
    }
    state: dict[str, object] = {}
    for name, tensor in ours.items():
        assert isinstance(tensor, torch.Tensor)
        if name == "positions.table":
            state["pos_emb.weight"] = torch.cat((torch.zeros(1, D), tensor.flip(0)))
            continue
        block = re.match(r"trunk\.blocks\.(\d+)\.(.*)", name)
        if block is None:
            key = name
        elif "_norm" in block[2]:
            kind = (
                block[2]
                .replace("feed_forward_norm", "forward_layernorms")
                .replace("attention_norm", "attention_layernorms")
            )
            key = re.sub(r"layernorms", f"layernorms.{block[1]}", kind)
        else:
            layer = "forward_layers" if block[2].startswith("feed") else "attention_layers"
            key = f"{layer}.{block[1]}.{block[2]}"
        for old, new in words.items():
            key = key.replace(old, new)
        state[key] = tensor[..., None] if "conv" in key and key.endswith("weight") else tensor
    return state


def test_errors_are_one_line(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dataset=nothing", "--train_dir=x"]) == 1
    assert capsys.readouterr().err.startswith(
        "main.py: no file data/nothing.txt, and no public dataset of this name: unknown"
    )
    assert main(["--dataset=plain", "--train_dir=x", "--inference_only=true"]) == 2
    assert "--inference_only needs --state_dict_path" in capsys.readouterr().err
    assert main(["--dataset=plain", "--train_dir=x", "--state_dict_path=none.pth"]) == 1
    assert "none.pth: no such file" in capsys.readouterr().err
    assert not (at / "plain_x").exists()


@pytest.mark.parametrize("epochs", [0, -3])
def test_no_epoch_is_refused_before_anything_is_written(
    at: Path, capsys: pytest.CaptureFixture[str], epochs: int
) -> None:
    assert main(["--dataset=plain", "--train_dir=x", "--device=cpu", f"--num_epochs={epochs}"]) == 2
    assert capsys.readouterr().err == f"main.py: --num_epochs must be 1 or more (got {epochs})\n"
    assert not (at / "plain_x").exists()


def test_memory_that_runs_out_is_one_line(
    at: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["--dataset=plain", "--train_dir=x", "--device=cpu", *SMALL]
    monkeypatch.setattr("ensue.models.size.memory", lambda: 1 << 34)
    assert main([*line, "--maxlen=1000000000"]) == 2
    assert "lower maxlen (got 1000000000)" in capsys.readouterr().err

    def fail(self: Trainer) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes.")

    monkeypatch.setattr(Trainer, "_epoch", fail)
    assert main(line) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("main.py: memory ran out (64 bytes more were requested): lower --batch_size, ")
    assert printed.count("\n") == 1


class Ranks:
    """A world of two ranks, of which the other one is always done; it is asked `pulses` times before the work ends."""

    size, rank, is_main = 2, 0, True

    def __init__(self, pulses: int) -> None:
        self.left, self.enough = pulses, Event()

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.left == 0:
            self.enough.set()
        return tensor + 1

    def on_main(self, work: Callable[[], object]) -> object:
        return work()


def test_ranks_hear_from_each_other_while_one_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ensue.classic.run.PULSE", 0.001)
    ranks = Ranks(pulses=3)
    assert patiently(cast(World, ranks), lambda: ranks.enough.wait(60)) is True
    assert ranks.left < 0

    def fail() -> None:
        raise DataError("no such file")

    with pytest.raises(DataError, match="no such file"):
        patiently(cast(World, Ranks(1)), fail)


def test_data_is_read_once_by_each_rank_and_first_by_rank_0(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr("ensue.classic.run.read_data", lambda name: read.append(name) or ("store", "what"))
    for is_main in (True, False):
        ranks = Ranks(pulses=1)
        ranks.is_main = is_main
        assert _read(cast(World, ranks), "steam") == ("store", "what")
    assert read == ["steam", "steam"]


def test_a_gpu_is_used_only_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from ensue.classic.arguments import parse

    base = ["--dataset=plain", "--train_dir=x"]
    for present, flags, expected in (
        (False, [], "cpu"),
        (False, ["--device=cuda:1"], "cpu"),
        (False, ["--device=mps"], "mps"),
        (True, [], "cuda"),
        (True, ["--device=cpu"], "cpu"),
    ):
        monkeypatch.setattr("torch.cuda.is_available", lambda present=present: present)
        assert device_of(parse([*base, *flags])) == expected


def test_two_ranks_print_and_write_once(at: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(PROGRAM)]
    words = ["--dataset=timed", "--train_dir=dist", "--device=cpu", "--multi_gpu", "--no_mhc", *SMALL]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *words], cwd=at, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert printed[0].startswith("model: TiSASRec")
    assert [line.split(",")[0] for line in printed if LINE.fullmatch(line)] == ["epoch:1", "epoch:2"]
    assert printed[-1] == "Done; saved in timed_dist"
    assert Recommender.load(at / "timed_dist").run is not None
