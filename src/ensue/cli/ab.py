"""`ensue ab report`: the result of an experiment from the log of events."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from ensue.errors import ConfigError
from ensue.terminal.output import Screen, table


def run(
    screen: Screen,
    events: Annotated[
        str, typer.Option("--events", metavar="ADDRESS", help="The log of events of ensue serve.")
    ] = "sqlite:///ensue-events.db",
    experiment: Annotated[str, typer.Option("--experiment", help="Name of the experiment.")] = "default",
    window: Annotated[
        float, typer.Option("--window-days", help="Days after a user's first list in which events count.", min=0)
    ] = 7.0,
) -> dict[str, Any]:
    """Compare the variants of an experiment: the share of users who did something with a shown item."""
    try:
        from ensue.serving.events import open_log
        from ensue.serving.report import report
    except ModuleNotFoundError as error:
        raise ConfigError(f"ensue ab needs {error.name}: pip install 'ensue[serve]'") from None
    log = open_log(events)
    result = report(log, experiment, window)
    log.close()
    rows = [
        (
            arm.variant,
            f"{arm.share:.0%}",
            f"{arm.users:,}",
            f"{arm.successes:,}",
            f"{arm.rate:.2%} [{arm.low:.2%}, {arm.high:.2%}]",
        )
        for arm in result.arms
    ]
    title = f"Experiment {experiment}: users who did something with a shown item within {window:g} days"
    columns = ("variant", "share", "users", "successes", "rate [95 % interval]")
    screen.show(table(columns, rows, title=title, right=columns[1:]))
    screen.say(f"sample ratio: p = {result.mismatch_p:.3g}")
    screen.say(result.sentence, "bold")
    return asdict(result)
