"""Findings about ids: near-equal ones, and columns that mix numbers and texts."""

from __future__ import annotations

from collections.abc import Iterator
from unicodedata import normalize

import polars as pl

from ensue.data.store import SequenceStore
from ensue.doctor.findings import Finding

# A column is mixed if at least this share of its ids, but not all, are whole numbers.
MOSTLY = 0.9


def of_ids(store: SequenceStore) -> Iterator[Finding]:
    """Near-equal ids and mixed columns, for users and items."""
    columns = {"user": store.users.ids, "item": store.item_ids.ids}
    texts = {what: ids for what, ids in columns.items() if ids.dtype == pl.String}
    yield _near_equal(texts)
    yield _mixed(texts)


def _near_equal(texts: dict[str, pl.Series]) -> Finding:
    """Ids that differ only in case, blanks around them, leading zeros, or how accents are encoded (NFC, NFD)."""
    parts, count = [], 0
    for what, ids in texts.items():
        plain = ids.str.normalize("NFC").str.strip_chars().str.to_lowercase().str.replace(r"^0+(\d)", "${1}")
        groups = pl.DataFrame({"id": ids, "plain": plain}).group_by("plain", maintain_order=True).agg("id")
        groups = groups.filter(pl.col("id").list.len() > 1)
        if groups.height:
            share_form = int(groups["id"].list.len().sum())
            count += share_form
            one, other = map(_shown, groups["id"][0].to_list()[:2])
            parts.append(f"{share_form:,} {what} ids (such as {one} and {other})")
    return _finding(
        "near-equal-ids",
        texts,
        count,
        f"{' and '.join(parts) or 'No ids'} differ from another id only in case, blanks, leading zeros or the encoding "
        "of accents.",
        "If they mean the same user or item, unify them in the source: ids are kept as written.",
    )


def _shown(text: str) -> str:
    """An id in quotes; combining characters as escapes, since they look like those of the composed form."""
    return repr(text) if text == normalize("NFC", text) else ascii(text)


def _mixed(texts: dict[str, pl.Series]) -> Finding:
    """Columns of whole numbers with a few texts among them."""
    parts, count = [], 0
    for what, ids in texts.items():
        others = ids.filter(~ids.str.contains(r"^\d+$"))
        if 0 < len(others) <= (1 - MOSTLY) * len(ids):
            count += len(others)
            parts.append(f"{len(others):,} of {len(ids):,} {what} ids are texts among numbers (such as {others[0]!r})")
    return _finding(
        "mixed-ids",
        texts,
        count,
        f"{'; '.join(parts) or 'No column mixes numbers and texts'}.",
        "Look at these rows in the source: a header, a title or a shifted column may have been read as an id.",
    )


def _finding(name: str, texts: dict[str, pl.Series], count: int, text: str, advice: str) -> Finding:
    """A warning about some of the ids, with their share; or that there are none."""
    share = count / max(sum(map(len, texts.values())), 1)
    return Finding(name, "warn" if count else "ok", share, text, advice if count else "")
