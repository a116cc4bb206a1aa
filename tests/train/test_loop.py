"""The training loop: what a step does, when it stops, and what it never looks at."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ensue.train.loop as loop
from ensue.data.split import Cases, Split
from ensue.errors import ConfigError, TrainingError
from ensue.evaluation.standings import Standings
from ensue.nn.embedding import dense_gradients
from ensue.objectives.losses import LOSSES, SampledLoss
from ensue.runs.checkpoint import load_checkpoint, optimizer_tensors, restore_optimizer
from ensue.runs.config import OPTIMIZERS, RunConfig, TrainConfig, differences
from ensue.runs.log import RunLog, read_log
from ensue.runtime.devices import choose_device
from ensue.testing import EachStep
from ensue.train.loop import Trainer
from ensue.train.optim import Lion, learning_rate, make_optimizer
from ensue.train.progress import Progress

Tiny = Callable[..., RunConfig]


class Threads:
    """Notes how many threads there are at every step."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def start(self, *_: object) -> None: ...

    def step(self, epoch: int, step: int, loss: float) -> None:
        self.seen.add(torch.get_num_threads())

    def record(self, record: dict[str, Any]) -> None: ...

    def finish(self) -> None: ...


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def test_the_seed_decides_everything(tiny: Tiny, split: Split) -> None:
    first = weights(Trainer(tiny(), split).run().model)
    torch.manual_seed(77)  # what was drawn before does not matter
    assert equal(first, weights(Trainer(tiny(), split).run().model))
    assert not equal(first, weights(Trainer(tiny(seed=1), split).run().model))


def test_a_step_is_adam_on_the_mean_over_positions(tiny: Tiny, split: Split) -> None:
    """One epoch of one step, without dropout, against the same step by hand."""
    config = tiny(
        num_epochs=1, batch_size=24, l2_emb=0.1, objective={"loss": "ce"}, model={"dropout_rate": 0.0}, patience=0
    )
    trainer = Trainer(config, split)
    model = Trainer(config, split).model.train()
    ((_, _, batch),) = list(trainer.loader.epoch(0))
    logits = model.encode(batch) @ model.item_vectors().T
    loss = nn.functional.cross_entropy(logits, batch.target_Q - 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, betas=(0.9, 0.98))
    (loss + 0.1 * model.item_vectors().square().sum()).backward()
    dense_gradients(model.parameters())
    optimizer.step()
    trainer.run()
    expected = model.state_dict()
    for name, value in trainer.model.state_dict().items():
        if name.endswith("qkv.bias"):  # the keys' bias has no effect, so its gradient is rounding noise
            value[8:16], expected[name][8:16] = 0.0, 0.0
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5)
    assert trainer.log.records[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize("parts", [2, 3, 8])
@pytest.mark.parametrize(
    "objective",
    [
        {"loss": "ce"},
        {"loss": "bce", "negatives": "in-batch", "num_negatives": 3},
        {"loss": "sampled-softmax", "num_negatives": 5, "share_negatives": True},
    ],
)
def test_a_batch_in_parts_trains_as_a_whole_one(
    tiny: Tiny, split: Split, objective: dict[str, Any], parts: int
) -> None:
    def trained(batch_parts: int) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        config = tiny(objective, {"dropout_rate": 0.0}, batch_parts=batch_parts, l2_emb=0.1, optimizer="adamw", lr=1e-3)
        trainer = Trainer(config, split)
        trainer.run()
        return weights(trainer.model), trainer.log.records

    (whole, log), (in_parts, log_in_parts) = trained(1), trained(parts)
    for name, value in in_parts.items():
        if name.endswith("qkv.bias"):  # the keys' bias has no effect, so its gradient is rounding noise
            value[8:16], whole[name][8:16] = 0.0, 0.0
        torch.testing.assert_close(value, whole[name], rtol=1e-3, atol=1e-5)
    assert [r["loss"] for r in log_in_parts] == pytest.approx([r["loss"] for r in log], rel=1e-5)


def test_the_gradient_norm_is_clipped(tiny: Tiny, split: Split) -> None:
    def norm(clip_norm: float) -> float:
        trainer = Trainer(tiny(num_epochs=1, batch_size=24, clip_norm=clip_norm), split)
        trainer.run()
        return float(nn.utils.get_total_norm([p.grad for p in trainer.model.parameters()]))

    assert norm(0) > 0.1
    assert norm(0.1) == pytest.approx(0.1, rel=1e-3)
    assert norm(100) == norm(0)


def test_trainings_in_threads_do_not_disturb_each_other_or_the_caller(tiny: Tiny, split: Split) -> None:
    alone, together = ([Trainer(tiny(seed=seed, num_epochs=4), split) for seed in (0, 1)] for _ in range(2))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    for trainer in alone:
        trainer.run()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(Trainer.run, together))
    assert torch.equal(torch.rand(3), expected)
    assert all(equal(weights(a.model), weights(b.model)) for a, b in zip(alone, together, strict=True))


