"""The examples: a model of one's own keeps the contract, and every command works with it; toys learn their ring."""

from __future__ import annotations

import json
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ensue.datasets.simulate import ordered_sequences
from ensue.models import MODELS
from ensue.modules import import_model_module
from ensue.recommender import Recommender
from ensue.testing import ModelContract

EXAMPLE = Path(__file__).parent.parent / "examples" / "custom_model.py"
import_model_module(str(EXAMPLE))
TOYS = sorted((EXAMPLE.parent / "models").glob("*.py"))
SETTINGS = ("--num-epochs", "2", "--hidden-units", "8", "--maxlen", "10", "--device", "cpu")


class TestMyGRU(ModelContract):
    config = MODELS["my-gru"].config.parse({"name": "my-gru", "maxlen": 16, "hidden_units": 32, "dropout_rate": 0.1})


class TestTwoLayers(ModelContract):
    config = TestMyGRU.config.replace(num_layers=2)


def ensue(folder: Path, *words: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, which knows no model of a user's."""
    command = [sys.executable, "-m", "ensue", *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log, and a run of the example on it."""
    folder = tmp_path_factory.mktemp("example")
    store = ordered_sequences(num_users=40, num_items=20, length=8)
    rows = [f"{number // 8},{item},{number}" for number, item in enumerate(store.items)]
    (folder / "log.csv").write_text("user,item,time\n" + "\n".join(rows) + "\n")
    command = ("train", "log.csv", "--model", "my-gru", "--model-module", EXAMPLE, "--out", "run", *SETTINGS)
    done = ensue(folder, *command)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 60


def test_it_is_evaluated_and_recommends(folder: Path) -> None:
    module = f"--model-module={EXAMPLE}"
    done = ensue(folder, "evaluate", "run", "--data", "log.csv", module, "--json")
    assert 0 <= json.loads(done.stdout)["metrics"]["ndcg@10"] <= 1, done.stderr
    done = ensue(folder, "recommend", "run", "--history", "1,2", "-k", "3", module, "--json")
    assert len(json.loads(done.stdout)["items"]) == 3, done.stderr


def test_the_next_command_works_as_it_stands(folder: Path) -> None:
    done = ensue(folder, "evaluate", "run", "--data", "log.csv", f"--model-module={EXAMPLE}")
    words = shlex.split(done.stdout.splitlines()[-1])
    assert words[:3] == ["next:", "ensue", "recommend"], done.stderr
    done = ensue(folder, *words[2:])
    assert done.returncode == 0, done.stderr


def test_its_settings_are_flags(folder: Path) -> None:
    done = ensue(folder, "train", "--model", "my-gru", "--model-module", EXAMPLE, "--help")
    assert "--num-layers" in done.stdout


def test_ranks_know_it(folder: Path) -> None:
    command = ("train", "log.csv", "--model", "my-gru", "--model-module", EXAMPLE, "--out", "ranks", *SETTINGS)
    done = ensue(folder, *command, "--devices", "2")
    assert done.returncode == 0, done.stderr
    module = f"--model-module={EXAMPLE}"
    assert ensue(folder, "recommend", "ranks", "--history", "1", module).returncode == 0


def test_without_its_module_the_message_says_what_to_do(folder: Path) -> None:
    done = ensue(folder, "recommend", "run", "--history", "1,2")
    assert done.returncode == 2
    assert "unknown model 'my-gru'" in done.stderr
    assert "--model-module FILE.py" in done.stderr


def test_from_python(folder: Path) -> None:
    """The module is imported, and its model is one like others: the same run from the command line's folder."""
    recommender = Recommender.load(folder / "run")
    assert type(recommender.config.model).__name__ == "MyGRUConfig"
    assert len(recommender.recommend([1, 2], k=4)) == 4
    assert len(recommender.similar(1, k=2)) == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("missing.py", None, "--model-module missing.py: no such file"),
        ("broken.py", "import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("nowhere.models", None, "No module named 'nowhere'"),
        ("mine/json.py", "x = 1", "a module called 'json' is imported already; rename the file"),
    ],
)
def test_a_module_that_cannot_be_imported(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    done = ensue(tmp_path, "presets", "--model-module", name)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_link_that_python_imported_itself_is_the_same_module(tmp_path: Path) -> None:
    (tmp_path / "custom_model.py").symlink_to(EXAMPLE.resolve())
    code = "import custom_model; from ensue.modules import import_model_module; import_model_module('custom_model.py')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", TOYS, ids=lambda path: path.stem)
def test_a_toy_is_short_and_learns_the_ring(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(path.read_text().splitlines()) < 20
    runpy.run_path(str(path))
    assert capsys.readouterr().out.splitlines()[0].split()[0] == "6"
