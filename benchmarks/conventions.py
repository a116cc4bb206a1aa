"""Ask six libraries for the metrics of the same lists, and write the table of their conventions.

python benchmarks/conventions.py
python benchmarks/conventions.py --libraries cornac,lenskit --with lenskit=/path/to/python3.13

Each library is installed with the torch of constraints.txt into an environment in a temporary folder, one after
another, which is removed after use. `--with` names an interpreter that has the library already. The figures are written
to docs/results/conventions.json, in which libraries that were not asked keep theirs; the table is made from that file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from peers import install

from ensue.evaluation import metrics
from ensue.files import atomic_path, write_json

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
FIGURES, TABLE = "conventions.json", "conventions_table.md"
LIBRARIES = {
    "ir-measures": ["ir-measures==0.4.3"],
    "rectools": ["rectools==0.19.0"],
    "replay": ["replay-rec==0.22.0"],
    "lenskit": ["lenskit==2026.4.0"],
    "cornac": ["cornac==3.0.1"],
    "recbole": ["recbole==1.2.1", "numpy<2", "pandas<2.3"],
}

K = 5
ITEMS = list(range(1, 11))
# The training items of four users; item 4 has no event, and the last user returned to item 1.
TRAIN = {"t": [1, 2, 3], "u": [1, 2], "v": [1, 5], "w": [1, 1]}
WORLD: dict[str, Any] = {"items": ITEMS}
LIST_WORLD = {"items": [1, 2, 3, 4, 5], "train": {name: {"list": items} for name, items in TRAIN.items()}}


def user(items: list[int], relevant: list[int], tied: bool = False) -> dict[str, Any]:
    """A user with a list, best first; all scores are equal if it is tied."""
    return {"list": items, "scores": [1.0 if tied else 20.0 - p for p in range(len(items))], "relevant": relevant}


def question(world: dict[str, Any] = WORLD, k: int = K, **users: dict[str, Any]) -> dict[str, Any]:
    """The users of an evaluation, its cut-off, and the catalogue."""
    return {"users": users, "k": k, "world": world}


QUESTIONS = {
    **{f"rank {rank}": question(a=user(ITEMS, [rank])) for rank in ITEMS},
    "two": question(a=user(ITEMS, [2, 4])),
    "seven": question(a=user(ITEMS, [1, 2, 3, 4, 6, 7, 8])),
    "k 20": question(k=20, a=user(ITEMS, [2, 4])),
    "short": question(a=user([1, 2], [2])),
    "no list": question(a=user(ITEMS, [1]), b=user([], [1])),
    "empty list": question({**WORLD, "empty": True}, a=user(ITEMS, [1]), b=user([], [1])),
    "no relevant": question(a=user(ITEMS, [1]), b=user(ITEMS, [])),
    "listed twice": question(a=user([1, 1, 2, 2, 3], [2])),
    "relevant twice": question(a=user(ITEMS, [1, 1])),
    "tied, first": question(a=user(ITEMS, [1], tied=True)),
    "tied, last": question(a=user(ITEMS, [10], tied=True)),
    "lists": question(LIST_WORLD, 2, a=user([1, 2], []), b=user([1, 3], []), c=user([1, 4], [])),
}

# Libraries that rank all items for every user in the test part, and the questions that they cannot be asked.
RANK_ALL = ("cornac", "recbole")
OF_LISTS = ("short", "no list", "empty list", "listed twice")

# The rows of the table: text, question, metric.
ROWS = [
    ("NDCG@5, target at rank 1", "rank 1", "ndcg"),
    ("NDCG@5, target at rank 2", "rank 2", "ndcg"),
    ("NDCG@5, target at rank 3", "rank 3", "ndcg"),
    ("NDCG@5, relevant at 2 and 4", "two", "ndcg"),
    ("NDCG@5, 7 relevant, 4 in the list", "seven", "ndcg"),
    ("MRR@5, target at rank 6", "rank 6", "mrr"),
    ("MAP@5, target at rank 6", "rank 6", "map"),
    ("MAP@5, relevant at 2 and 4", "two", "map"),
    ("MAP@5, 7 relevant, 4 in the list", "seven", "map"),
    ("recall@5, 7 relevant, 4 in the list", "seven", "recall"),
    ("precision@5, target at rank 2 of a list of 2", "short", "precision"),
    ("precision@20, 2 relevant in a list of 10", "k 20", "precision"),
    ("AUC (at 5), target at rank 2 of 10", "rank 2", "auc"),
    ("AUC (at 5), target at rank 5 of 10", "rank 5", "auc"),
    ("AUC (at 5), target at rank 6 of 10", "rank 6", "auc"),
    ("HR@5, all 10 scores equal, target is item 1", "tied, first", "hr"),
    ("HR@5, all 10 scores equal, target is item 10", "tied, last", "hr"),
    ("MRR, all 10 scores equal, target is item 10", "tied, last", "mrr"),
    ("MAP, all 10 scores equal, target is item 10", "tied, last", "map"),
    ("AUC, all 10 scores equal", "tied, first", "auc"),
    ("HR@5, one of two users has no list", "no list", "hr"),
    ("HR@5, one of two lists is empty", "empty list", "hr"),
    ("precision@5, one of two lists is empty", "empty list", "precision"),
    ("HR@5, one of two users has no relevant item", "no relevant", "hr"),
    ("recall@5, the relevant item is listed twice", "listed twice", "recall"),
    ("precision@5, the relevant item is listed twice", "listed twice", "precision"),
    ("NDCG@5, the first item is relevant, stated twice", "relevant twice", "ndcg"),
    ("precision@5, the first item is relevant, stated twice", "relevant twice", "precision"),
    ("coverage@2, lists show 4 of 5 items, one untrained", "lists", "coverage"),
    ("Gini@2 of the same", "lists", "gini"),
    ("novelty@2 of the same", "lists", "novelty"),
    ("mean popularity@2 of the same", "lists", "popularity"),
]


def ours() -> dict[str, dict[str, float]]:
    """The figures of ensue, for the questions with one target among all items, and those about lists."""
    standings = {f"rank {rank}": (rank - 1, 0) for rank in ITEMS} | {"tied, first": (0, 9), "tied, last": (0, 9)}
    figures = {}
    for name, (better, equal) in standings.items():
        names = ("hr@5", "ndcg@5", "mrr@5", "map@5", "recall@5", "precision@5", "auc")
        values = {text.partition("@")[0]: metrics.parse_metric(text)(better, equal, len(ITEMS)) for text in names}
        figures[name] = {metric: round(float(value), 12) for metric, value in values.items()}
    lists, counts = [[1, 2], [1, 3], [1, 4]], [5, 2, 1, 0, 1]
    figures["lists"] = {
        "coverage": round(metrics.coverage(lists, 5), 12),
        "gini": round(metrics.gini([3, 1, 1, 1, 0]), 12),
        "novelty": round(float(metrics.novelty(lists, counts).mean()), 12),
        "popularity": round(float(metrics.mean_popularity(lists, counts).mean()), 12),
    }
    return figures


def ask(library: str, interpreter: str | None) -> dict[str, Any]:
    """The library's version and figures."""
    script, text = str(ROOT / "benchmarks" / "peer_conventions.py"), json.dumps(QUESTIONS)
    with tempfile.TemporaryDirectory() as folder:
        if interpreter is None:
            interpreter = str(install(Path(folder) / "venv", LIBRARIES[library]))
        done = subprocess.run(
            [interpreter, script, library], input=text, stdout=subprocess.PIPE, text=True, check=True, cwd=folder
        )
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