def test_the_number_of_threads_is_the_callers_again(tiny: Tiny, split: Split) -> None:
    before, threads = torch.get_num_threads(), Threads()
    Trainer(tiny(threads=before + 1, num_epochs=1), split, None, [threads]).run()
    assert threads.seen == {before + 1}
    assert torch.get_num_threads() == before


def test_a_resumed_run_takes_the_threads_it_had(
    tiny: Tiny, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Trainer(tiny(num_epochs=1), split, tmp_path).run()
    stored = load_checkpoint(tmp_path / "checkpoints")
    assert stored is not None
    assert stored.state["threads"] == torch.get_num_threads()
    stored.state["progress"]["finished"] = False
    stored.state["threads"] = 3
    stored.state["config"]["train"]["num_epochs"] = 2
    monkeypatch.setattr(loop, "load_checkpoint", lambda _: stored)
    for cores, expected in ((4, 3), (2, torch.get_num_threads())):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        threads = Threads()
        Trainer(tiny(num_epochs=2), split, tmp_path, [threads]).run()
        assert threads.seen == {expected}


# ---- early stopping ----


class Poison:
    """A test part that may not be looked at."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"training looked at the test part: {name}")

    def __len__(self) -> int:
        raise AssertionError("training looked at the test part")


def validation_gives(monkeypatch: pytest.MonkeyPatch, values: list[int]) -> list[Cases]:
    """Make validation say these numbers of better items, one after another; returns the cases it was asked for."""
    asked: list[Cases] = []
    left = iter(values)

    def evaluate(model: Any, cases: Cases, *_: Any) -> Standings:
        asked.append(cases)
        better, zeros = np.full(len(cases), next(left)), np.zeros(len(cases), dtype=np.int64)
        return Standings(cases.users_B, cases.target_items_B, better, zeros, zeros + 15, zeros > 0)

    monkeypatch.setattr(loop, "evaluate", evaluate)
    return asked


def test_patience_stops_and_the_best_state_is_kept(
    monkeypatch: pytest.MonkeyPatch, tiny: Tiny, split: Split, tmp_path: Path
) -> None:
    asked = validation_gives(monkeypatch, [5, 2, 2, 3, 1])
    result = Trainer(tiny(num_epochs=9, patience=2), replace(split, test=Poison()), tmp_path).run()
    assert result.progress.stopped_by == "patience"
    assert (result.progress.epoch, result.progress.best_epoch) == (4, 2)
    assert result.progress.best == pytest.approx(1 / 2)  # ndcg of place 3
    assert all(cases is split.validation for cases in asked)
    validation_gives(monkeypatch, [5, 2])
    assert equal(weights(result.model), weights(Trainer(tiny(num_epochs=2), split).run().model))
    assert not result.model.training
    checkpoint = load_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    assert equal(checkpoint.part("best"), weights(result.model))
    assert not equal(checkpoint.part("model"), weights(result.model))


def test_without_patience_all_epochs_run(monkeypatch: pytest.MonkeyPatch, tiny: Tiny, split: Split) -> None:
    asked = validation_gives(monkeypatch, [1, 2, 3, 4, 5, 6])
    result = Trainer(tiny(num_epochs=5, patience=0, eval_epochs=2), split).run()
    assert (result.progress.stopped_by, result.progress.epoch, result.progress.best_epoch) == ("num_epochs", 5, 2)
    assert len(asked) == 3  # after epochs 2, 4 and the last


def test_training_ends_before_an_epoch_that_would_end_too_late(tiny: Tiny, split: Split, tmp_path: Path) -> None:
    config = tiny(num_epochs=3, eval_epochs=3, max_minutes=1e-9)
    result = Trainer(config, split, tmp_path).run()
    assert (result.progress.stopped_by, result.progress.epoch, result.progress.best_epoch) == ("max_minutes", 1, 1)
    longer = config.replace(train=config.train.replace(max_minutes=0))
    result = Trainer(longer, split, tmp_path).run()
    assert (result.progress.stopped_by, result.progress.epoch) == ("num_epochs", 3)


def test_an_epoch_that_is_slower_than_those_before_is_cut(tiny: Tiny, split: Split, tmp_path: Path) -> None:
    config = tiny(num_epochs=4, eval_epochs=4, max_minutes=10)
    trainer = Trainer(config, split, tmp_path)
    steps = trainer.loader.steps

    def slow(_: int, count: int) -> None:
        if count == steps + 1:
            trainer.progress.seconds = 601.0

    trainer.watch(EachStep(slow))
    result = trainer.run()
    assert (result.progress.stopped_by, result.progress.epoch, result.progress.best_epoch) == ("max_minutes", 2, 2)
    assert [record.get("steps") for record in result.progress.records] == [None, 1]
    longer = config.replace(train=config.train.replace(max_minutes=0))
    result = Trainer(longer, split, tmp_path).run()
    assert (result.progress.stopped_by, result.progress.epoch) == ("num_epochs", 4)


@pytest.mark.parametrize(("minutes", "is_late"), [(None, False), (0, False), (1.39, True), (1.41, False)])
def test_the_time_left_is_that_of_an_epoch_and_its_evaluation(minutes: float | None, is_late: bool) -> None:
    progress = Progress(records=[{"seconds": 30.0}, {"seconds": 20.0, "validation seconds": 2.0}])
    # 52 s so far, and then: this epoch, its evaluation, another epoch, its evaluation.
    assert progress.is_out_of_time(TrainConfig(max_minutes=minutes), {"seconds": 14.0}) is is_late


def test_validation_on_some_users_is_one_draw(monkeypatch: pytest.MonkeyPatch, tiny: Tiny, split: Split) -> None:
    asked = validation_gives(monkeypatch, [1, 2, 3])
    Trainer(tiny(validation_users=7), split).run()
    assert [len(cases) for cases in asked] == [7, 7, 7]
    assert (asked[0].target_B == asked[2].target_B).all()
    assert np.isin(asked[0].target_B, split.validation.target_B).all()


def test_without_validation_cases_the_last_state_is_the_result(tiny: Tiny, split: Split) -> None:
    none = Cases(split.train.store, *(np.array([], dtype=np.int64) for _ in range(4)))
    result = Trainer(tiny(), replace(split, validation=none, test=Poison())).run()
    assert result.progress.best is None
    assert result.progress.epoch == 3


# ---- what is not finite ----


def poison_loss(trainer: Trainer, calls: int, poison: Callable[[Tensor], Tensor]) -> None:
    """From the given call on, the loss is poisoned."""
    assert isinstance(trainer.objective.loss, SampledLoss)
    loss, count = trainer.objective.loss.function, iter(range(10**6))

    def poisoned(pos_Q: Tensor, neg_QK: Tensor) -> Tensor:
        return poison(loss(pos_Q, neg_QK)) if next(count) >= calls else loss(pos_Q, neg_QK)

    trainer.objective.loss = SampledLoss(poisoned)


@pytest.mark.parametrize(
    ("poison", "what"),
    [
        (lambda loss: loss * float("nan"), "loss is nan"),
        (lambda loss: loss + float("inf"), "loss is inf"),
        (lambda loss: loss + (loss - loss).sqrt(), "gradient norm is nan"),
    ],
)
def test_a_loss_that_is_not_finite_stops_with_a_good_checkpoint(
    tiny: Tiny, split: Split, tmp_path: Path, poison: Callable[[Tensor], Tensor], what: str
) -> None:
    config = tiny(checkpoint_minutes=60)
    trainer = Trainer(config, split, tmp_path)
    poison_loss(trainer, 4, poison)
    with pytest.raises(TrainingError, match=rf"{what} at epoch 2, step 2; .*smaller lr \(now 0.01\)"):
        trainer.run()
    checkpoint = load_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    assert (checkpoint.state["progress"]["epoch"], checkpoint.state["progress"]["step"]) == (1, 1)
    assert all(bool(value.isfinite().all()) for value in checkpoint.tensors.values())
    # Nothing of the bad step is in it: without the poison the run ends as if it had never been.
    resumed = Trainer(config, split, tmp_path).run()
    assert equal(weights(resumed.model), weights(Trainer(config, split).run().model))


# ---- precision ----


@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "likelihood"])
def test_bf16_is_finite_and_learns(tiny: Tiny, split: Split, loss: str) -> None:
    objective = {"loss": loss, "num_negatives": 3}
    trainer = Trainer(tiny(amp="bf16", objective=objective, num_epochs=4, model={"dropout_rate": 0.1}), split)
    result = trainer.run()
    assert all(bool(value.isfinite().all()) for value in result.model.state_dict().values())
    assert all(value.dtype == torch.float32 for value in result.model.state_dict().values())
    curve = [record["loss"] for record in trainer.log.records]
    assert curve[-1] < curve[0]


def test_bf16_is_near_float32(tiny: Tiny, split: Split) -> None:
    def first_loss(amp: str) -> float:
        trainer = Trainer(tiny(amp=amp, num_epochs=1, model={"dropout_rate": 0.0}), split)
        trainer.run()
        return float(trainer.log.records[0]["loss"])

    assert first_loss("bf16") == pytest.approx(first_loss("off"), rel=0.02)
    assert first_loss("bf16") != first_loss("off")


# ---- learning rate, optimiser, device ----


def test_schedules() -> None:
    constant = TrainConfig(lr=0.1, num_epochs=4)
    assert [learning_rate(constant, step, 5) for step in (0, 7, 19)] == [0.1] * 3
    warm = constant.replace(warmup_steps=4)
    assert [learning_rate(warm, step, 5) for step in range(5)] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    steps = constant.replace(schedule="step", step_epochs=2, step_gamma=0.1)
    assert [learning_rate(steps, step, 5) for step in (0, 9, 10, 19, 20)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001]
    )
    cosine = constant.replace(schedule="cosine", warmup_steps=4)
    curve = [learning_rate(cosine, step, 5) for step in range(25)]
    assert curve[4] == pytest.approx(0.1)
    assert curve[12] == pytest.approx(0.05)
    assert curve[20] == pytest.approx(0.0)
    assert curve[24] == pytest.approx(0.0)  # and never rises again
    assert all(a > b for a, b in pairwise(curve[4:21]))


def test_schedules_of_torch() -> None:
    """The rates of torch's schedulers, stepped once a step, or once an evaluation."""
    weight = nn.Parameter(torch.zeros(1))
    config = TrainConfig(lr=0.1, num_epochs=4, step_epochs=2, step_gamma=0.1)

    def rates(make: Callable[[torch.optim.Optimizer], Any]) -> list[float]:
        optimizer = torch.optim.SGD([weight], lr=0.1)
        scheduler, result = make(optimizer), []
        for _ in range(20):
            result.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return result

    cycle = rates(lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=20, cycle_momentum=False))
    assert [learning_rate(config.replace(schedule="one-cycle"), step, 5) for step in range(20)] == pytest.approx(cycle)
    decay = rates(lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.1 ** (1 / 10)))
    assert [learning_rate(config.replace(schedule="exponential"), step, 5) for step in range(20)] == pytest.approx(
        decay
    )
    # torch reduces after more than `patience` bad evaluations, and then counts anew.
    optimizer, progress = torch.optim.SGD([weight], lr=0.1), Progress()
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", 0.1, patience=1, threshold=0)
    for epoch, value in enumerate((0.1, 0.2, 0.2, 0.1, 0.0, 0.1, 0.3, 0.1, 0.2)):
        plateau.step(value)
        progress.judge(value, epoch, 2)
        rate = learning_rate(config.replace(schedule="plateau"), epoch, 1, progress.reductions)
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"])
    assert progress.reductions == 3


