"""The table of docs/results/reading.md: each shape of a log, read by an earlier version and by this one.

    python benchmarks/shapes.py --base ../earlier/src      # and ENSUE_DATA for the real logs

The samples are the tests' (tests/data/shapes/shape_samples.py): the histories that they must give are stated there. How
many flags a version needs is searched: the smallest set of `--user`, `--item`, `--time`, `--format`, `--header`,
`--no-quotes` and `--time-unit` with which the sample gives these histories. The real logs are written in their
publisher's form, where it is known to the byte, and prepared without a filter.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path
from typing import Any

import polars as pl

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "tests" / "data" / "shapes" / "shape_samples.py"
PAGE = ROOT / "docs" / "results" / "reading.md"
# The most flags of one command line that are tried.
MOST_FLAGS = 4

# Folder of ENSUE_DATA -> the published file: its name, the columns and the mark between them, the column of its order,
# the start of its Git blob's hash where known, and the published users, items and interactions (None: not published).
REAL: dict[str, tuple[str, str, str, str | None, str, tuple[int | None, int | None, int]]] = {
    "ml-1m": ("ratings.dat", "user_id item_id rating timestamp", "::", "file_row", "77a7c4b1", (6040, 3706, 1000209)),
    "ml-100k": ("u.data", "user_id item_id rating timestamp", "\t", "file_row", "", (943, 1682, 100000)),
    "ml-1m-sasrec": ("ml-1m.txt", "user_id item_id", " ", None, "9ab8e3ed", (6040, 3416, 999611)),
    "amazon-games-sasrec": ("Video.txt", "user_id item_id", " ", None, "f576455c", (31013, 23715, 287107)),
    "amazon-beauty-bert4rec": ("beauty.txt", "user_id item_id", " ", None, "", (40226, 54542, 353962)),
    "amazon-beauty-5core": ("interactions.parquet", "", "", None, "", (22363, 12101, 198502)),
    "diginetica-srgnn": ("interactions.parquet", "", "", None, "", (None, 43097, 982961)),
    "yoochoose64-srgnn": ("interactions.parquet", "", "", None, "", (None, None, 557248)),
}


def read(path: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What a version makes of a log: its histories and counts, or why it does not read it."""
    from ensue.data.interactions import Columns
    from ensue.data.prepare import prepare
    from ensue.errors import EnsueError

    try:
        store, report = prepare(Path(path), columns=Columns(**settings))
    except EnsueError as error:
        return {"error": str(error).replace(path, Path(path).name)}
    except Exception as error:  # an earlier version may end in a traceback
        return {"error": f"{type(error).__name__}: {error}"}
    ids = [str(one) for one in store.users.ids.to_list()]
    ends = store.offsets.tolist()
    items = [str(one) for one in store.item_ids.decode(store.items[: min(store.num_events, 10_000)])]
    histories = {user: items[ends[at] : ends[at + 1]] for at, user in enumerate(ids)} if store.num_events < 1000 else {}
    return {
        "histories": histories,
        "rows": report.rows_in,
        "dropped": report.dropped,
        "counts": [report.users, report.items, report.interactions],
        "shape": getattr(report, "shape", "").split(":")[0],
    }


