"""The commands and their flags, assembled for one invocation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import typer
from rich.markup import escape

from ensue.cli import (
    ab,
    bench,
    compare,
    datasets,
    demo,
    doctor,
    evaluate,
    import_,
    prepare,
    presets,
    recommend,
    report,
    serve,
    train,
    tune,
)
from ensue.cli import inspect as look
from ensue.cli.flags import Flag, settings_of
from ensue.modules import FLAG
from ensue.terminal.output import Screen

# A command: (screen, its own arguments, settings) -> the object that --json prints.
Command = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Entry:
    """A command.

    Attributes:
        path: the words of the command: ("train",) or ("data", "check").
        run: the function; its docstring is the help text, of which the part after a form feed is not shown.
        examples: example lines at the end of the help.
        flags: creates the flags of settings from the command line; called only for the command in use, since it may
            load torch.
    """

    path: tuple[str, ...]
    run: Command
    examples: tuple[str, ...]
    flags: Callable[[Sequence[str]], list[Flag]] | None = None


ENTRIES = (
    Entry(("demo",), demo.run, ("ensue demo", "ensue demo --out /tmp/demo --users 500 --epochs 5")),
    Entry(
        ("prepare",),
        prepare.run,
        (
            "ensue prepare ratings.csv --user userId --item movieId --time timestamp --out data/ml",
            'ensue prepare "clicks/day=2024-*/" --time day --out data/clicks',
            "ensue prepare log.parquet --min-user-events 5 --min-item-events 5 --filter core --out data/log",
            'ensue prepare --sql "SELECT user, item, time FROM log" --connect sqlite:///shop.db --out data/shop',
            "ensue prepare ml-1m --out data/ml-1m",
        ),
        lambda words: prepare.flags(),
    ),
    Entry(
        ("train",),
        train.run,
        (
            "ensue train data/ml --out runs/sasrec",
            "ensue train data/ml --preset sasrec-ce --hidden-units 256 --out runs/wide",
            "ensue train data/ml --model tisasrec --residual mhc --out runs/tisasrec-mhc",
        ),
        train.flags,
    ),
    Entry(
        ("evaluate",),
        evaluate.run,
        (
            "ensue evaluate runs/sasrec",
            "ensue evaluate runs/sasrec --protocol uniform-100 --metrics hr@10,ndcg@10",
            "ensue evaluate runs/sasrec --convention rectools --metrics ndcg@10",
        ),
        lambda words: evaluate.flags(),
    ),
    Entry(
        ("recommend",),
        recommend.recommend,
        (
            "ensue recommend runs/sasrec --history 1193,661,914 -k 10",
            "ensue recommend runs/sasrec --user 42 --json",
            "ensue recommend runs/sasrec --all --out recommendations.parquet",
        ),
        lambda words: recommend.flags(),
    ),
    Entry(("similar",), recommend.similar, ("ensue similar runs/sasrec --item 1193",)),
    Entry(
        ("serve",),
        serve.run,
        ("ensue serve runs/sasrec", "ensue serve runs/a --variant test=runs/b:0.2 --events sqlite:///events.db"),
    ),
    Entry(("ab", "report"), ab.run, ("ensue ab report --events sqlite:///events.db --experiment default",)),
    Entry(("inspect",), look.run, ("ensue inspect runs/sasrec", "ensue inspect runs/mhc --users 1000 --json")),
    Entry(
        ("compare",),
        compare.run,
        (
            "ensue compare runs/sasrec runs/markov",
            "ensue compare runs/new-0 runs/new-1 runs/old-0 runs/old-1",
            "ensue compare runs/new runs/old --gate 'ndcg@10 > -0.5%'",
        ),
    ),
    Entry(
        ("report",),
        report.run,
        ("ensue report runs/sasrec --out report.html", "ensue report runs/sasrec runs/markov --users 20"),
        lambda words: report.flags(),
    ),
    Entry(
        ("bench",),
        bench.run,
        (
            "ensue bench data/ml --budget 30m --out bench/ml",
            "ensue bench data/ml --models popularity,markov,sasrec --out bench/three",
        ),
        lambda words: bench.flags(),
    ),
    Entry(
        ("tune",),
        tune.run,
        (
            "ensue tune data/ml --budget 1h --out tuned/ml",
            "ensue tune data/ml --model gru4rec --search lr=1e-4..1e-2 --search hidden_units=64,128 --out tuned/gru",
        ),
        tune.flags,
    ),
    Entry(("import",), import_.run, ("ensue import SASRec.epoch=200.pth --norm post --out runs/imported",)),
    Entry(
        ("data", "check"),
        doctor.run,
        ("ensue data check ratings.csv --user userId --item movieId", "ensue data check data/ml --split global-time"),
        lambda words: doctor.flags(),
    ),
    Entry(
        ("datasets",),
        datasets.run,
        ("ensue datasets", "ensue datasets ml-1m --out data/ml-1m"),
    ),
    Entry(("presets",), presets.run, ("ensue presets", "ensue presets sasrec-ce > mine.toml")),
)


# Example lines at the end of the help of `ensue` and of `ensue data`.
EXAMPLES = (
    "ensue demo",
    "ensue prepare ratings.csv --out data/ml",
    "ensue train data/ml --out runs/sasrec",
    "ensue evaluate runs/sasrec",
    "ensue recommend runs/sasrec --history 1193,661,914 -k 10",
)
DATA_EXAMPLES = tuple(line for entry in ENTRIES if entry.path[0] == "data" for line in entry.examples)


def build(words: Sequence[str]) -> typer.Typer:
    """The application for one command line; only the named command gets its generated flags.

    Args:
        words: the arguments.
    """
    app = typer.Typer(
        name="ensue",
        help="Sequential recommendation: predict the next item from an ordered history.",
        epilog=_epilog(EXAMPLES),
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    groups = {
        "data": typer.Typer(help="Examine a log or a store.", epilog=_epilog(DATA_EXAMPLES), no_args_is_help=True),
        "ab": typer.Typer(help="Evaluate an experiment of ensue serve.", no_args_is_help=True),
    }
    for name, group in groups.items():
        app.add_typer(group, name=name)
    for entry in ENTRIES:
        is_called = [word for word in words if not word.startswith("-")][: len(entry.path)] == list(entry.path)
        flags = entry.flags(words) if is_called and entry.flags else []
        target = groups[entry.path[0]] if len(entry.path) > 1 else app
        target.command(entry.path[-1], epilog=_epilog(entry.examples))(_typed(entry.run, flags))
    return app


def _epilog(examples: Sequence[str]) -> str:
    """The end of the help text; blank lines keep the examples on separate lines."""
    return "[bold]Examples[/bold]\n\n" + "\n\n".join(f"  {escape(line)}" for line in examples)


def _root(
    version: bool = typer.Option(
        False, "--version", help="Print the version and exit; with --verbose also what computes, and why."
    ),
) -> None:
    # Handled before the application is built, but declared here so that the help lists it.
    del version


def _typed(run: Command, flags: list[Flag]) -> Callable[..., None]:
    """The function that Typer calls: the command's own arguments, the generated flags, --json and --debug."""
    signature = inspect.signature(run, eval_str=True)
    takes_settings = "settings" in signature.parameters
    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in signature.parameters.items()
        if name not in ("screen", "settings")
    ]

    def call(**values: Any) -> None:
        modules = values.pop("model_module") or []
        screen = Screen(values.pop("as_json"), [word for module in modules for word in (FLAG, module)])
        values.pop("debug")
        given = {name.removeprefix("set_"): values.pop(name) for name in list(values) if name.startswith("set_")}
        if takes_settings:
            values["settings"] = settings_of(flags, given)
        screen.emit(run(screen, **values))
        if screen.status:
            raise typer.Exit(screen.status)

    parameters = [*own, *_COMMON, *(flag.parameter() for flag in flags)]
    call.__doc__ = run.__doc__
    call.__annotations__ = {}
    setattr(call, "__signature__", inspect.Signature(parameters))  # noqa: B010
    return call


def _common(name: str, option: str, text: str) -> inspect.Parameter:
    info = typer.Option(False, option, help=text)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=info, annotation=bool)


_MODEL_MODULE = inspect.Parameter(
    "model_module",
    inspect.Parameter.KEYWORD_ONLY,
    # Handled before the application is built, since the models of the module have flags.
    default=typer.Option(
        None,
        FLAG,
        metavar="FILE.py",
        help="Your own Python file that registers models, losses, metrics and other choices.",
    ),
    annotation=list[str] | None,
)
_COMMON = (
    _MODEL_MODULE,
    _common("as_json", "--json", "Print one JSON object and nothing else on standard output."),
    _common("debug", "--debug", "Show the traceback of an error."),
)
