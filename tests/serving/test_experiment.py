"""Users are assigned by hash, what they see is logged, and the report finds what was planted and nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sqlalchemy import insert, select

from ensue.cli import main
from ensue.errors import ConfigError
from ensue.serving.events import EVENTS, EXPOSURES, EventLog
from ensue.serving.experiment import CONTROL, Experiment, experiment_of, parse_variants
from ensue.serving.report import Arm, contrast, mismatch, report, sentence, wilson

from .client import Client
from .conftest import on_both_databases, one

Serve = Callable[..., Client]
HALVES = {"test": 0.5, CONTROL: 0.5}


def test_variants_are_parsed() -> None:
    assert parse_variants(["test=runs/b:0.2", "c=D:/x:0"]) == {"test": ("runs/b", 0.2), "c": ("D:/x", 0.0)}
    assert experiment_of("e", parse_variants(["test=runs/b:0.2"])).shares == {"test": 0.2, CONTROL: 0.8}
    for wrong in (
        ["test"],
        ["test=b"],
        ["test=b:2"],
        ["=b:0.1"],
        ["a=b:nan"],
        ["a=b:0.1", "a=c:0.1"],
        ["control=b:0.1"],
    ):
        with pytest.raises(ConfigError, match="--variant"):
            parse_variants(wrong)
    with pytest.raises(ConfigError, match="sum"):
        parse_variants(["a=b:0.6", "c=d:0.6"])


def test_assignment_is_stable_fair_and_independent_between_experiments() -> None:
    users = [str(number) for number in range(4_000)]
    first, second = (Experiment(name, {"test": 0.2, CONTROL: 0.8}) for name in ("a", "b"))
    is_test = np.array([first.assign(user) == "test" for user in users])
    is_other = np.array([second.assign(user) == "test" for user in users])
    again = Experiment("a", {"test": 0.2, CONTROL: 0.8})
    assert is_test.tolist() == [again.assign(user) == "test" for user in users]
    assert stats.binomtest(int(is_test.sum()), len(users), 0.2).pvalue > 0.001
    both = [[int((is_test & is_other).sum()), int((is_test & ~is_other).sum())]]
    both += [[int((~is_test & is_other).sum()), int((~is_test & ~is_other).sum())]]
    assert stats.chi2_contingency(both).pvalue > 0.001
    assert Experiment("e", {"a": 0.0, CONTROL: 1.0}).assign("x") == CONTROL


@on_both_databases
def test_what_users_see_is_logged_with_its_probability(serve: Serve) -> None:
    experiment = Experiment("prices", {"markov": 0.5, CONTROL: 0.5})
    client = serve("sasrec", "markov", experiment=experiment)
    seen: dict[str, Any] = {}
    for number in range(12):
        user = f"user{number}"
        seen[user] = one(client.post("/recommend", {"user": user, "history": [1, 2], "k": 3})).json
        assert seen[user]["model"]["variant"] == experiment.assign(user)
    assert {answer["model"]["name"] for answer in seen.values()} == {"sasrec", "markov"}
    # Requests without a user, and those that name a model, take no part.
    one(client.post("/recommend", {"history": [1]}))
    one(client.post("/recommend", {"user": "other", "model": "markov"}))
    log = client.service.log
    assert log is not None
    with log.engine.connect() as connection:
        rows = [row._asdict() for row in connection.execute(select(EXPOSURES))]
    assert [row["user"] for row in rows] == list(seen)
    for row in rows:
        answer = seen[row["user"]]
        assert (row["experiment"], row["variant"], row["share"]) == ("prices", answer["model"]["variant"], 0.5)
        assert row["version"] == answer["model"]["version"]
        assert json.loads(row["items"]) == [str(each["item"]) for each in answer["items"]]
        assert json.loads(row["probabilities"]) == [1.0] * 3


def logged(log: EventLog, rates: dict[str, float], users: int, seed: int, lost: float = 0.0) -> None:
    """An experiment with these success rates; a share of the users of the test variant is lost."""
    rng = np.random.default_rng(seed)
    experiment = Experiment(f"e{seed}", HALVES)
    exposures, events = [], []
    for number in range(users):
        user = f"{seed}-{number}"
        variant = experiment.assign(user)
        if variant == "test" and rng.random() < lost:
            continue
        row = {
            "experiment": experiment.name,
            "user": user,
            "variant": variant,
            "share": 0.5,
            "version": "v",
            "time": 100,
        }
        exposures.append({**row, "items": '["1", "2"]', "scores": "[]", "probabilities": "[]"})
        did = rng.random() < rates[variant]
        # Everybody does something with an item that was not shown, before it was shown, or too late.
        for item, seconds in (("3", 150), ("1", 50), ("1", 100 + 8 * 86_400), *((("2", 150),) if did else ())):
            events.append({"key": f"{user} {item} {seconds}", "user": user, "item": item, "time": seconds, "kind": "x"})
    with log.engine.begin() as connection:
        connection.execute(insert(EXPOSURES), exposures)
        connection.execute(insert(EVENTS), events)


def test_the_report_finds_a_planted_effect_and_a_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = f"sqlite:///{tmp_path / 'events.db'}"
    log = EventLog(address)
    logged(log, {"test": 0.30, CONTROL: 0.15}, 1_500, seed=1)
    logged(log, {"test": 0.20, CONTROL: 0.20}, 600, seed=2)
    logged(log, {"test": 0.20, CONTROL: 0.20}, 1_000, seed=3, lost=0.4)
    effect, null, broken = (report(log, f"e{seed}", 7) for seed in (1, 2, 3))
    control, test = effect.arms
    assert (control.variant, test.variant) == (CONTROL, "test")
    assert control.users + test.users == 1_500
    assert abs(control.rate - 0.15) < 0.05
    assert abs(test.rate - 0.30) < 0.05
    assert effect.contrasts[0].low > 0.05
    assert effect.sentence.startswith("test is better than control (")
    assert "does not differ significantly" in null.sentence
    assert broken.sentence.startswith("Do not use this result")
    log.close()
    assert main(["ab", "report", "--events", address, "--experiment", "e1"]) == 0
    assert effect.sentence in capsys.readouterr().out.replace("\n", " ")
    assert main(["ab", "report", "--events", address, "--experiment", "none"]) == 1
    assert main(["ab", "report", "--events", f"sqlite:///{tmp_path / 'none.db'}"]) == 2


def test_null_experiments_are_found_different_in_5_of_100() -> None:
    rng = np.random.default_rng(0)
    wrong = covered = 0
    for _ in range(1_000):
        arms = []
        for name in (CONTROL, "test"):
            successes = int(rng.binomial(400, 0.2))
            arms.append(Arm(name, 0.5, 400, successes, *wilson(successes, 400)))
        result = contrast(arms[1], arms[0])
        wrong += result.p < 0.05
        covered += result.low <= 0 <= result.high
    assert stats.binomtest(wrong, 1_000, 0.05).pvalue > 0.01
    assert covered > 930


def test_intervals_and_tests_are_those_of_scipy() -> None:
    low, high = stats.binomtest(18, 90).proportion_ci(method="wilson")
    assert wilson(18, 90) == pytest.approx((low, high))
    assert wilson(0, 0) == (0.0, 1.0)
    arms = [Arm(CONTROL, 0.8, 800, 0, 0, 0), Arm("test", 0.2, 200, 0, 0, 0), Arm("off", 0.0, 0, 0, 0, 0)]
    assert mismatch(arms) == 1.0
    assert contrast(arms[1], arms[0]).p == 1.0
    assert "one variant only" in sentence(arms[:1], (), 1.0)
    # Newcombe (1998), table II, example (a): 56/70 and 48/80.
    first, second = (
        Arm(name, 0.5, users, hits, *wilson(hits, users)) for name, hits, users in (("a", 56, 70), ("b", 48, 80))
    )
    result = contrast(first, second)
    assert (result.low, result.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert math.isclose(result.difference, 0.2)
