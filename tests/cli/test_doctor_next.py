"""What `ensue data check` proposes for a store: a training that works, or nothing."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from .conftest import SMALL, Run


@pytest.mark.parametrize(("events", "trains"), [(1, False), (3, False), (4, True)])
def test_a_training_is_proposed_only_where_there_is_something_to_train_on(
    ensue: Run, tmp_path: Path, events: int, trains: bool
) -> None:
    rows = "".join(f"a,{item},{1_600_000_000 + item}\n" for item in range(events))
    log, store = tmp_path / "log.csv", tmp_path / "store"
    log.write_text("user,item,time\n" + rows)
    # From a log the next step is a store, which works.
    next_step = ensue("data", "check", log).out.splitlines()[-1]
    assert next_step.startswith("next: ensue prepare ")
    assert ensue("prepare", log, "--out", store).status == 0
    done = ensue("data", "check", store)
    assert done.status == 0
    assert ("next: " in done.out) == trains
    assert ("No sequential model can be trained" in " ".join(done.out.split())) != trains
    words = ("train", store, "--model", "sasrec", "--out", tmp_path / "run")
    if trains:
        words = (*shlex.split(done.out.splitlines()[-1])[2:-1], tmp_path / "run")
    assert (ensue(*words, *SMALL).status == 0) == trains


def test_a_log_with_kinds_of_events_is_proposed_with_one_of_them(ensue: Run, tmp_path: Path) -> None:
    log = tmp_path / "events.csv"
    kinds = enumerate(("view", "buy"))
    rows = [f"{9 * item + at},u{user},{kind},{item}" for at, kind in kinds for user in range(3) for item in range(6)]
    log.write_text("timestamp,visitorid,event,itemid\n" + "\n".join([*rows, "999,u0,view,7"]) + "\n")
    report = ensue("data", "check", log)
    lines = report.out.splitlines()
    assert lines[-1].endswith("events.csv --where 'event == \"view\"' --out data/events")
    (other,) = (line for line in lines if line.startswith('only "buy": '))
    found = ensue(*shlex.split(other.partition(": ")[2])[1:-1], tmp_path / "buys", "--json").json
    assert (found["interactions"], found["dropped"]) == (18, {'not event == "buy"': 19})
    kept = next(line for line in lines if line.startswith("all kinds, kept as a feature: "))
    assert "--features event" in kept
    # Of a log whose rows are chosen already, nothing more is proposed.
    assert ensue("data", "check", log, "--where", "event == 'buy'").out.count("--where") == 1


def test_kinds_of_events_are_seen_in_columns_without_names(ensue: Run, tmp_path: Path) -> None:
    log = tmp_path / "UserBehavior.csv"
    log.write_text("".join(f"1,{item},3,{'buy' if item == 2 else 'pv'},{1511544000 + item}\n" for item in range(5)))
    out = ensue("data", "check", log).out
    assert "--where '`4` == \"pv\"'" in out.splitlines()[-1]
    assert "--features 4 --out" in next(line for line in out.splitlines() if line.startswith("all kinds, kept as a"))


def test_low_ratings_and_rare_users_are_offered_beside_the_next_command(ensue: Run, tmp_path: Path) -> None:
    log, store = tmp_path / "log.csv", tmp_path / "store"
    rows = [f"{user},{item},{1 + (user + item) % 5},{item}" for user in range(6) for item in range(6)]
    log.write_text("user,item,rating,time\n" + "\n".join([*rows, "9,1,5,1", "8,1,5,1"]) + "\n")
    lines = ensue("data", "check", log).out.splitlines()
    assert "--min-rating 3" in next(line for line in lines if line.startswith("without low ratings: "))
    rare = next(line for line in lines if line.startswith("without rare users and items: "))
    assert ensue(*shlex.split(rare.partition(": ")[2])[1:-1], store).status == 0
    assert lines[-1].startswith("next: ensue prepare ")
    assert "recipe for this data: sasrec-" in ensue("data", "check", store).out


def test_validation_targets_that_are_never_trained_are_counted(ensue: Run, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    rows = [f"{user},{item},{item}" for user in range(4) for item in range(1, 6)]
    log.write_text("user,item,time\n" + "\n".join([*rows, "0,new,9", "1,other,9"]) + "\n")
    findings = {each["name"]: each["text"] for each in ensue("data", "check", log, "--json").json["findings"]}
    assert "100.0% of 4 test targets and 50.0% of 4 validation targets" in findings["cold-items"]
