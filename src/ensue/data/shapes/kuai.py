"""KuaiRec (big_matrix.csv, small_matrix.csv), KuaiRand logs and KuaiSAR.

KuaiRec's `timestamp` is seconds with a fraction, and missing in some rows of the small matrix. KuaiRand's `time_ms` is
milliseconds. Every video that was shown counts as an event.
"""

from __future__ import annotations

from ensue.data.shape import SHAPES, Sample, Shape, by_header


@SHAPES.register("kuai")
def recognise(sample: Sample) -> Shape | None:
    """The header of one of the logs."""
    return by_header(
        sample,
        "kuai",
        "user_id video_id play_duration video_duration timestamp watch_ratio",
        time="timestamp",
        user="user_id",
        item="video_id",
    ) or by_header(
        sample, "kuai", "user_id video_id date hourmin time_ms", time="time_ms", user="user_id", item="video_id"
    )
