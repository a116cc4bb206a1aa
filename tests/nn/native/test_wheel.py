"""A wheel built here brings the library to an environment without a compiler."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from ensue.nn.native import build

PROJECT = Path(__file__).resolve().parents[3]
SITE = Path(sysconfig.get_path("purelib"))
TOY = """
from ensue import Recommender
model = Recommender("sasrec", hidden_units=8, num_epochs=1, maxlen=4).fit([[1, 2, 3, 4], [1, 2, 5]])
print(len(model.recommend([1, 2], k=2)))
"""


def run(*command: str | Path, **variables: str) -> str:
    """What a command prints, in the project's folder, with further variables of the environment."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "ENSUE_NATIVE")}
    done = subprocess.run(
        [str(word) for word in command], cwd=PROJECT, env={**env, **variables}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def wheel_in(folder: Path, **variables: str) -> Path:
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps", "--no-build-isolation")
    run(*pip, "--no-index", "--wheel-dir", folder, ".", **variables)
    (wheel,) = folder.glob("ensue-*.whl")
    return wheel


def installed(wheel: Path, folder: Path) -> Path:
    """The Python of a fresh environment with the wheel; it reads the other packages from ours."""
    venv.create(folder, symlinks=True)
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "others.pth").write_text(f"{SITE}\n")
    run(sys.executable, "-m", "pip", "--python", folder, "install", "--no-deps", "--no-index", "--quiet", wheel)
    return folder / "bin" / "python"


@pytest.mark.skipif(build.compiler() is None or not build.levels(), reason="no C++ compiler")
def test_a_wheel_is_native_where_there_is_no_compiler(tmp_path: Path) -> None:
    wheel = wheel_in(tmp_path / "wheels")
    assert sysconfig.get_platform().replace("-", "_").replace(".", "_") in wheel.name
    python = installed(wheel, tmp_path / "fresh")
    # An empty PATH has no compiler.
    said = run(python, "-m", "ensue", "--version", "--verbose", CXX="none", PATH="")
    assert "compute: native" in said
    assert "2" in run(python, "-c", TOY, CXX="none", PATH="")
    where = run(python, "-c", "import ensue; print(ensue.__file__)")
    assert Path(where.strip()).is_relative_to(tmp_path / "fresh")


def test_a_wheel_without_a_compiler_computes_with_torch(tmp_path: Path) -> None:
    wheel = wheel_in(tmp_path / "wheels", CXX="none")
    assert wheel.name.endswith("-py3-none-any.whl")
    python = installed(wheel, tmp_path / "fresh")
    assert "compute: torch" in run(python, "-m", "ensue", "--version", "--verbose")
    assert "2" in run(python, "-c", TOY)
