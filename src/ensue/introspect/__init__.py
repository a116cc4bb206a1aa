"""Measurements of a trained transformer: its residual streams, its attention, and its intervals."""

from ensue.introspect.attention import AttentionReport, attention_report
from ensue.introspect.gains import GainReport, Gains, MixingReport, SublayerReport, gain_report
from ensue.introspect.intervals import TimeReport, time_report
from ensue.introspect.run import Example, Inspection, inspect_run

__all__ = [
    "AttentionReport",
    "Example",
    "GainReport",
    "Gains",
    "Inspection",
    "MixingReport",
    "SublayerReport",
    "TimeReport",
    "attention_report",
    "gain_report",
    "inspect_run",
    "time_report",
]
