"""A check-up of a log before training: unusual properties, how common they are, and what to do about them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ensue.data.behaviours import Behaviours
from ensue.data.interactions import Interactions
from ensue.data.prepare import prepare
from ensue.data.split import SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.doctor.events import MAX_SUGGESTED, maxlen_for, of_events, of_sizes
from ensue.doctor.findings import LEVELS, Finding, Level
from ensue.doctor.ids import of_ids
from ensue.doctor.order import compare_with_shuffled, of_order
from ensue.doctor.parts import of_split
from ensue.doctor.rows import of_behaviours, of_notes, of_ratings, of_rows
from ensue.doctor.times import of_times
from ensue.errors import DataError
from ensue.evaluation.significance import Comparison


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """All findings of a check-up.

    Attributes:
        findings: in the order of the check.
        suggested_maxlen: sequence length that keeps 95% of the events, but at most 200.
        order: the test of order (real against shuffled histories); None if there are too few cases.
    """

    findings: tuple[Finding, ...]
    suggested_maxlen: int
    order: Comparison | None

    @property
    def level(self) -> Level:
        """The worst level of all findings."""
        return max((finding.level for finding in self.findings), key=LEVELS.index)

    def __getitem__(self, name: str) -> Finding:
        return {finding.name: finding for finding in self.findings}[name]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "level": self.level,
            "suggested_maxlen": self.suggested_maxlen,
            "order": None if self.order is None else self.order.as_dict(),
            "findings": [asdict(finding) for finding in self.findings],
        }


def check(
    source: SequenceStore | Interactions,
    split_config: SplitConfig | None = None,
    kinds: Behaviours | None = None,
) -> DoctorReport:
    """Examine a log or a prepared store.

    Args:
        source: a store, or a log as it was read; for a log, its rows and their order are examined too.
        split_config: the split whose leakage and cold items are measured; leave-one-out by default.
        kinds: for a log, the column with the kind of each event.

    Raises:
        DataError: the source has no events, or lacks what the split needs, such as times.
    """
    findings: list[Finding] = []
    log = None
    if isinstance(source, Interactions):
        log = source
        store, report = prepare(source)
        findings += [*of_rows(source), of_notes(report.notes), of_behaviours(kinds), of_ratings(source)]
    else:
        store = source
    if not store.num_events:
        raise DataError("the store has no events")
    split = make_split(store, split_config or SplitConfig())
    findings += [*of_ids(store), *of_events(store, log), *of_times(store), *of_sizes(store), *of_split(store, split)]
    maxlen = min(maxlen_for(store.lengths, 0.95), MAX_SUGGESTED)
    order = compare_with_shuffled(split)
    findings.append(of_order(order))
    return DoctorReport(tuple(findings), maxlen, order)
