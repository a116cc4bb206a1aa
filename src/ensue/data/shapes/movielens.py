"""MovieLens of all sizes: ratings.csv, ratings.dat (`::`) and u.data (tabs), the last two without a header."""

from __future__ import annotations

from ensue.data.shape import SHAPES, Sample, Shape, all_match, by_header, by_place, split_lines

_PATTERNS = {0: r"\d+", 1: r"\d+", 2: r"[0-5](\.\d)?", 3: r"\d{8,10}"}


@SHAPES.register("movielens")
def recognise(sample: Sample) -> Shape | None:
    """The header of ratings.csv, or four numbers: user, movie, rating from 0 to 5, seconds."""
    if "tag" in sample.header:
        return None
    columns = "userId movieId rating timestamp"
    shape = by_header(sample, "movielens", columns, user="userId", item="movieId", rating="rating", time="timestamp")
    if shape is not None or sample.separator not in ("\t", "::") or not all_match(sample, _PATTERNS, 4):
        return shape
    evidence = "user, movie, rating, seconds without a header"
    if sample.separator == "\t":
        return by_place(sample, "movielens", evidence, user="1", item="2", rating="3", time="4")
    file = sample.file
    assert file is not None
    meanings = {"user": "1", "item": "2", "rating": "3", "time": "4"}
    return Shape("movielens", evidence, meanings, lambda: split_lines(file, "::", 4))