def attempts(rows: list[list[str]], expected: dict[str, list[str]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Settings, and how many flags they are, the fewest first."""
    places = range(min(map(len, rows), default=0))

    def names(wanted: set[str]) -> list[str]:
        """The columns, by name and by place, that have all of the wanted values."""
        fit = [place for place in places if wanted <= {row[place].strip().strip('"') for row in rows}]
        return list(dict.fromkeys([*(rows[0][place] for place in fit), *(str(place + 1) for place in fit)]))

    choices: dict[str, list[Any]] = {
        "user": names(set(expected)),
        "item": names({item for items in expected.values() for item in items}),
        "time": ["-", *names(set())],
        "format": ["csv", "tsv", "space", "::", "jsonl"],
        "header": [True, False],
        "quotes": [False],
        "time_unit": ["s", "ms"],
    }
    for count in range(1, MOST_FLAGS + 1):
        for given in combinations(choices, count):
            for values in product(*(choices[name] for name in given)):
                yield count, dict(zip(given, values, strict=True))


def least_flags(path: str, expected: dict[str, list[str]], rows: list[list[str]]) -> dict[str, Any]:
    """How a version reads a sample: without a flag, and with the fewest that give the expected histories."""
    plain = read(path, {})
    if plain.get("histories") == expected:
        return {"flags": 0, **plain}
    for count, said in attempts(rows, expected):
        if (result := read(path, said)).get("histories") == expected:
            return {"flags": count, "said": said, "wrong": "error" not in plain, **result}
    return {"flags": None, "wrong": "error" not in plain, "error": plain.get("error", "")}


def children(source: Path, work: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The work done by the version in `source`, in a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(source)}
    words = [sys.executable, __file__, "--child"]
    done = subprocess.run(words, input=json.dumps(work), env=env, stdout=subprocess.PIPE, text=True, check=True)
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results


def rows_of(text: str) -> list[list[str]]:
    """The fields of the lines that are no remarks; of JSON objects their names and values; none of nested ones."""
    lines = [line for line in text.splitlines() if line[:1] not in "%#" and not line.startswith("sep=")]
    if lines[0].startswith(("{", "[")):
        try:
            objects = [json.loads(line) for line in lines]
            return [list(objects[0]), *([str(value) for value in each.values()] for each in objects)]
        except (ValueError, AttributeError):
            return []
    mark = next((mark for mark in ("::", "\t", ";", ",", " ") if mark in lines[0]), ",")
    return [line.split(mark) for line in lines]


def words(result: dict[str, Any]) -> str:
    """How a version reads a sample, as a cell of the table."""
    if result["flags"] == 0:
        return "0"
    wrong = ", read wrongly without" if result["wrong"] else ""
    if result["flags"] is None:
        return f"not read{wrong}"
    return f"{result['flags']}{wrong}"


def drops(result: dict[str, Any]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in result.get("dropped", {}).items()) or "none"


def table_of_shapes(base: Path, folder: Path) -> list[str]:
    samples = runpy.run_path(str(SAMPLES))["SAMPLES"]
    work = []
    for number, (name, text, _, expected) in enumerate(samples):
        place = folder / str(number)
        path = place / name
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
        histories = {str(user): [str(item) for item in items] for user, items in expected.items()}
        work.append({"path": str(path), "expected": histories, "rows": rows_of(text)})
    before, after = children(base, work), children(ROOT / "src", work)
    lines = ["| shape | file | flags before | flags now | rows | dropped |", "|---|---|---|---|---|---|"]
    for (name, _, shape, _), old, new in zip(samples, before, after, strict=True):
        cells = (shape or "(a plain table)", f"`{name}`", words(old), words(new), str(new.get("rows", "")), drops(new))
        lines.append(f"| {' | '.join(cells)} |")
    shapes = {shape for (_, _, shape, _), new in zip(samples, after, strict=True) if shape and new["flags"] == 0}
    old_none = sum(old["flags"] == 0 for old in before)
    old_wrong = sum(old.get("wrong", False) for old in before)
    old_never = sum(old["flags"] is None for old in before)
    new_none = sum(new["flags"] == 0 for new in after)
    named = len({shape for _, _, shape, _ in samples if shape})
    new_wrong = sum(new.get("wrong", False) for new in after)
    summary = (
        f"Of {len(samples)} files of {named} shapes, {old_none} were read right without a flag before and {new_none} "
        f"are now ({len(shapes)} shapes); {old_wrong} were read wrongly without a word before, {new_wrong} are now; "
        f"{old_never} needed a program of the user's own."
    )
    return [summary, "", *lines]


def write_real(data: Path, name: str, folder: Path) -> Path:
    """The log as its publisher wrote it, checked by its Git blob where that is known."""
    file, columns, mark, order, blob, _ = REAL[name]
    source = data / name / "interactions.parquet"
    if not columns:
        return source
    frame = pl.read_parquet(source)
    frame = frame if order is None else frame.sort(order)
    text = frame.select(pl.concat_str(columns.split(), separator=mark)).to_series()
    content = ("\n".join(text.to_list()) + "\n").encode()
    if blob:
        digest = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if not digest.startswith(blob):
            raise SystemExit(f"{name}: the file is not the published one (blob {digest[:8]}, not {blob})")
    path = folder / f"{name}-{file}"
    path.write_bytes(content)
    return path


def table_of_data(data: Path, folder: Path) -> list[str]:
    lines = [
        "| log | file | rows | dropped | users | items | interactions | published |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, (file, _, _, _, blob, published) in REAL.items():
        if not (data / name / "interactions.parquet").exists():
            continue
        result = read(str(write_real(data, name, folder)), {})
        same = all(due in (None, count) for due, count in zip(published, result["counts"], strict=True))
        stated = " / ".join("-" if count is None else f"{count:,}" for count in published)
        cells = (
            name,
            f"`{file}`" + (f" (blob {blob})" if blob else ""),
            f"{result['rows']:,}",
            drops(result),
            *(f"{count:,}" for count in result["counts"]),
            f"{stated}, {'the same' if same else 'DIFFERENT'}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def replaced(page: str, name: str, lines: list[str]) -> str:
    """The page with the lines between the marks of a part."""
    start, end = f"<!-- {name}: written by benchmarks/shapes.py -->", f"<!-- end of {name} -->"
    before, found, rest = page.partition(start)
    if not found:
        raise SystemExit(f"{PAGE.name} has no mark {start}")
    return before + start + "\n\n" + "\n".join(lines) + "\n\n" + end + rest.partition(end)[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--base", type=Path, help="sources of the earlier version")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps([least_flags(**each) for each in json.load(sys.stdin)]))
        return
    page = PAGE.read_text()
    with tempfile.TemporaryDirectory() as name:
        if args.base is not None:
            page = replaced(page, "shapes", table_of_shapes(args.base, Path(name)))
        if "ENSUE_DATA" in os.environ:
            page = replaced(page, "data", table_of_data(Path(os.environ["ENSUE_DATA"]), Path(name)))
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
