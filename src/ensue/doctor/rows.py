"""What a check-up finds in a log as it is written: rows that cannot be used, their order, notes of the reader."""

from __future__ import annotations

from collections.abc import Iterator

from ensue.data.interactions import Interactions, in_words
from ensue.doctor.findings import Finding, graded


def of_rows(log: Interactions) -> Iterator[Finding]:
    """What only the log as written can tell."""
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
    # Compared, not subtracted: the steps of an odd log may be too large for an int64.
    back = (time_E[1:] < time_E[:-1])[user_E[1:] == user_E[:-1]]
    share = float(back.mean()) if back.size else 0.0
    yield Finding(
        "row-order",
        "warn" if share > 0 else "ok",
        share,
        f"{share:.1%} of the steps from one row of a user to the next go back in time.",
        "Nothing to do for prepared data, which is sorted; tools that trust the row order would be wrong."
        if share > 0
        else "",
    )


def of_notes(notes: tuple[str, ...]) -> Finding:
    """What reading and preparing the log noticed."""
    return Finding(
        "reading",
        "warn" if notes else "ok",
        len(notes),
        "; ".join(notes) + "." if notes else "Nothing is odd about how the log was read.",
        "Check these against the source." if notes else "",
    )
