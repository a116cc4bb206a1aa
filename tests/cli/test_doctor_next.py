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
