"""Compile the native library with the C++ compiler of this machine, one file for each instruction set.

The package's build hook (hatch_build.py), `make native` and the tests call this module. It imports nothing but the
standard library, so that the hook can load it before anything is installed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES, LIBRARIES = HERE / "cpp", HERE / "lib"
# No -ffast-math: sums keep their order, and NaN and infinite values are computed as such.
FLAGS = (
    *("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread", "-fvisibility=hidden"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
)
TIMEOUT = 600


class BuildError(Exception):
    """The library cannot be compiled: there is no compiler, or it failed."""


def levels() -> tuple[str, ...]:
    """The instruction sets that are compiled for this kind of processor, best first."""
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        return "x86-64-v4", "x86-64-v3"
    return ("arm64",) if machine in ("arm64", "aarch64") else ()


@cache
def fingerprint() -> str:
    """A hash of the sources and of this module; it is part of the libraries' names, so that none is out of date."""
    digest = hashlib.sha256()
    for path in (*sorted(SOURCES.iterdir()), Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def library_of(level: str, folder: Path = LIBRARIES) -> Path:
    """The file of an instruction set's library; it may not exist."""
    return folder / f"ensue-{fingerprint()}-{level}.so"


def compiler() -> str | None:
    """The C++ compiler: the one that the variable CXX names, or the first of c++, g++ and clang++; None without one."""
    named = os.environ.get("CXX")
    if named is not None:
        return shutil.which(named)
    return next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)


def build(folder: Path = LIBRARIES, extra: tuple[str, ...] = ()) -> list[Path]:
    """Compile the libraries that are missing from a folder, and remove those of other sources.

    Args:
        folder: where the libraries are written.
        extra: further flags of the compiler, such as -fsanitize=thread.

    Raises:
        BuildError: there is no compiler, it failed, or this kind of processor has no native form.
    """
    program = compiler()
    if program is None:
        raise BuildError("no C++ compiler: install g++ or clang++, or name one in the variable CXX")
    if not levels():
        raise BuildError(f"no native form for processors of kind {platform.machine()}")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {level: library_of(level, folder) for level in levels()}
    for old in folder.glob("ensue-*.so"):
        if old not in wanted.values():
            old.unlink()
    for level, path in wanted.items():
        if not path.exists():
            _compile(program, level, path, extra)
    return list(wanted.values())


def _compile(program: str, level: str, path: Path, extra: tuple[str, ...]) -> None:
    march = (f"-march={level}",) if level.startswith("x86") else ()
    sources = [str(source) for source in sorted(SOURCES.glob("*.cpp"))]
    # Compiled under a temporary name and renamed, so that two builds at once do not meet.
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
        made = Path(temporary) / path.name
        command = [program, *FLAGS, *march, *extra, *sources, "-o", str(made)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT)
        except subprocess.CalledProcessError as error:
            raise BuildError(f"{program} failed for {level}: {error.stderr.strip()[-500:]}") from None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BuildError(f"{program} failed for {level}: {error}") from None
        os.replace(made, path)


if __name__ == "__main__":
    try:
        for built in build():
            print(built)
    except BuildError as failure:
        print(f"ensue is not native: {failure}; torch computes instead", file=sys.stderr)