def test_the_rate_falls_on_a_plateau(tiny: Tiny, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Progress, "judge", lambda self, *_: setattr(self, "reductions", self.reductions + 1) or False)
    trainer = Trainer(tiny(schedule="plateau", step_gamma=0.1), split)
    trainer.run()
    assert [record["lr"] for record in trainer.log.records] == pytest.approx([0.01, 0.001, 0.0001])


def table(model: nn.Module) -> Tensor:
    """The largest table of a model."""
    return max(model.parameters(), key=lambda parameter: parameter.numel()).detach().clone()


def test_an_ema_of_the_weights_is_kept(tiny: Tiny, split: Split) -> None:
    config, steps = tiny(average="ema", average_decay=0.5, eval_epochs=3), []
    trainer = Trainer(config, split)
    trainer.watch(EachStep(lambda *_: steps.append(table(trainer.model))))
    kept = table(trainer.run().model)
    average = steps[0]
    for count, newer in enumerate(steps[1:], 1):
        average = average.lerp(newer, 1 - min(0.5, (1 + count) / (10 + count)))
    torch.testing.assert_close(kept, average)
    assert not torch.equal(kept, steps[-1])


def test_swa_keeps_the_mean_of_the_last_epochs(tiny: Tiny, split: Split) -> None:
    config, epochs = tiny(average="swa", average_start=0.34, eval_epochs=3), {}
    trainer = Trainer(config, split)
    trainer.watch(EachStep(lambda epoch, _: epochs.update({epoch: table(trainer.model)})))
    torch.testing.assert_close(table(trainer.run().model), (epochs[1] + epochs[2]) / 2)


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_the_average_is_kept_without_validation(tiny: Tiny, split: Split, average: str) -> None:
    config = tiny(average=average, average_start=0.0)
    trainer = Trainer(config, replace(split, validation=split.validation.take(np.arange(0))))
    kept = trainer.run().model
    assert all(torch.equal(value, trainer.average.values[name]) for name, value in kept.named_parameters())


