"""KONECT (`% bip`, out.* files) and SNAP (`# FromNodeId ToNodeId`): comment lines, then one edge per line.

KONECT's edges are user, item, weight and time, of which the last two may be missing. SNAP's are two nodes.
"""

from __future__ import annotations

from dataclasses import replace

from ensue.data.shape import NO_COLUMN, SHAPES, Sample, Shape, split_lines, usual_rows


@SHAPES.register("graph")
def recognise(sample: Sample) -> Shape | None:
    """Comment lines that start with % or #, then numbers in two to four columns."""
    mark = sample.lines[0][:1] if sample.lines else ""
    if mark not in ("%", "#") or sample.file is None:
        return None
    rows = [line.split() for line in sample.lines if not line.startswith(mark)][:50]
    usual = next((found for count in (2, 3, 4) if (found := usual_rows(rows[:-1] or rows, count))), [])
    if not usual or not all(part.lstrip("-")[:1].isalnum() for row in usual for part in row):
        return None
    count = len(usual[0])
    meanings = {"user": "1", "item": "2", "time": NO_COLUMN, "rating": NO_COLUMN}
    if count == 4:
        meanings |= {"rating": "3", "time": "4"}
    elif count == 3:
        meanings["rating"] = "3"
    kind = "KONECT" if mark == "%" else "SNAP"
    order = "" if count == 4 else "; no times: the order of lines counts"
    evidence = f"comment lines that start with {mark} ({kind}), then {count} columns{order}"
    file = replace(sample.file, comment=mark)
    return Shape("graph", evidence, meanings, lambda: split_lines(file, " ", count))
