"""`ensue inspect`: measure the residual streams and the attention of a trained transformer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensue.cli.hints import recommend_to_user
from ensue.cli.recommend import RunFolder
from ensue.cli.sources import data_of_run
from ensue.terminal.output import Screen, table

if TYPE_CHECKING:
    from rich.table import Table

    from ensue.introspect import AttentionReport, GainReport, Gains, Inspection, SublayerReport, TimeReport

REPORT = "inspect.json"
BANDS = 8
# Attention on padding below this value is a rounding error.
LEAST = 1e-5
SECONDS = ((31_536_000, "yr"), (2_592_000, "mo"), (86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def run(
    screen: Screen,
    folder: RunFolder,
    data: Annotated[list[str] | None, typer.Option("--data", help="Store or log; by default the run's own.")] = None,
    users: Annotated[int, typer.Option("--users", help="Number of users to sample.", min=1)] = 256,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the sample of users.", min=0)] = 0,
) -> dict[str, Any]:
    """Measure the residual streams, attention and intervals of a transformer; write RUN/inspect."""
    from ensue.files import write_json
    from ensue.introspect import inspect_run
    from ensue.introspect.transformer import transformer_of
    from ensue.plots import draw_inspection
    from ensue.runs.load import load_run

    loaded = load_run(folder)
    # Checked before the data is read: a model without a trunk is refused for any data.
    transformer_of(loaded.model)
    store = data_of_run(folder, loaded, data, screen)
    inspection = inspect_run(loaded, store, users, seed)
    out = folder / "inspect"
    payload = inspection.payload()
    write_json(out / REPORT, payload)
    paths = draw_inspection(inspection, out)
    screen.say(
        f"{inspection.model}, residual {inspection.residual}, {inspection.histories:,} histories, "
        f"{inspection.gains.events:,} events"
    )
    for each in tables(inspection):
        screen.show(each)
    screen.say(f"written: {out / REPORT}, {', '.join(path.name for path in paths if path.suffix == '.png')}, and SVG")
    screen.next(*recommend_to_user(folder, loaded.config.model, store, data, inspection.example.user))
    return {"run": str(folder), **payload, "files": [str(path) for path in (out / REPORT, *paths)]}


def tables(inspection: Inspection) -> list[Table]:
    """Return the measurements as tables."""
    gains, time = inspection.gains, inspection.time
    return [
        _streams(gains),
        *([] if gains.composite is None else [_gains(gains)]),
        _ages(inspection.attention),
        *([] if time is None else [_intervals(time)]),
    ]


def _streams(report: GainReport) -> Table:
    sublayers = report.sublayers
    gated = sublayers[0].gate is not None
    mixed = sublayers[0].mixing is not None
    extra = ["mean gate"] * gated + ["similarity", "reads (H_pre)", "writes (H_post)"] * mixed
    rows = [_stream_row(entry) for entry in sublayers]
    rows.append(["end", "", f"{report.final_norm:.3g}", *[""] * (len(extra) + 1)])
    columns = ["block", "sublayer", "stream", "adds", *extra]
    return table(columns, rows, "residual stream: norms, means over events", columns[2:])


def _stream_row(entry: SublayerReport) -> list[object]:
    row: list[object] = [entry.block, entry.part, f"{entry.stream_norm:.3g}", f"{entry.output_norm:.3g}"]
    if entry.gate is not None:
        row.append(f"{entry.gate:.3f}")
    if entry.mixing is not None:
        row.append(f"{entry.mixing.similarity:.4f}")
        row += [_weights(h) for h in (entry.mixing.h_pre, entry.mixing.h_post)]
    return row


def _weights(h: list[float]) -> str:
    # Adding zero removes the sign of what rounds to zero.
    return " ".join(f"{round(weight, 2) + 0.0:.2f}" for weight in h)


def _gains(report: GainReport) -> Table:
    columns = ("block", "sublayer", "off-diagonal", "forward", "backward", "composite forward", "composite backward")
    rows = [
        (
            entry.block,
            entry.part,
            f"{entry.mixing.off_diagonal:.3f}",
            *_mean_and_largest(entry.mixing.gain),
            *_mean_and_largest(entry.mixing.composite),
        )
        for entry in report.sublayers
        if entry.mixing is not None
    ]
    return table(columns, rows, "H_res: gain, mean over events (largest)", columns[2:])


def _mean_and_largest(gains: Gains) -> tuple[str, str]:
    pairs = ((gains.forward, gains.forward_max), (gains.backward, gains.backward_max))
    first, second = (f"{mean:.3f} ({most:.3f})" if most < 1e4 else f"{mean:.2e} ({most:.2e})" for mean, most in pairs)
    return first, second


def _ages(report: AttentionReport) -> Table:
    padding = ["padding"] * (_padding(report.uniform) > LEAST)
    columns = ("block", "head", "newest", "2nd-10th", "11th-100th", "older", *padding, "mean age")
    rows: list[tuple[object, ...]] = [
        (block, head, *_spans(share, bool(padding)))
        for block, heads in enumerate(report.share, start=1)
        for head, share in enumerate(heads, start=1)
    ]
    rows.append(("uniform attention", "", *_spans(report.uniform, bool(padding))))
    return table(columns, rows, "attention of the newest event, by age of the key", columns[2:])


def _spans(share: list[float], padding: bool) -> tuple[str, ...]:
    """The attention by age, the attention on padding if the model has any, and the mean age of the attended events."""
    sums = [share[0], sum(share[1:10]), sum(share[10:100]), sum(share[100:]), *[_padding(share)] * padding]
    age = sum(age * part for age, part in enumerate(share)) / (sum(share) or 1.0)
    return (*(f"{part:.1%}" for part in sums), f"{age:.1f}")


def _padding(share: list[float]) -> float:
    """The attention on padding, for models that attend to it (`sasrec-padded`): the rest beyond that on events."""
    return max(0.0, 1 - sum(share))


def _intervals(report: TimeReport) -> Table:
    """A table of intervals, with buckets pooled into a few bands of about equally many events."""
    columns = ("interval from", "uniform attention", *(f"block {n}" for n in range(1, len(report.share) + 1)), "logit")
    rows = []
    for first, last in _bands(report.uniform):
        uniform = sum(report.uniform[first:last])
        shares = [sum(sum(head[first:last]) for head in heads) / len(heads) for heads in report.share]
        terms = [
            sum(weight * value for weight, value in zip(report.uniform[first:last], head[first:last], strict=True))
            for heads in report.term
            for head in heads
        ]
        logit = sum(terms) / len(terms) / uniform
        start = span(report.edges[first], report.unit)
        rows.append((start, f"{uniform:.1%}", *(f"{share:.1%}" for share in shares), f"{logit:+.3f}"))
    if (uniform := _padding(report.uniform)) > LEAST:
        shares = [sum(_padding(head) for head in heads) / len(heads) for heads in report.share]
        rows.append(("padding", f"{uniform:.1%}", *(f"{share:.1%}" for share in shares), ""))
    title = "attention by interval to the newest event, mean over heads; logit: mean term of the interval"
    return table(columns, rows, title, columns[1:])


def _bands(uniform: list[float]) -> list[tuple[int, int]]:
    """Runs of buckets, (first, end), each with about 1 / BANDS of the events; none without events."""
    bands, first, total, enough = [], 0, 0.0, sum(uniform) / BANDS
    for bucket, share in enumerate(uniform):
        if not total and not share:
            first = bucket + 1
            continue
        if total and share >= enough:
            bands.append((first, bucket))
            first, total = bucket, 0.0
        total += share
        if total >= enough:
            bands.append((first, bucket + 1))
            first, total = bucket + 1, 0.0
    if total:
        bands.append((first, len(uniform)))
    return bands


def span(amount: float, unit: str) -> str:
    """Write an interval with a readable unit.

    >>> span(7200.0, "seconds"), span(3.0, "events")
    ('2 h', '3 events')
    """
    if unit != "seconds":
        return f"{amount:.4g} {unit}"
    size, name = next(((size, name) for size, name in SECONDS if amount >= size), SECONDS[-1])
    return f"{amount / size:.3g} {name}"
