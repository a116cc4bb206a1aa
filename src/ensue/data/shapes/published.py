"""The class of published tables: declared by the names of their columns, or by what the fields of a row look like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ensue.data.lines import undecodable
from ensue.data.meanings import MEANINGS
from ensue.data.shape import NO_COLUMN, Sample, Shape, all_match, split_lines
from ensue.data.table import Table
from ensue.data.unpacking import TextFile

Change = Callable[[Table], Table]


@dataclass(frozen=True)
class Published:
    """A published table of events.

    Attributes:
        shape: the name of its shape; several tables can have the same.
        meanings: the columns of user, item, time and rating, separated by blanks; "-" for none. Without a header the
            columns are "1", "2" and so on.
        columns: the names, separated by blanks, that the header contains in any order; "" for a table without a header.
        note: how the table is read, as text for the report.
        change: a function that adds what the file itself lacks, such as a column of times.
        events: a function that turns all rows into events, if single rows do not suffice.
        fields: without a header: the pattern of the values of each field.
        separator: without a header: the separator, if only one is right.
        evidence: without a header: what the fields are, as text for the report.
        reading: settings for reading the file that differ from the usual ones.
        latin: whether files that are not UTF-8 are Latin-1.
    """

    shape: str
    meanings: str
    columns: str = ""
    note: str = ""
    change: Change | None = None
    events: Change | None = None
    fields: Sequence[str] = ()
    separator: str = ""
    evidence: str = ""
    reading: Mapping[str, Any] = field(default_factory=dict)
    latin: bool = False

    def recognise(self, sample: Sample) -> Shape | None:
        """The shape of a log that is such a table; None for another log."""
        if self.columns and not set(self.columns.split()) <= set(sample.header):
            return None
        if self.fields and not all_match(sample.split(self.separator or sample.separator), self.fields):
            return None
        evidence = f"columns {', '.join(self.columns.split())}" if self.columns else f"{self.evidence} without a header"
        if self.note:
            evidence += f"; {self.note}"
        named = [*self.meanings.split(), NO_COLUMN, NO_COLUMN]
        meanings = dict(zip(MEANINGS, named, strict=False))
        return Shape(self.shape, evidence, meanings, lambda: self._open(sample), self.events)

    def _open(self, sample: Sample) -> Table:
        if sample.rows is not None:
            table = Table(sample.rows, list(sample.schema), sample.where)
        else:
            table = self._open_text(replace(sample, reading=replace(sample.reading, **self.reading)))
        return table if self.change is None else self.change(table)

    def _open_text(self, sample: Sample) -> Table:
        file, reading = sample.file, sample.reading
        assert file is not None
        if self.latin and reading.encoding is None and undecodable(file):
            file = TextFile.at(file.path, "latin-1", reading.skip, reading.comment, reading.most, file.name)
        separator = self.separator or sample.separator
        if len(separator) > 1:
            return split_lines(file, separator, len(self.fields))
        return replace(sample, file=file).open(separator, header=bool(self.columns))
