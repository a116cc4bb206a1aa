"""A forked process is told to be started by spawn; a fork of a process that did no work yet works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# The work is light enough that it would end, and not hang, without the guard: one thread, and no pool is used twice.
CODE = """
import os, sys
import ensue
from ensue.datasets.simulate import ordered_sequences
from ensue.errors import EnsueError
from ensue.runtime.forks import check_process

before = sys.argv[1] == "before"
model = ensue.Recommender("popularity").fit(ordered_sequences(10, 20)) if before else None
calls = {
    "recommend": lambda: model.recommend([1]),
    "recommend_all": lambda: model.recommend_all(ordered_sequences(10, 20)),
    "evaluate": lambda: model.evaluate(ordered_sequences(10, 20)),
    "fit": lambda: ensue.Recommender("popularity").fit(ordered_sequences(10, 20)),
    "similar": lambda: model.similar(1),
    "save": lambda: model.save("run"),
    "read": lambda: ensue.read("log.csv"),
} if before else {"check": check_process}
child = os.fork()
if child == 0:
    for name, call in calls.items():
        try:
            call()
            print(name, "works", flush=True)
        except EnsueError as error:
            print(name, "spawn" in str(error), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_next_call_in_a_fork_names_spawn_or_works(tmp_path: Path, when: str) -> None:
    source = str(Path(__file__).parents[1] / "src")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "PYTHONPATH": source}
    done = subprocess.run(
        [sys.executable, "-c", CODE, when],
        capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path, env=environment,
    )  # fmt: skip
    said = dict(line.split() for line in done.stdout.splitlines())
    assert done.returncode == 0, done.stderr
    if when == "after":
        assert said == {"check": "works"}
    else:
        assert len(said) == 7
        assert set(said.values()) == {"True"}
