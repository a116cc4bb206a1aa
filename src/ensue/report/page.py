"""The report as one HTML file: no script, no address, no file beside it; its content policy forbids all three."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from pathlib import Path

from ensue import __version__
from ensue.report.breakdown import Estimate
from ensue.report.charts import COLOURS, Line, bar, line_chart
from ensue.report.collect import Curve, Report, Row
from ensue.report.cost import Cost
from ensue.report.missed import Item, Missed
from ensue.terminal.output import clean, duration

# Also how `ensue report` recognises a file that it may replace.
MARK = '<meta name="generator" content="ensue report">'
SECTIONS = {
    "results": "Results",
    "breakdown": "Breakdown",
    "drift": "Over time",
    "learning": "Training",
    "missed": "Missed",
    "cost": "Cost",
}


def page(report: Report) -> str:
    """The HTML of a report."""
    here = Path(__file__)
    style = (here.parents[1] / "palette.css").read_text() + here.with_name("report.css").read_text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    parts = {
        "results": _results(report),
        "breakdown": _breakdown(report),
        "drift": _drift(report),
        "learning": _learning(report),
        "missed": _missed(report),
        "cost": _cost(report),
    }
    shown = {key: body for key, body in parts.items() if body}
    links = "".join(f'<a href="#{key}">{SECTIONS[key]}</a>' for key in shown)
    sections = "".join(
        f'<section id="{key}" aria-labelledby="h-{key}"><h2 id="h-{key}">{SECTIONS[key]}</h2>{body}</section>'
        for key, body in shown.items()
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{MARK}\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'\">\n"
        f"<title>{text(', '.join(report.names))}: ensue report</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f'<header><h1>{_joined(report.names)}</h1><p class="quiet">{text(report.about)}</p></header>\n'
        f'<nav aria-label="Sections">{links}</nav>\n<main>{sections}</main>\n'
        f'<footer><p class="quiet">ensue {text(__version__)}</p></footer>\n</body>\n</html>\n'
    )


def text(value: object) -> str:
    """Any value as HTML: escaped, without characters that do not print."""
    return escape(clean(str(value)).replace("\n", " "))


def _name(value: object) -> str:
    """A name from the data, whose direction of writing must not reorder the text around it."""
    return f"<bdi>{text(value)}</bdi>"


def _joined(names: Sequence[str]) -> str:
    return ", ".join(_name(name) for name in names)


def _table(heads: Sequence[str], rows: Sequence[str], label: str) -> str:
    """A table that scrolls by itself on a narrow screen, also with the keyboard. Heads and rows are HTML."""
    head = "".join(f'<th scope="col"{" class=number" if place else ""}>{each}</th>' for place, each in enumerate(heads))
    return (
        f'<div class="table" role="region" tabindex="0" aria-label="{text(label)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(head: str, cells: Sequence[str]) -> str:
    return f'<tr><th scope="row">{head}</th>{"".join(f"<td class=number>{cell}</td>" for cell in cells)}</tr>'


def _interval(each: Estimate) -> str:
    return "one user" if each.low is None or each.high is None else f"[{each.low:.4f}, {each.high:.4f}]"


def _value(each: Estimate) -> str:
    return f"{each.mean:.4f}<small>{_interval(each)}</small>"


def _legend(names: Sequence[str]) -> str:
    if len(names) < 2:
        return ""
    marks = [
        f'<li><svg viewBox="0 0 4 4" aria-hidden="true"><rect class="c{place % COLOURS}" width="4" height="4"/></svg>'
        f"{_name(name)}</li>"
        for place, name in enumerate(names)
    ]
    return f'<ul class="legend">{"".join(marks)}</ul>'


def _results(report: Report) -> str:
    said = "".join(f'<p class="conclusion">{text(line)}</p>' for line in report.conclusion)
    heads = ["metric", *(f"{_name(n)}<br>{text(m)}" for n, m in zip(report.names, report.models, strict=True))]
    rows = [_row(text(name), [_value(each) for each in estimates]) for name, estimates in report.results.items()]
    return f'{said}{_table(heads, rows, "Metrics")}<p class="quiet">Brackets: 95 % bootstrap interval over users.</p>'


def _slices(report: Report, rows: Sequence[Row], label: str) -> str:
    """One row for each slice: its cases, and the main metric of every run with a bar."""
    most = max((each.mean for row in rows for each in row.estimates), default=0.0) or 1.0
    total = sum(row.cases for row in rows)
    heads = ["", "cases", *(_name(name) for name in report.names)]
    html = [
        _row(
            _name(row.name),
            [
                f"{row.cases:,}<small>{row.cases / total:.1%}</small>",
                *(f"{_value(each)}{bar(each.mean / most, place)}" for place, each in enumerate(row.estimates)),
            ],
        )
        for row in rows
    ]
    return _table(heads, html, label)


def _breakdown(report: Report) -> str:
    parts = [
        f'<h3>{text(each.title)}</h3><p class="quiet">{text(each.note)}</p>{_slices(report, rows, each.title)}'
        for each, rows in report.parts
    ]
    return f"<p>{text(report.chief)} of parts of the cases.</p>{_legend(report.names)}{''.join(parts)}"


def _drift(report: Report) -> str:
    if len(report.drift) < 2:
        return ""
    count = len(report.drift)
    lines = []
    for place in range(len(report.names)):
        own = [row.estimates[place] for _, row in report.drift]
        low = [each.mean if each.low is None else each.low for each in own]
        high = [each.mean if each.high is None else each.high for each in own]
        lines.append(Line(list(range(count)), [each.mean for each in own], low, high))
    ticks = [(place, report.drift[place][0]) for place in sorted({0, (count - 1) // 2, count - 1})]
    chart = line_chart(lines, f"{report.chief} over the time of the targets; the values are in the table below", ticks)
    return (
        f"<p>{text(report.chief)} by the time of the target, in {count} periods of about equal numbers of cases; the "
        f"band is the 95 % interval.</p>{_legend(report.names)}<figure>{chart}</figure>"
        f'<details><summary>The values</summary><div class="inside">'
        f"{_slices(report, [row for _, row in report.drift], 'Periods')}</div></details>"
    )


def _learning(report: Report) -> str:
    if not report.curves:
        return ""
    own: dict[str, Curve] = {curve.name: curve for curve in report.curves}
    empty = Curve("", [], [], "", [])
    curves = [own.get(name, empty) for name in report.names]
    charts = [("Training loss", _by_epoch([Line(c.epochs, c.loss) for c in curves], "Training loss by epoch"))]
    for metric in dict.fromkeys(curve.metric for curve in report.curves if curve.metric):
        lines = [Line(*zip(*c.values, strict=True)) if c.metric == metric else Line([], []) for c in curves]
        charts.append((metric.capitalize(), _by_epoch(lines, f"{metric} by epoch")))
    best = [
        f"<li>{_name(c.name)}: best {text(c.metric)} {max(v for _, v in c.values):.4f} at epoch "
        f"{max(c.values, key=lambda pair: (pair[1], -pair[0]))[0]} of {c.epochs[-1]}</li>"
        for c in report.curves
        if c.values
    ]
    figures = "".join(f"<figure><figcaption>{text(title)}</figcaption>{chart}</figure>" for title, chart in charts)
    return f"{_legend(report.names)}{figures}<ul>{''.join(best)}</ul>"


def _by_epoch(lines: Sequence[Line], label: str) -> str:
    epochs = [epoch for line in lines for epoch in line.x]
    first, last = min(epochs), max(epochs)
    ticks = [(first, f"epoch {first:g}"), *([(last, f"{last:g}")] if last > first else [])]
    return line_chart(lines, label, ticks)


def _missed(report: Report) -> str:
    if not report.missed:
        return ""
    cards = [_case(report, each, ranks) for each, ranks in zip(report.missed, report.others, strict=True)]
    return (
        f"<p>Users of {_name(report.names[0])} whose target had the lowest ranks: what was shown, what came, and why "
        f"it was not shown. At most a fifth of them have a target without training events.</p>{''.join(cards)}"
    )


def _case(report: Report, each: Missed, ranks: Sequence[float]) -> str:
    older = (
        f'<p class="quiet">{each.length - len(each.history):,} older events</p>'
        if each.length > len(each.history)
        else ""
    )
    others = [f"{_name(name)} ranks it {rank:,.4g}" for name, rank in zip(report.names[1:], ranks, strict=True)]
    why = [*(text(line) for line in each.why), *([f"{'; '.join(others)}."] if others else [])]
    pair = (
        f"<div><h3>History, oldest first</h3>{older}{_items(each.history)}</div>"
        f"<div><h3>Shown instead</h3>{_items(each.shown)}</div>"
    )
    return (
        f"<details><summary>User {_name(each.user)}: {_item(each.target)} <small>· rank {each.rank:,.4g}</small>"
        f'</summary><div class="inside"><p class="why">{" ".join(why)}</p><div class="pair">{pair}</div></div>'
        "</details>"
    )


def _items(items: Sequence[Item]) -> str:
    return f"<ol>{''.join(f'<li>{_item(each)}</li>' for each in items)}</ol>"


def _item(each: Item) -> str:
    return _name(each.item) if each.title is None else f"{_name(each.title)} <small>{_name(each.item)}</small>"


def _cost(report: Report) -> str:
    heads = ["", *(_name(name) for name in report.names)]
    lines: dict[str, list[str]] = {
        "training": [_training(each) for each in report.costs],
        "request of one user, p50": [f"{each.request_ms['p50']:.1f} ms" for each in report.costs],
        "request of one user, p99": [f"{each.request_ms['p99']:.1f} ms" for each in report.costs],
        "users per second, in batches": [f"{each.users_per_second:,.0f}" for each in report.costs],
        "peak memory of the requests": [f"{each.peak_bytes / 2**20:,.0f} MiB" for each in report.costs],
        "parameters": [f"{each.parameters:,}" for each in report.costs],
        "weights on disk": [f"{each.disk_bytes / 2**10:,.0f} KiB" for each in report.costs],
        "energy per user, in batches": [
            "not measured" if each.joules_per_user is None else f"{1000 * each.joules_per_user:.3g} mJ"
            for each in report.costs
        ],
    }
    rows = [_row(text(name), [text(cell) for cell in cells]) for name, cells in lines.items()]
    return (
        f"{_table(heads, rows, 'Cost')}"
        '<p class="quiet">Requests were measured on this machine when the report was written. Energy is that of the '
        "processors, where the machine has counters (RAPL) that this user may read.</p>"
    )


def _training(each: Cost) -> str:
    return "counted" if each.train_seconds is None else f"{duration(each.train_seconds)} ({each.epochs} epochs)"
