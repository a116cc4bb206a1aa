"""INT, TERM and HUP end a training with a checkpoint, and the same command goes on in every bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ensue.data.split import Split
from ensue.datasets.simulate import ordered_sequences
from ensue.errors import LostRankError
from ensue.runs.checkpoint import load_checkpoint
from ensue.runs.config import RunConfig
from ensue.testing import EachStep
from ensue.train.interrupt import Interrupted, Signals
from ensue.train.loop import Trainer

Tiny = Callable[..., RunConfig]
SOURCE = str(Path(__file__).parents[2] / "src")
# A shell may have started the tests with SIGINT ignored, and a child inherits that.
DEFAULTS = (
    "import signal; [signal.signal(n, signal.SIG_DFL) for n in (1, 15)]; signal.signal(2, signal.default_int_handler)"
)
COMMAND = f"{DEFAULTS}; import sys; from ensue.cli import leave, main; leave(main(sys.argv[1:]))"
CLASSIC = f"{DEFAULTS}; import sys; from ensue.classic.run import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(autouse=True)
def _defaults() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_waits_for_what_must_be_whole() -> None:
    done = []

    def work(signals: Signals) -> None:
        with signals.whole():
            signal.raise_signal(signal.SIGTERM)
            done.append("inner")
        done.append("outer")

    with pytest.raises(Interrupted) as stop, Signals() as signals, signals.whole():
        work(signals)
    assert done == ["inner", "outer"]
    assert stop.value.status == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_only_the_first_signal_counts() -> None:
    with Signals() as signals:
        with pytest.raises(Interrupted) as stop:
            signal.raise_signal(signal.SIGHUP)
        with signals.whole():
            signal.raise_signal(signal.SIGINT)
    assert stop.value.status == 129


def test_handlers_of_the_program_are_left_alone() -> None:
    received: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Signals():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
    assert received == [signal.SIGTERM]


def signal_at(step: int) -> EachStep:
    """A watcher that sends a signal to its own process after a step."""
    return EachStep(lambda _, steps: signal.raise_signal(signal.SIGTERM) if steps == step else None)


def newest_step(folder: Path) -> tuple[int, int]:
    checkpoint = load_checkpoint(folder / "checkpoints")
    assert checkpoint is not None
    return checkpoint.state["progress"]["epoch"], checkpoint.state["progress"]["step"]


def end(trainer: Trainer) -> list[dict[str, Any]]:
    trainer.run()
    return [{k: v for k, v in record.items() if "seconds" not in k} for record in trainer.log.records]


def same_end(a: Trainer, b: Trainer) -> bool:
    stories, states = [end(trainer) for trainer in (a, b)], [trainer.model.state_dict() for trainer in (a, b)]
    return stories[0] == stories[1] and all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_signal_loses_no_step(tiny: Tiny, split: Split, tmp_path: Path) -> None:
    config = tiny(checkpoint_minutes=60, schedule="cosine")
    with pytest.raises(Interrupted):
        Trainer(config, split, tmp_path, [signal_at(5)]).run()
    assert newest_step(tmp_path) == (1, 2)
    assert same_end(Trainer(config, split, tmp_path), Trainer(config, split))


@pytest.mark.parametrize("place", ["evaluate", "learning_rate", "dense_gradients"])
def test_a_signal_anywhere_in_an_epoch_disturbs_nothing(
    tiny: Tiny, split: Split, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In validation, at the end of an epoch, and before an optimiser step."""
    config = tiny(checkpoint_minutes=60, schedule="cosine")
    import ensue.train.loop as loop

    real, calls = getattr(loop, place), iter(range(100))

    def signalled(*words: Any) -> Any:
        if next(calls) == 1:
            signal.raise_signal(signal.SIGTERM)
        return real(*words)

    with monkeypatch.context() as patched:
        patched.setattr(loop, place, signalled)
        with pytest.raises(Interrupted):
            Trainer(config, split, tmp_path).run()
    assert same_end(Trainer(config, split, tmp_path), Trainer(config, split))


def test_a_lost_rank_costs_no_step(tiny: Tiny, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ensue.train.loop as loop

    real, calls = loop.sum_gradients, iter(range(100))

    def lost(*words: Any) -> Any:
        if next(calls) == 4:
            raise LostRankError("rank 0 of 2 lost the connection to another rank")
        return real(*words)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "sum_gradients", lost)
        with pytest.raises(LostRankError):
            Trainer(tiny(checkpoint_minutes=60), split, tmp_path).run()
    assert newest_step(tmp_path) == (1, 1)


def started(code: str, words: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-c", code, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": SOURCE},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def interrupted_after(process: subprocess.Popen[str], line: str, number: int) -> tuple[int, str]:
    """The exit status and standard error of a command that gets a signal when it has printed a line."""
    assert process.stdout is not None
    assert any(text.startswith(line) for text in iter(process.stdout.readline, ""))
    process.send_signal(number)
    _, message = process.communicate(timeout=120)
    return process.returncode, message


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("name", ["INT", "TERM", "HUP"])
def test_commands_end_with_a_checkpoint_and_one_line(tmp_path: Path, name: str, devices: int) -> None:
    if devices == 2 and name == "HUP":
        pytest.skip("as TERM, and slow")
    ordered_sequences(num_users=40, num_items=15, length=8).save(tmp_path / "store")
    number = getattr(signal, f"SIG{name}")
    settings = ["--num-epochs", "3000", "--patience", "0", "--hidden-units", "8", "--maxlen", "6", "--device", "cpu"]
    words = ["train", "store", "--out", "run", *settings, "--model", "sasrec", "--loss", "bce"]
    process = started(COMMAND, [*words, "--devices", str(devices)], tmp_path)
    status, message = interrupted_after(process, "epoch 2/", number)
    assert (status, message.count("\n")) == (128 + number, 1), message
    assert message == "ensue: interrupted: the same command resumes from the last checkpoint\n"
    assert newest_step(tmp_path / "run") >= (2, 0)


def test_the_classic_program_ends_with_a_checkpoint_and_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    lines = [f"{user} {1 + (user + step) % 15}" for user in range(1, 31) for step in range(6)]
    (tmp_path / "data" / "plain.txt").write_text("\n".join(lines) + "\n")
    words = ["--dataset=plain", "--train_dir=x", "--device=cpu", "--maxlen=6", "--hidden_units=8", "--num_epochs=3000"]
    status, message = interrupted_after(started(CLASSIC, words, tmp_path), "epoch:2", signal.SIGTERM)
    assert (status, message) == (143, "main.py: interrupted: the same command resumes from the last checkpoint\n")
    assert newest_step(tmp_path / "plain_x") >= (2, 0)
