"""KONECT (`% bip`, out.* files) and SNAP (`# FromNodeId ToNodeId`): comment lines, then one edge per line.

KONECT's edges are user, item, weight and time, of which the last two may be missing. SNAP's are two nodes.
"""

from __future__ import annotations

from dataclasses import replace

from ensue.data.meanings import MEANINGS
from ensue.data.shape import NO_COLUMN, SHAPES, Sample, Shape, split_lines, usual_rows


@SHAPES.register("konect")
def recognise_konect(sample: Sample) -> Shape | None:
    """Comment lines that start with %, then numbers in two to four columns."""
    return _edges(sample, "konect", "%")


@SHAPES.register("snap")
def recognise_snap(sample: Sample) -> Shape | None:
    """Comment lines that start with #, then numbers in two to four columns."""
    return _edges(sample, "snap", "#")


def _edges(sample: Sample, name: str, mark: str) -> Shape | None:
    if not sample.lines or not sample.lines[0].startswith(mark) or sample.file is None:
        return None
    rows = [line.split() for line in sample.lines if not line.startswith(mark)][:50]
    usual = next((fit for count in (2, 3, 4) if (fit := usual_rows(rows[:-1] or rows, count))), [])
    if not usual or not all(part.lstrip("-")[:1].isalnum() for row in usual for part in row):
        return None
    count = len(usual[0])
    columns = {2: ("1", "2"), 3: ("1", "2", NO_COLUMN, "3"), 4: ("1", "2", "4", "3")}[count]
    meanings = dict(zip(MEANINGS, (*columns, NO_COLUMN, NO_COLUMN), strict=False))
    order = "" if count == 4 else "; no times: the order of lines counts"
    evidence = f"comment lines that start with {mark}, then {count} columns{order}"
    file = replace(sample.file, comment=mark)
    return Shape(name, evidence, meanings, lambda: split_lines(file, " ", count))
