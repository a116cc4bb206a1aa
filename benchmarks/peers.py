"""Set up the libraries that ensue is compared with, each in its own environment under build/peers.

python benchmarks/peers.py setup rectools recbole
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "peers"

# polars reads the logs. RecBole 1.2.1 states no upper bounds but uses numpy.float_, which numpy 2 removed.
REQUIREMENTS = {
    "rectools": ["rectools[torch]==0.19.0", "polars"],
    "recbole": ["recbole==1.2.1", "numpy<2", "pandas<2.3", "polars"],
}


def python(peer: str) -> Path:
    """The interpreter of the peer's environment; "ours" is the one that runs this script."""
    return Path(sys.executable) if peer == "ours" else FOLDER / peer / "bin" / "python"


def install(folder: Path, requirements: list[str]) -> Path:
    """Create an environment with the same torch as ours, and give its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    own = folder / "bin" / "python"
    options = ["install", "--quiet", "-c", str(ROOT / "constraints.txt")]
    subprocess.run([str(own), "-m", "pip", *options, *requirements], check=True)
    return own


def setup(peer: str) -> None:
    """Create the environment and install the peer with the same torch as ours, unless it exists already."""
    stamp = FOLDER / peer / "installed"
    wanted = "\n".join(REQUIREMENTS[peer]) + "\n"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    install(FOLDER / peer, REQUIREMENTS[peer])
    stamp.write_text(wanted)


def main() -> None:
    """The command line: `setup` and the peers' names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["setup"])
    parser.add_argument("peers", nargs="+", choices=sorted(REQUIREMENTS))
    for peer in parser.parse_args().peers:
        setup(peer)


if __name__ == "__main__":
    main()
