"""Reads damaged logs of every text form: no traceback, no hang, rows that add up, no id that the file does not have.

    python tests/fuzz/fuzz_reading.py --minutes 15         # or: make fuzz
    python tests/fuzz/fuzz_reading.py --first 1234 --count 1 --keep /tmp/case

Input N is a function of N alone: a sample in one of the forms, with some bytes changed, packed or not, read with
settings that are also drawn. The inputs are read in a process of their own; one that ends or does not answer is a
fault like a traceback, and the next process goes on behind it.
"""

from __future__ import annotations

import argparse
import ast
import bz2
import gzip
import io
import json
import lzma
import os
import random
import re
import runpy
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ensue.data.interactions import Columns, read_interactions
from ensue.data.prepare import PrepareConfig, prepare
from ensue.errors import EnsueError

SAMPLES = Path(__file__).parents[1] / "data" / "shapes" / "shape_samples.py"
# A larger input than this is cut.
LARGEST = 20_000
# Inputs of one process, and the longest that one input may take, in seconds of the processor.
BLOCK, LONGEST_S = 200, 30

PLAIN = [
    (
        "log.csv",
        "user,item,time,rating\n" + "".join(f"u{n % 4},i{n % 7},{1600000000 + n},{n % 5}\n" for n in range(20)),
    ),
    ("log.csv", 'user,item,time\n"a,b","x ""y""",1600000001\n"a,b",z,1600000002\nc,z,1600000003\n'),
    ("log.csv", "user;item;time\n1;5;01.02.2019 10:00\n1;6;13.02.2019 10:01\n2;5;14.02.2019 10:02\n"),
    ("log.csv", "7,12,4,1600000300\n7,10,5,1600000100\n8,10,3,1600000050\n"),
    ("log.tsv", "user_id\titem_id\ttimestamp\n7\t12\t1600000300\n7\t10\t1600000100\n8\t10\t1600000050\n"),
    ("log.txt", "1 10 1600000300\n1 11 1600000301\n2 10 1600000302\n3 12 1600000303\n"),
    ("log.txt", "user item time\n1 10 1600000300\n1 11 1600000301\n2 10 1600000302\n"),
    ("log.txt", "a|b|2019-10-03\na|c|2019-10-04\nb|c|2019-10-05\n"),
    ("log.dat", "1::31::5::978300760\n1::30::3::978300100\n2::30::1::978300110\n"),
    ("log.jsonl", '{"user": "a", "item": 5, "time": 1600000000}\n{"user": "b", "item": 6, "time": 1600000001}\n'),
    ("log.jsonl", '{"user": "a", "item": "x\\u00e9", "time": "2019-10-03T10:00:00Z", "more": {"k": [1, 2]}}\n'),
    ("log.json", '[{"user": "a", "item": 5, "time": 1600000000},\n {"user": "b", "item": 6, "time": 1600000001}]\n'),
    ("log.csv", "".join(f"{n},u{n % 3},i{n % 5},{1600000000 + n}\n" for n in range(15))),
    ("log.csv", "user,item,date,time\n1,5,2019-12-31,10:00\n1,6,2019-12-31,09:30:15\n2,6,2019-12-30,23:30\n"),
    ("log.csv", "user,item,date,hour\n1,5,31/12/2019,10:00\n1,6,31/12/2019,09:30\n2,6,30/12/2019,23:30\n"),
]
TOKENS = [
    *('"', '""', "'", "\n", "\r", "\r\n", "\x00", "\t", " ", ",", ";", "|", "::", ":", "{", "}", "[", "]", "[]", "{}"),
    *(
        "\ufeff",
        "\x1b[31m",
        "\x01",
        "\x85",
        "\u2028",
        "é",
        "日本",
        "\ud7ff",
        "-",
        "-0",
        "007",
        "1e5",
        "1e400",
        "nan",
        "inf",
    ),
    *("NA", "null", "None", "true", "\\N", "\\u0041", "\\ud800", "9223372036854775807", "9223372036854775808"),
    *("-9223372036854775808", "99999999999999999999999999", "0.1", "1,5", "20191230", "0229", "2019-02-30", "43770"),
    *(
        "2019-10-03T10:00:00+25:00",
        "03/04/2019",
        "31/12/2019",
        "9999-12-31T23:59:59Z",
        "0000-00-00",
        "24:00",
        "12:61 PM",
    ),
    *("user,item,time\n", "sep=;\n", "# comment\n", "% comment\n", "1:\n", "\n\n\n", "(", ")", "[5, 6]", "['a']", "\\"),
]
NOISE = [b"\xff", b"\xfe\xff", b"\xff\xfe", b"\xc3", b"\xef\xbb\xbf", b"\x80", b"\x1f\x8b", b"PK\x03\x04", b"\x78\x9c"]
ENDINGS = [".csv", ".tsv", ".txt", ".dat", ".jsonl", ".json", ".inter", ".data", ""]


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        name: the file's name.
        content: its bytes.
        plain: the bytes before they were packed.
        columns: how it is read.
        config: what is left out.
        as_items: it is read as the file of items of another log.
    """

    name: str
    content: bytes
    plain: bytes
    columns: dict[str, Any]
    config: dict[str, Any]
    as_items: bool


def case(number: int) -> Case:
    """Input `number`."""
    rng = random.Random(number)
    name, text = rng.choice(samples())
    plain = text.encode()
    if rng.random() < 0.1:
        plain *= rng.choice([2, 30])
    for _ in range(rng.choice([0, 1, 1, 2, 3, 8])):
        plain = changed(plain, rng)
    if rng.random() < 0.05:
        plain = plain.decode(errors="replace").encode(rng.choice(["utf-16", "utf-16-be", "latin-1"]), errors="replace")
    plain = plain[:LARGEST]
    content, packed = packed_as(plain, rng) if rng.random() < 0.2 else (plain, "")
    if packed and rng.random() < 0.3:
        content = changed(content, rng)
    name = Path(name).stem + (Path(name).suffix if rng.random() < 0.8 else rng.choice(ENDINGS)) + packed
    return Case(name, content, plain, columns_of(rng), config_of(rng), rng.random() < 0.05)


@cache
def samples() -> list[tuple[str, str]]:
    """The names and texts of logs in every form and shape."""
    return [*PLAIN, *((name, text) for name, text, *_ in runpy.run_path(str(SAMPLES))["SAMPLES"])]


def changed(content: bytes, rng: random.Random) -> bytes:
    """The bytes with one change."""
    place = rng.randrange(len(content) + 1)
    length = rng.choice([1, 1, 2, 5, 20, 200])
    kind = rng.randrange(8)
    if kind == 0:
        return content[:place] + content[place + length :]
    if kind == 1:
        return content[:place] + rng.choice(TOKENS).encode() + content[place:]
    if kind == 2:
        return content[:place] + rng.choice(TOKENS).encode() + content[place + length :]
    if kind == 3:
        return content[:place] + rng.choice(NOISE) + content[place + rng.randrange(2) :]
    if kind == 4:
        return content[:place] + bytes([rng.randrange(256)]) + content[place + 1 :]
    lines = content.split(b"\n")
    line = rng.randrange(len(lines))
    if kind == 5:
        lines.insert(rng.randrange(len(lines) + 1), lines[line])
    elif kind == 6:
        mark = rng.choice([b",", b"\t", b" ", b"::", b";", b'"'])
        fields = lines[line].split(mark)
        fields[rng.randrange(len(fields))] = rng.choice(TOKENS).encode()
        lines[line] = mark.join(fields)
    else:
        del lines[line]
    return rng.choice([b"\n", b"\n", b"\n", b"\r\n", b"\r"] if rng.random() < 0.1 else [b"\n"]).join(lines)


def packed_as(plain: bytes, rng: random.Random) -> tuple[bytes, str]:
    """The bytes packed, and the suffix for it."""
    kind = rng.choice([".gz", ".bz2", ".xz", ".zz", ".zip", ".zst"])
    if kind == ".zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo("log.csv"), plain)
        return buffer.getvalue(), kind
    if kind == ".zst":
        import pyarrow as pa

        buffer = io.BytesIO()
        with pa.CompressedOutputStream(buffer, "zstd") as stream:
            stream.write(plain)
            stream.flush()
            return buffer.getvalue(), kind
    packers = {
        ".gz": lambda data: gzip.compress(data, mtime=0),
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
        ".zz": zlib.compress,
    }
    return packers[kind](plain), kind


def columns_of(rng: random.Random) -> dict[str, Any]:
    """Settings of reading; most inputs are read without any."""
    said: dict[str, Any] = {"max_dropped": rng.choice([0.5, 1])}
    if rng.random() < 0.6:
        return said
    choices: dict[str, list[Any]] = {
        "format": ["csv", "tsv", ";", "|", "space", "::", "jsonl", "auto"],
        "header": [True, False],
        "quotes": [False],
        "multiline": [True],
        "encoding": ["latin-1", "cp1252", "utf-16", "utf-8", "shift_jis"],
        "user": ["1", "user", "user_id"],
        "item": ["2", "item", "item_id"],
        "time": ["3", "time", "-", "timestamp", "date"],
        "clock": ["4", "hour"],
        "rating": ["-", "rating", "3"],
        "features": [["rating"], ["4"], ["event"]],
        "where": [
            "rating > 3",
            "event == 'buy'",
            "user != 'a'",
            "not (rating > 3 or user == 'a')",
            "time != '2019-10-03'",
        ],
        "time_unit": ["s", "ms", "us", "ns", "day"],
        "time_format": ["%d/%m/%Y", "%Y%m%d%H", "%s", "%d.%m.%Y %H:%M"],
        "time_zone": ["Europe/Paris", "Asia/Shanghai"],
    }
    for name in rng.sample(sorted(choices), rng.choice([1, 1, 2, 4])):
        said[name] = rng.choice(choices[name])
    return said


def config_of(rng: random.Random) -> dict[str, Any]:
    """Settings of the filters; most often none."""
    if rng.random() < 0.8:
        return {}
    return {
        "min_user_events": rng.choice([1, 2]),
        "filter": rng.choice(["single", "core"]),
        "duplicates": rng.choice(["keep", "first", "last"]),
    }


def fault_of(each: Case, folder: Path) -> str:
    """Why reading the input is at fault; empty if it is not. The file is written into `folder`."""
    path = folder / each.name
    path.write_bytes(each.content)
    try:
        columns, config = Columns.parse(each.columns), PrepareConfig.parse(each.config)
        if each.as_items:
            import polars as pl

            log = pl.DataFrame({"user": ["a", "a", "b"], "item": ["5", "6", "5"]})
            prepare(log, columns=columns if set(each.columns) <= {"encoding", "max_dropped"} else None, items=path)
            return ""
        log = read_interactions(path, columns)
        if log.rows_in != log.frame.height + sum(log.dropped.values()):
            return f"{log.rows_in} rows in, {log.frame.height} kept, dropped {dict(log.dropped)}"
        store, report = prepare(log, config=config)
    except EnsueError as error:
        return "" if str(error).strip() else f"an empty message of {type(error).__name__}"
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of polars is no Exception
        return f"{type(error).__name__}: {error}"
    if report.rows_in != report.interactions + sum(report.dropped.values()):
        return f"{report.rows_in} rows in, {report.interactions} events, dropped {report.dropped}"
    return strangers(each, [*store.users.ids.to_list(), *store.item_ids.ids.to_list()], log.shape)


def strangers(each: Case, ids: list[str | int], shape: str) -> str:
    """Names the ids that the file does not have."""
    encodings = [each.columns["encoding"]] if "encoding" in each.columns else ["utf-8", "utf-16-le", "utf-16-be"]
    # What is packed may have been changed to something plain.
    parts = [part.decode(encoding, errors="replace") for part in (each.plain, each.content) for encoding in encodings]
    text = "\n".join(part.removeprefix("\ufeff") for part in parts)
    known = set(scalars(text)) if "{" in text else set()
    if shape.startswith(("sequences: one JSON array per line", "amazon-m2")):
        known |= {str(number) for number in range(1, text.count("\n") + 2)}
    undoubled = text.replace('""', '"')
    for one in map(str, ids):
        parts = one.split(" - ") if shape.startswith("lastfm") else [one]
        for part in parts:
            if part not in text and part not in undoubled and part not in known:
                return f"id {part!r} is not in the file"
    return ""


def scalars(text: str) -> Iterator[str]:
    """The values of JSON and of Python literals, one document a line or all lines one document."""
    for line in [text, *text.splitlines()]:
        for parse in (json.loads, ast.literal_eval):
            try:
                value = parse(line.strip())
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            stack = [value]
            while stack:
                top = stack.pop()
                if isinstance(top, dict):
                    stack += [*top.keys(), *top.values()]
                elif isinstance(top, list | tuple):
                    stack += top
                else:
                    yield str(top)
    yield from re.findall(r"[^\x00-\x1f]+", text)


def run_here(first: int, count: int, progress: Path, folder: Path) -> None:
    """Read the inputs in this process, and print each fault; the number at hand is written to `progress`."""
    for number in range(first, first + count):
        progress.write_text(str(number))
        each = case(number)
        fault = fault_of(each, folder)
        if fault:
            print(f"input {number} ({each.name}): {fault[:300]}", flush=True)
        (folder / each.name).unlink(missing_ok=True)


def watched(child: subprocess.Popen[str], progress: Path) -> tuple[str, str]:
    """What a child printed, and why it ended before its time; it is ended if one input takes too long.

    On a busy machine that is told by the processor's seconds that an input took.
    """
    at, since, spent = "", time.monotonic(), 0.0
    while True:
        try:
            out, err = child.communicate(timeout=10)
            return out, "" if child.returncode == 0 else f"the process ended ({child.returncode}): {err[-300:]}"
        except subprocess.TimeoutExpired:
            if progress.read_text() != at:
                at, since, spent = progress.read_text(), time.monotonic(), processor_seconds(child.pid)
            elif processor_seconds(child.pid) - spent > LONGEST_S or time.monotonic() - since > 30 * LONGEST_S:
                child.kill()
                return child.communicate()[0], "no answer"


def processor_seconds(pid: int) -> float:
    """What a process took so far; where there is no /proc, the clock."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return time.monotonic()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(first: int, minutes: float, count: int | None) -> int:
    """Read inputs in child processes until the time is over; the number of faults."""
    stop, number, faults, start = time.monotonic() + 60 * minutes, first, 0, time.monotonic()
    last = first + count if count is not None else 10**12
    with tempfile.TemporaryDirectory() as name:
        progress = Path(name) / "progress"
        while number < last and time.monotonic() < stop:
            block = min(BLOCK, last - number)
            words = [sys.executable, __file__, "--here", name, "--first", str(number), "--count", str(block)]
            progress.write_text(str(number))
            child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            out, ended = watched(child, progress)
            print(out, end="", flush=True)
            faults += out.count("\ninput ") + out.startswith("input ")
            if ended:
                at = int(progress.read_text())
                print(f"input {at} ({case(at).name}): {ended}", flush=True)
                faults += 1
                number = at + 1
            else:
                number += block
    print(f"{number - first:,} inputs in {(time.monotonic() - start) / 60:.1f} minutes, {faults} faults")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--count", type=int, help="how many inputs")
    parser.add_argument("--minutes", type=float, default=15, help="how long, at most")
    parser.add_argument("--keep", type=Path, help="write the input --first into this folder, and read nothing")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.keep is not None:
        each = case(args.first)
        args.keep.mkdir(parents=True, exist_ok=True)
        (args.keep / each.name).write_bytes(each.content)
        print(args.keep / each.name, each.columns, each.config, "as items" if each.as_items else "")
    elif args.here is not None:
        run_here(args.first, args.count, args.here / "progress", args.here)
    else:
        sys.exit(run(args.first, args.minutes, args.count) > 0)


if __name__ == "__main__":
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    main()