def table_of(results: dict[str, Any]) -> str:
    """The table as Markdown; a dash is a figure that the library does not have."""
    names = [name for name in LIBRARIES if name in results]
    heads = ["figure", "ensue", *(f"{name} {results[name]['version']}" for name in names)]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    own = ours()
    for text, asked, metric in ROWS:
        answers = [own.get(asked, {}), *(_answer(results, name, asked) for name in names)]
        cells = ["error" if "error" in each else _cell(each.get(metric)) for each in answers]
        lines.append("| " + " | ".join([text, *cells]) + " |")
    return "\n".join(lines) + "\n"


def _answer(results: dict[str, Any], library: str, asked: str) -> dict[str, Any]:
    """The figures of a question; none if it is about lists and the library ranks the whole catalogue."""
    is_missing = library in RANK_ALL and asked in OF_LISTS
    answer: dict[str, Any] = {} if is_missing else results[library]["figures"][asked]
    return answer


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}".rstrip("0").rstrip(".")


def main() -> None:
    """Ask the libraries, keep the other figures, write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--libraries", default=",".join(LIBRARIES), help="names, separated by commas; '' only writes the table"
    )
    parser.add_argument("--with", dest="given", action="append", default=[], metavar="LIBRARY=PYTHON")
    options = parser.parse_args()
    given = dict(pair.split("=", 1) for pair in options.given)
    path = RESULTS / FIGURES
    results = json.loads(path.read_text()) if path.is_file() else {}
    for library in filter(None, options.libraries.split(",")):
        results[library] = ask(library, given.get(library))
        print(f"{library} {results[library]['version']}", file=sys.stderr)
    write_json(path, {name: results[name] for name in LIBRARIES if name in results})
    with atomic_path(RESULTS / TABLE) as temporary:
        temporary.write_text(table_of(results))


if __name__ == "__main__":
    main()
