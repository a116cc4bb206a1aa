"""Findings about ids: near-equal ones, and columns that mix numbers and texts."""

from __future__ import annotations

from collections.abc import Iterator

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
    """Ids that differ only in case, blanks around them, or leading zeros."""
    parts, count, total = [], 0, 0
    for what, ids in texts.items():
        plain = ids.str.strip_chars().str.to_lowercase().str.replace(r"^0+(\d)", "${1}")
        groups = pl.DataFrame({"id": ids, "plain": plain}).group_by("plain", maintain_order=True).agg("id")
        groups = groups.filter(pl.col("id").list.len() > 1)
        total += len(ids)
        if groups.height:
            share_form = int(groups["id"].list.len().sum())
            count += share_form
            one, other = groups["id"][0].to_list()[:2]
            parts.append(f"{share_form:,} {what} ids (such as {one!r} and {other!r})")
    return Finding(
        "near-equal-ids",
        "warn" if count else "ok",
        count / max(total, 1),
        f"{' and '.join(parts) or 'No ids'} differ from another id only in case, blanks or leading zeros.",
        "If they mean the same user or item, unify them in the source: ids are kept as written." if count else "",
    )


def _mixed(texts: dict[str, pl.Series]) -> Finding:
    """Columns of whole numbers with a few texts among them."""
    parts, count, total = [], 0, 0
    for what, ids in texts.items():
        is_number = ids.str.contains(r"^\d+$")
        others = ids.filter(~is_number)
        total += len(ids)
        if 0 < len(others) <= (1 - MOSTLY) * len(ids):
            count += len(others)
            parts.append(f"{len(others):,} of {len(ids):,} {what} ids are texts among numbers (such as {others[0]!r})")
    return Finding(
        "mixed-ids",
        "warn" if count else "ok",
        count / max(total, 1),
        f"{'; '.join(parts) or 'No column mixes numbers and texts'}.",
        "Look at these rows in the source: a header, a title or a shifted column may have been read as an id."
        if count
        else "",
    )