def test_the_rate_in_the_log_is_the_last_steps(tiny: Tiny, split: Split) -> None:
    config = tiny(schedule="cosine", warmup_steps=2)
    trainer = Trainer(config, split)
    trainer.run()
    expected = [learning_rate(config.train, 3 * epoch + 2, 3) for epoch in range(3)]
    assert [record["lr"] for record in trainer.log.records] == expected


def test_optimisers() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    config = TrainConfig(lr=0.3, beta1=0.5, beta2=0.7, weight_decay=0.2)
    adam = make_optimizer(model, config)
    assert type(adam) is torch.optim.Adam
    assert type(make_optimizer(model, config.replace(optimizer="adamw"))) is torch.optim.AdamW
    (group,) = adam.param_groups
    assert [group[key] for key in ("lr", "betas", "weight_decay")] == [0.3, (0.5, 0.7), 0.2]
    assert group["params"] == [model.weight]


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_every_optimiser_reduces_a_loss_and_resumes(name: str) -> None:
    torch.manual_seed(0)
    x, target = torch.randn(32, 4), torch.randn(32, 2)
    config = TrainConfig(optimizer=name, lr=0.01, weight_decay=0.01)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
        optimizer.zero_grad()
        loss = (model(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    model = nn.Linear(4, 2)
    optimizer = make_optimizer(model, config)
    values = [step(model, optimizer) for _ in range(20)]
    assert values[-1] < values[0]
    other = nn.Linear(4, 2)
    other.load_state_dict(model.state_dict())
    resumed = make_optimizer(other, config)
    tensors = {
        key.removeprefix("optimizer."): value.clone() for key, value in optimizer_tensors(optimizer, model).items()
    }
    restore_optimizer(resumed, other, tensors)
    for _ in range(3):
        step(model, optimizer)
        step(other, resumed)
    assert torch.equal(model.weight, other.weight)


def test_lion_moves_by_the_sign() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    optimizer = Lion([weight], lr=0.1, betas=(0.9, 0.5), weight_decay=0.5)
    weight.grad = torch.tensor([2.0, -1.0, 0.0])
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.tensor([0.95 - 0.1, -1.9 + 0.1, 2.85]))
    # The memory is now half of the gradient: it outweighs a small gradient of the other sign.
    weight.grad = torch.tensor([-1.0, 9.1, 0.0])
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.tensor([0.85 * 0.95 - 0.1, -1.8 * 0.95 - 0.1, 2.85 * 0.95]))


