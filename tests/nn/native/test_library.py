"""Building the native library, and the choice between it and torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ensue.cli import main
from ensue.errors import ConfigError
from ensue.nn.native import build, library
from ensue.nn.native.library import TORCH, Compute, compute, compute_with, computing_with, runnable

LEVELS = build.levels()
built = pytest.mark.skipif(not runnable(), reason="the native library is not built: make native")


@pytest.mark.skipif(build.compiler() is None or not build.levels(), reason="no C++ compiler")
def test_the_sources_compile_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ensue-0123-x86-64-v3.so").touch()
    monkeypatch.setattr(build, "levels", lambda: LEVELS[-1:])
    # Without optimisation, to be quick.
    (made,) = build.build(tmp_path, ("-O0", "-Wall", "-Wextra", "-Werror"))
    assert list(tmp_path.iterdir()) == [made]
    assert build.build(tmp_path) == [made]
    assert build.fingerprint() in made.name


def test_without_a_compiler_the_build_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(build.BuildError, match="no C\\+\\+ compiler: install"):
        build.build(tmp_path)
    done = subprocess.run([sys.executable, build.__file__], capture_output=True, text=True, check=True)
    assert "ensue is not native: no C++ compiler" in done.stderr


def test_a_failing_compiler_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "levels", lambda: ("x86-64-v3",))
    monkeypatch.setattr(build, "compiler", lambda: "false")
    with pytest.raises(build.BuildError, match="failed for x86-64-v3"):
        build.build(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_reasons_for_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert str(library._chosen("0")) == "torch (ENSUE_NATIVE=0)"
    monkeypatch.setattr(library, "runnable", lambda: ())
    monkeypatch.setattr(library, "library_of", lambda level: tmp_path / level)
    assert "is not built: run make native" in str(library._chosen("1"))
    (tmp_path / build.levels()[0]).touch()
    assert "lacks the instructions of" in str(library._chosen("1"))
    monkeypatch.setattr(library, "levels", lambda: ())
    assert "this kind of processor" in str(library._chosen("1"))
    with pytest.raises(ConfigError, match=r"ENSUE_NATIVE must be one of 0, 1 on this machine \(got 'v9'\)"):
        library._chosen("v9")


def test_a_level_needs_all_its_instructions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(library, "CPU_INFO", info)
    assert library.cpu_flags() == frozenset()
    info.write_text(f"processor : 0\nflags\t\t: {' '.join(library.NEEDED['x86-64-v3'])} sse\n")
    assert library.cpu_flags() == library.NEEDED["x86-64-v3"] | {"sse"}
    assert not library.NEEDED["x86-64-v4"] <= library.cpu_flags()


@built
def test_the_choice_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENSUE_NATIVE", raising=False)
    before = compute()
    with computing_with():
        assert compute_with(TORCH, "as the checkpoint")
        assert compute() == Compute(TORCH, "as the checkpoint")
        assert compute_with(runnable()[-1], "")
        assert compute().name == runnable()[-1]
        assert not compute_with("x86-64-v9", "")
        assert compute().name == runnable()[-1]
        monkeypatch.setenv("ENSUE_NATIVE", runnable()[-1])
        assert not compute_with(TORCH, "as the checkpoint")
    assert compute() == before


def test_the_version_says_what_computes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert main(["--version", "--verbose"]) == 0
    assert f"compute: {compute()}" in capsys.readouterr().out


@built
def test_a_forked_process_has_threads_of_its_own() -> None:
    """In a fresh process, since forking one that has used torch's threads is not safe."""
    code = """
import os, torch
from ensue.nn.native.library import runnable
from ensue.nn.native.trunk import Plan, newest
torch.set_num_threads(1)
plan = Plan(width=8, heads=1, blocks=1, causal=True, threads=3, epsilon=1e-8)
x, last = torch.ones(900, 8), torch.arange(99, 900, 100)
run = lambda: newest(runnable()[0], plan, [torch.ones(6 * 64 + 80 + 16)], x, last)
first = run()
child = os.fork()
same = torch.equal(first, run())
if child == 0:
    os._exit(0 if same else 3)
assert same and os.waitpid(child, 0)[1] == 0
"""
    source = str(Path(build.__file__).parents[3])
    env = {**os.environ, "PYTHONPATH": source}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=60)
