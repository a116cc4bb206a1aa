"""Findings about a log as it is written: rows that cannot be used, the order of rows, notes of the reader.

Suffix: `E` events.
"""

from __future__ import annotations

from collections.abc import Iterator

from ensue.data.behaviours import Behaviours
from ensue.data.interactions import Interactions, in_words
from ensue.doctor.findings import Finding, graded

# Low ratings are reported from this share on.
LOW_RATINGS = 0.05


def of_rows(log: Interactions) -> Iterator[Finding]:
    """Findings that need the log as it is written, not only its store."""
    dropped = sum(log.dropped.values())
    share = dropped / max(log.rows_in, 1)
    reasons = in_words(log.dropped, log.examples)
    yield Finding(
        "rows",
        graded(share, 0.0, 0.05),
        share,
        f"{dropped:,} of {log.rows_in:,} rows cannot be used" + (f": {reasons}." if reasons else "."),
        "Look at these rows in the source; a wrong column or format is the usual cause." if dropped else "",
    )
    if "time" not in log.columns:
        return
    by_user = log.frame.select("user", "time").sort("user", maintain_order=True)
    user_E, time_E = by_user["user"].to_numpy(), by_user["time"].to_numpy()
    # Times are compared, not subtracted: differences in a malformed log may not fit an int64.
    back = (time_E[1:] < time_E[:-1])[user_E[1:] == user_E[:-1]]
    share = float(back.mean()) if back.size else 0.0
    yield Finding(
        "row-order",
        "warn" if share > 0 else "ok",
        share,
        f"{share:.1%} of the steps from one row of a user to the next go back in time.",
        "Prepared data is sorted, so nothing needs to be done; tools that rely on the row order would be wrong."
        if share > 0
        else "",
    )


def of_behaviours(kinds: Behaviours | None) -> Finding:
    """Kinds of events, such as views and purchases, that are all read as the same kind."""
    if kinds is None:
        return Finding("behaviours", "ok", None, "No column gives the kind of each event.")
    shown = ", ".join(kinds.kinds[:6])
    return Finding(
        "behaviours",
        "warn",
        len(kinds.kinds),
        f"Column {kinds.column!r} has {len(kinds.kinds)} kinds of events ({shown}), all read in the same way.",
        f"Keep one kind with where = {kinds.where(kinds.kinds[0])!r}, or the column with features.",
    )


def usual_minimum(log: Interactions) -> float | None:
    """The rating below which events may mean dislike: three fifths of 5, 10 or 100; None if few are lower."""
    if "rating" not in log.frame.columns:
        return None
    ratings = log.frame["rating"].drop_nulls().drop_nans()
    high = ratings.max()
    if high not in (5.0, 10.0, 100.0):
        return None
    least = 0.6 * float(high)  # type: ignore[arg-type]
    return least if float((ratings < least).mean() or 0.0) > LOW_RATINGS else None  # type: ignore[arg-type]


def of_ratings(log: Interactions) -> Finding:
    """Low ratings, which may mean dislike."""
    least = usual_minimum(log)
    if least is None:
        return Finding("ratings", "ok", None, "No ratings, or few low ones.")
    share = float((log.frame["rating"] < least).mean() or 0.0)  # type: ignore[arg-type]
    return Finding(
        "ratings",
        "ok",
        share,
        f"{share:.1%} of the ratings are below {least:g}; these events are read like the others.",
        f"If they mean dislike, keep the others with min_rating = {least:g}.",
    )


def of_notes(notes: tuple[str, ...]) -> Finding:
    """The notes from reading and preparing the log."""
    return Finding(
        "reading",
        "warn" if notes else "ok",
        len(notes),
        "; ".join(notes) + "." if notes else "The log was read without notes.",
        "Check these against the source." if notes else "",
    )