def test_foreign_optimiser_state_is_refused() -> None:
    model = nn.Linear(2, 2)
    optimizer = make_optimizer(model, TrainConfig())
    for key, value in (("other.exp_avg", torch.zeros(2, 2)), ("weight.exp_avg", torch.zeros(3))):
        with pytest.raises(TrainingError, match="fits no parameter"):
            restore_optimizer(optimizer, model, {key: value})


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ConfigError, match="unknown device 'gpu'"):
        choose_device("gpu")
    with pytest.raises(ConfigError, match="this machine has"):
        choose_device("cuda:99")


# ---- log, watchers, settings ----


class Notes:
    """A watcher that writes everything down."""

    def __init__(self) -> None:
        self.notes: list[Any] = []

    def start(self, *at: Any) -> None:
        *where, records = at
        self.notes.append(("start", *where, len(records)))

    def step(self, epoch: int, step: int, loss: float) -> None:
        assert loss > 0
        self.notes.append((epoch, step))

    def record(self, record: dict[str, Any]) -> None:
        self.notes.append(record["epoch"])

    def finish(self) -> None:
        self.notes.append("finish")


def test_watchers_and_log_tell_the_same_story(tiny: Tiny, split: Split, tmp_path: Path) -> None:
    notes = Notes()
    trainer = Trainer(tiny(num_epochs=2), split, tmp_path, [notes])
    trainer.run()
    first, second = [(0, 0), (0, 1), (0, 2), 1], [(1, 0), (1, 1), (1, 2), 2]
    assert notes.notes == [("start", 3, 2, 0, 0, 0), *first, *second, "finish"]
    records = read_log(tmp_path / "log.jsonl")
    assert records == trainer.log.records
    assert [record["epoch"] for record in records] == [1, 2]
    assert all("validation ndcg@10" in record for record in records)


