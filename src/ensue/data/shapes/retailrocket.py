"""RetailRocket events.csv: `timestamp,visitorid,event,itemid,transactionid`, times in milliseconds."""

from __future__ import annotations

from ensue.data.shape import SHAPES, Sample, Shape, by_header


@SHAPES.register("retailrocket")
def recognise(sample: Sample) -> Shape | None:
    """The header of the events."""
    columns = "timestamp visitorid event itemid transactionid"
    return by_header(sample, "retailrocket", columns, user="visitorid", item="itemid", time="timestamp")
