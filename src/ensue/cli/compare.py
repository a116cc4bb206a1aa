"""`ensue compare`: test whether evaluated runs differ, and whether one may replace another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ensue.cli.hints import recommend_after_item
from ensue.errors import ConfigError, counted
from ensue.terminal.output import Screen, table

if TYPE_CHECKING:
    from rich.table import Table

    from ensue.evaluation.conclusion import Adjusted
    from ensue.evaluation.contrast import Contrast
    from ensue.evaluation.gate import GateResult
    from ensue.runs.evaluated import SeedGroup

# Exit status if a gate is not passed; 1 and 2 are errors.
NOT_PASSED = 3
HEADS = ("metric", "a", "b", "a - b [95%]", "d", "t", "Wilcoxon", "perm.", "Holm", "BH")


Folders = Annotated[
    list[Path],
    typer.Argument(metavar="RUN...", help="Evaluated run folders: the first is compared with each other one."),
]
Gates = Annotated[
    list[str] | None,
    typer.Option(
        "--gate",
        metavar="RULE",
        help="What the first must satisfy against each other one, such as 'ndcg@10 > -0.5%', 'ndcg@10 within 1%' or "
        f"'rank < 0'; if it does not, the exit status is {NOT_PASSED}. Repeatable.",
    ),
]


def run(
    screen: Screen,
    folders: Folders,
    part: Annotated[Literal["test", "validation"], typer.Option("--part", help="Which held-out events.")] = "test",
    protocol: Annotated[str, typer.Option("--protocol", help="Which of the evaluations.")] = "full",
    test: Annotated[
        Literal["t", "wilcoxon", "permutation"], typer.Option("--test", help="The test that decides.")
    ] = "t",
    gate: Gates = None,
) -> dict[str, Any]:
    """Compare the first run with each of the others, user by user: difference, interval, tests and a sentence.

    Runs that differ only in the seed are one model, whose seeds are a second level of sampling.
    """
    from ensue.evaluation.conclusion import adjust, sentence
    from ensue.evaluation.gate import judge, parse_gate

    gates = [parse_gate(rule) for rule in gate or ()]
    first, *others = groups = _groups(folders, part, protocol)
    contrasts = {(str(first), str(other)): _contrasts(first, other, groups) for other in others}
    adjusted = adjust(contrasts, test)
    cases = first.runs[0].table
    results = [(pair[1], judge(rule, metrics)) for pair, metrics in contrasts.items() for rule in gates]
    about = f"{part} part, {protocol}, {cases.height:,} cases"
    comparisons = [
        _shown(screen, (first, other), metrics, adjusted[pair], about)
        for other, (pair, metrics) in zip(others, contrasts.items(), strict=True)
    ]
    conclusion = [sentence(*pair, metrics, adjusted[pair], test) for pair, metrics in contrasts.items()]
    tests = sum(map(len, contrasts.values()))
    screen.say(
        "d: mean difference / its standard deviation (Cohen's d); t, Wilcoxon, perm.: p-values; Holm, BH "
        f"(Benjamini-Hochberg): p of {test} adjusted for {counted(tests, 'test')}",
        "dim",
    )
    for line in conclusion:
        screen.say(line, "bold")
    _say_seeds(screen, groups)
    for name, result in results:
        _say_gate(screen, name, result)
    passed = all(result.passed for _, result in results)
    screen.status = 0 if passed else NOT_PASSED
    screen.next(*recommend_after_item(folders[0], first.runs[0].config.model, cases["target"][0]))
    return {
        "part": part,
        "protocol": protocol,
        "test": test,
        "cases": cases.height,
        "models": [
            {"name": str(each), "runs": [str(run.folder) for run in each.runs], "seeds": each.seeds} for each in groups
        ],
        "comparisons": comparisons,
        "gates": [{"b": name, **result.as_dict()} for name, result in results],
        "passed": passed if gates else None,
        "conclusion": " ".join(conclusion),
    }


def _groups(folders: Sequence[Path], part: str, protocol: str) -> list[SeedGroup]:
    """The models to compare, the first with each of the others.

    Raises:
        ConfigError: there are fewer than two, or a model occurs twice among the others.
        DataError: the evaluations cannot be compared.
    """
    from ensue.runs.evaluated import group_by_seed, read_evaluated

    if len(folders) < 2:
        raise ConfigError(f"compare needs 2 or more run folders (got {len(folders)})")
    groups = group_by_seed([read_evaluated(folder, part, protocol) for folder in folders])
    names = [str(group) for group in groups[1:]]
    if len(set(names)) < len(names):
        raise ConfigError(f"name each run to compare with once (got {', '.join(names)})")
    return groups


def _contrasts(a: SeedGroup, b: SeedGroup, groups: Sequence[SeedGroup]) -> dict[str, Contrast]:
    """The comparisons of two models, of each metric that all models have."""
    from ensue.evaluation.contrast import contrast
    from ensue.runs.evaluated import check_comparable

    names = check_comparable([run for group in groups for run in group.runs])
    return {name: contrast(a.by_user(name), b.by_user(name), b.is_repeat_of(a)) for name in names}


def _table(metrics: dict[str, Contrast], adjusted: dict[str, Adjusted], title: str) -> Table:
    """One row per metric."""
    rows = []
    for name, each in metrics.items():
        effect = f"{each.effect.estimate:+.4f} [{each.effect.low:+.4f}, {each.effect.high:+.4f}]"
        p = (*each.p.values(), adjusted[name].holm, adjusted[name].bh)
        rows.append((name, f"{each.mean_a:.4f}", f"{each.mean_b:.4f}", effect, f"{each.effect_size:+.2f}", *map(_p, p)))
    return table(HEADS, rows, title=title, right=HEADS[1:])


def _p(value: float) -> str:
    return f"{value:.1e}" if value < 0.001 else f"{value:.3f}"


def _shown(
    screen: Screen,
    pair: tuple[SeedGroup, SeedGroup],
    metrics: dict[str, Contrast],
    adjusted: dict[str, Adjusted],
    about: str,
) -> dict[str, Any]:
    """Show a comparison, and return it as JSON values."""
    a, b = pair
    _, _, protocol = a.runs[0].key.partition("/")
    screen.show(_table(metrics, adjusted, f"a: {a}\nb: {b}\n{about}"))
    turned = reversals(averaged(a), averaged(b), a.runs[0].entry["part"], protocol)
    for key, means in turned.items():
        figures = ", ".join(f"{name} {one:.4f} and {two:.4f}" for name, (one, two) in means.items())
        screen.say(f"under {key} the order is reversed: {figures}", "yellow")
    return {
        "a": str(a),
        "b": str(b),
        "metrics": {
            name: {**each.as_dict(), "p_holm": adjusted[name].holm, "p_bh": adjusted[name].bh}
            for name, each in metrics.items()
        },
        "reversed": {
            key: {name: {"mean_a": one, "mean_b": two} for name, (one, two) in means.items()}
            for key, means in turned.items()
        },
    }


def _say_seeds(screen: Screen, groups: Sequence[SeedGroup]) -> None:
    """Say what the seeds of the models allow to conclude."""
    counts = [len(group.runs) for group in groups]
    if max(counts) == 1:
        screen.say(
            "one training of each: the tests are about these trained models; name runs of further seeds to compare "
            "their settings",
            "dim",
        )
        return
    single = [str(group) for group in groups if len(group.runs) == 1]
    screen.say(
        f"{', '.join(counted(count, 'seed') for count in counts)}: t and the interval include the variation between "
        "seeds; Wilcoxon and permutation are about these trained models",
        "dim",
    )
    if single:
        screen.say(f"{', '.join(single)}: one seed, whose variation is unknown and counted as none", "yellow")


def _say_gate(screen: Screen, name: str, result: GateResult) -> None:
    """One line for a gate."""
    word, style = ("passed", "green") if result.passed else ("not passed", "red")
    if result.interval is None:
        screen.say(
            f"gate {result.gate} against {name}: {word}: its mean is 0, so there is no relative difference", style
        )
        return
    scale, mark = (100, " %") if result.relative else (1, "")
    low, high = (f"{scale * value:+.4g}" for value in (result.interval.low, result.interval.high))
    screen.say(f"gate {result.gate} against {name}: {word}: the difference is between {low} and {high}{mark}", style)


def averaged(group: SeedGroup) -> dict[str, Any]:
    """The evaluations that all runs of a group have with the same settings, with the means over the runs."""
    first, *others = [run.results for run in group.runs]
    common = {
        key: [entry, *(other[key] for other in others)]
        for key, entry in first.items()
        if all(key in other and _asked(other[key]) == _asked(entry) for other in others)
    }
    return {
        key: {
            **entries[0],
            "metrics": {
                name: sum(each["metrics"][name] for each in entries) / len(entries)
                for name in entries[0]["metrics"]
                if all(name in each["metrics"] for each in entries)
            },
        }
        for key, entries in common.items()
    }


def reversals(
    a: dict[str, Any], b: dict[str, Any], part: str, protocol: str
) -> dict[str, dict[str, tuple[float, float]]]:
    """The protocols under which the order of two runs differs from that under `protocol`; sampling can cause this.

    Only evaluations of the same data with the same settings are compared. Krichene and Rendle (KDD 2020) explain why
    sampled metrics can reorder models.

    Args:
        a: the evaluations of a run, from `read_metrics`.
        b: the evaluations of the other run.
        part: the evaluated part.
        protocol: the protocol to compare the others with.

    Returns:
        Other protocol -> name of the metric -> the two means; only where the order is reversed.
    """
    turned: dict[str, dict[str, tuple[float, float]]] = {}
    here = _means(a, b, f"{part}/{protocol}")
    for key in a:
        where, _, other = key.partition("/")
        if where != part or other == protocol or key not in b or _asked(a[key]) != _asked(b[key]):
            continue
        for metric, (name, mean_a, mean_b) in _means(a, b, key).items():
            _, here_a, here_b = here.get(metric, (name, 0.0, 0.0))
            if (here_a - here_b) * (mean_a - mean_b) < 0:
                turned.setdefault(other, {})[name] = (mean_a, mean_b)
    return turned


def _means(a: dict[str, Any], b: dict[str, Any], key: str) -> dict[str, tuple[str, float, float]]:
    """Metric without its protocol's mark -> full name, and the means of both runs."""
    one, two = a[key]["metrics"], b[key]["metrics"]
    return {name.partition("|")[0]: (name, one[name], two[name]) for name in one if name in two}


def _asked(entry: dict[str, Any]) -> dict[str, Any]:
    from ensue.runs.evaluated import required

    return required(entry)