def test_watchers_are_notified_of_a_failure_too(tiny: Tiny, split: Split) -> None:
    notes = Notes()
    trainer = Trainer(tiny(), split, None, [notes])
    poison_loss(trainer, 0, lambda loss: loss * float("nan"))
    with pytest.raises(TrainingError, match=r"epoch 1, step 1\. Try"):
        trainer.run()
    assert notes.notes[-1] == "finish"


def test_the_log_is_cut_back_to_what_is_known(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = RunLog(path, [])
    for epoch in (1, 2, 3):
        log.add({"epoch": epoch})
    with path.open("ab") as handle:
        handle.write(b'{"epoch": 4, "lo')
    assert read_log(path) == [{"epoch": 1}, {"epoch": 2}, {"epoch": 3}]
    RunLog(path, [{"epoch": 1}]).add({"epoch": 2, "again": True})
    assert read_log(path) == [{"epoch": 1}, {"epoch": 2, "again": True}]
    assert read_log(tmp_path / "none.jsonl") == []
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.add({"loss": float("nan")})


def test_differences_are_named() -> None:
    a = {"train": {"lr": 1, "seed": 2}, "model": {"name": "x"}, "new": 1}
    b = {"train": {"lr": 1, "seed": 3}, "model": {"name": "y", "width": 4}}
    assert differences(a, b) == [
        "model.name: 'x' now, 'y' then",
        "new: 1 now, None then",
        "train.seed: 2 now, 3 then",
    ]
    assert differences(a, a) == []
    assert differences({"model": {"name": "y"}}, {"model": b["model"]}) == ["model.width: None now, 4 then"]


def test_a_stride_beyond_maxlen_is_refused() -> None:
    with pytest.raises(ConfigError, match="stride 9 must not exceed maxlen 6"):
        RunConfig.parse({"model": {"name": "sasrec", "maxlen": 6}, "train": {"stride": 9}})
