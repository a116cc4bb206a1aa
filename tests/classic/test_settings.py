"""The rule of the two generations, as a table; contradictions; how flags are read."""

from __future__ import annotations

from typing import Any

import pytest

from ensue.classic.arguments import Arguments, parse
from ensue.classic.settings import check_model, classic_config, describe, resolve
from ensue.errors import ConfigError
from ensue.models.sasrec import SASRecConfig
from ensue.models.tisasrec import TiSASRecConfig

BASE = ["--dataset=ml-1m", "--train_dir=x"]

# flags -> (model, mHC) on two-column data, and on data with timestamps; "error" where there is none.
TABLE: list[tuple[str, str | tuple[str, bool], str | tuple[str, bool]]] = [
    ("--maxlen=200 --dropout_rate=0.2 --device=cuda", ("sasrec", False), ("tisasrec", True)),
    ("--mhc_expansion_rate=4", ("sasrec", True), ("tisasrec", True)),
    ("--mhc_sinkhorn_iter=5", ("sasrec", True), ("tisasrec", True)),
    ("--use_mhc", ("sasrec", True), ("tisasrec", True)),
    ("--use_mhc=false", ("sasrec", False), ("tisasrec", True)),
    ("--use_time", "error", ("tisasrec", True)),
    ("--use_time --no_mhc", "error", ("tisasrec", False)),
    ("--time_span=64", "error", ("tisasrec", True)),
    ("--time_unit=3600", "error", ("tisasrec", True)),
    ("--no_time --no_mhc", ("sasrec", False), ("sasrec", False)),
    ("--no_time", ("sasrec", True), ("sasrec", True)),
    ("--no_time=true", ("sasrec", True), ("sasrec", True)),
    ("--no_time=false", ("sasrec", False), ("tisasrec", True)),
    ("--no_mhc", ("sasrec", False), ("tisasrec", False)),
    ("--no_time --use_mhc", ("sasrec", True), ("sasrec", True)),
    ("--batch_size=512 --use_amp --multi_gpu", ("sasrec", False), ("tisasrec", True)),
    ("", ("sasrec", False), ("tisasrec", True)),
]


@pytest.mark.parametrize(("flags", "plain", "timed"), TABLE, ids=[row[0] or "none" for row in TABLE])
def test_the_generation_follows_from_the_data(flags: str, plain: object, timed: object) -> None:
    arguments = parse([*BASE, *flags.split()])
    for timestamps, expected in ((False, plain), (True, timed)):
        if expected == "error":
            with pytest.raises(ConfigError, match="needs timestamps, but the data has none"):
                resolve(arguments, timestamps)
            continue
        result = resolve(arguments, timestamps)
        assert (result.model, result.mhc) == expected
        model = classic_config(arguments, result, "cpu", "off").model
        assert model.name == result.model
        assert model.model_dump()["residual"] == ("mhc" if result.mhc else "plain")


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ("--use_time --no_time", ("--no_time", "--use_time")),
        ("--use_mhc --no_mhc", ("--no_mhc", "--use_mhc")),
        ("--no_mhc --mhc_expansion_rate=4", ("--no_mhc", "--mhc_expansion_rate")),
        ("--no_mhc --mhc_sinkhorn_iter=20", ("--no_mhc", "--mhc_sinkhorn_iter")),
        ("--no_time --time_span=256", ("--no_time", "--time_span")),
        ("--no_time --time_unit=60", ("--no_time", "--time_unit")),
    ],
)
@pytest.mark.parametrize("timestamps", [False, True])
def test_contradictions_are_errors(flags: str, names: tuple[str, str], timestamps: bool) -> None:
    with pytest.raises(ConfigError, match=f"{names[0]} and {names[1]} contradict each other"):
        resolve(parse([*BASE, *flags.split()]), timestamps)


@pytest.mark.parametrize("name", ["use_time", "no_time", "use_mhc", "no_mhc", "use_amp", "multi_gpu", "norm_first"])
def test_booleans_are_bare_or_valued(name: str) -> None:
    assert getattr(parse([*BASE, f"--{name}"]), name) is True
    assert getattr(parse([f"--{name}", *BASE]), name) is True
    assert getattr(parse([*BASE, f"--{name}=true"]), name) is True
    assert getattr(parse([*BASE, f"--{name}", "false"]), name) is False
    assert not getattr(parse(BASE), name)


@pytest.mark.parametrize(
    "words", [[*BASE, "--inference_only=yes"], [*BASE, "--no_tim"], [*BASE, "--lr=x"], ["--dataset=x"]]
)
def test_wrong_flags_end_with_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse(words)
    assert end.value.code == 2
    lines = capsys.readouterr().err
    assert lines.startswith("main.py: ")
    assert lines.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "name", "nearest"),
    [
        ([*BASE, "--maxlne=50"], "--maxlne", "--maxlen"),
        ([*BASE, "--maxlne", "50"], "--maxlne", "--maxlen"),
        ([*BASE, "--hidden-units=50"], "--hidden-units", "--hidden_units"),
        ([*BASE, "-lr=0.1"], "-lr", "--lr"),
        ([*BASE, "--norm-frist"], "--norm-frist", "--norm_first"),
        # Also where a required flag is the misspelt one.
        (["--datset=ml-1m", "--train_dir=x"], "--datset", "--dataset"),
    ],
)
def test_an_unknown_flag_names_the_nearest(
    words: list[str], name: str, nearest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        parse(words)
    assert end.value.code == 2
    lines = capsys.readouterr().err
    assert lines.startswith(f"main.py: unknown flag {name}: did you mean '{nearest}'? Known: --batch_size, --dataset")
    assert lines.count("\n") == 1


def test_a_negative_value_is_no_flag() -> None:
    assert parse([*BASE, "--lr", "-0.5"]).lr == -0.5


@pytest.mark.parametrize("flag", ["--local-rank=1", "--local_rank=1"])
def test_the_launchers_rank_is_accepted(flag: str) -> None:
    assert parse([flag, *BASE]) == parse(BASE)


def test_help_states_the_rule(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    lines = " ".join(capsys.readouterr().out.split())
    assert 'The older one applies to two-column data ("user item") without any --no_* flag' in lines
    assert "are on unless --no_mhc or --no_time switches them off" in lines


def settings_of(flags: str, timestamps: bool) -> dict[str, Any]:
    arguments = parse([*BASE, *flags.split()])
    return classic_config(arguments, resolve(arguments, timestamps), "cpu", "bf16").model_dump()


def test_defaults_are_those_of_each_program() -> None:
    sasrec, tisasrec = settings_of("", False), settings_of("--no_mhc", True)
    expected = {"hidden_units": 50, "num_blocks": 2, "num_heads": 1, "dropout_rate": 0.2}
    for settings in (sasrec, tisasrec):
        assert {name: settings["model"][name] for name in expected} == expected
        assert settings["objective"]["loss"] == "bce"
        train = settings["train"]
        assert (train["batch_size"], train["lr"], train["l2_emb"], train["patience"]) == (128, 0.001, 0.0, 0)
        assert (train["validation_metric"], train["validation_protocol"]) == ("ndcg@10", "uniform-100")
    assert (sasrec["model"]["maxlen"], sasrec["train"]["num_epochs"], sasrec["train"]["eval_epochs"]) == (200, 1000, 20)
    assert (tisasrec["model"]["maxlen"], tisasrec["train"]["num_epochs"]) == (50, 201)
    assert tisasrec["model"]["time_span"] == 256
    assert [settings_of(f"--num_epochs={n}", False)["train"]["eval_epochs"] for n in (1, 3, 50)] == [1, 1, 1]


def test_every_flag_arrives() -> None:
    flags = "--maxlen=30 --hidden_units=12 --num_blocks=3 --num_heads=2 --dropout_rate=0.5 --lr=0.01 --batch_size=7"
    flags += " --num_epochs=4 --l2_emb=0.5 --time_span=9 --time_unit=60 --mhc_expansion_rate=3 --mhc_sinkhorn_iter=5"
    settings = settings_of(flags, True)
    both = {**settings["train"], **settings["model"]}
    for flag in flags.split():
        name, value = flag.removeprefix("--").split("=")
        assert both[name] == float(value)
    assert settings["train"]["amp"] == "bf16"


@pytest.mark.parametrize(
    ("flags", "timestamps", "norm"),
    [
        ("", False, "post"),
        ("--norm_first", False, "pre"),
        ("--no_mhc", True, "original"),
        ("--no_mhc --norm_first", True, "pre"),
        ("--use_mhc", False, "pre"),
        ("--use_mhc --norm_first=false", False, "post"),
    ],
)
def test_norm_first(flags: str, timestamps: bool, norm: str) -> None:
    assert settings_of(flags, timestamps)["model"]["norm"] == norm


def test_values_out_of_range_are_named() -> None:
    with pytest.raises(ConfigError, match="hidden_units"):
        settings_of("--hidden_units=0", False)
    with pytest.raises(ConfigError, match=r"train\.lr"):
        settings_of("--lr=-1", False)


@pytest.mark.parametrize(
    "given",
    [
        {"use_time": True},
        {"use_mhc": True},
        {"mhc_expansion_rate": 4},
        {"mhc_sinkhorn_iter": 20},
        {"maxlen": 50},
        {"num_heads": 2},
        {"norm_first": True},
        {"time_span": 3},
        {"time_unit": 60},
    ],
)
def test_flags_must_fit_a_given_model(given: dict[str, Any]) -> None:
    model = SASRecConfig(norm="post")
    check_model(Arguments("d", "t", maxlen=200, no_time=True, no_mhc=True, norm_first=False), model)
    with pytest.raises(
        ConfigError, match=f"--{next(iter(given))}=.* contradicts --state_dict_path, which is SASRec: time off"
    ):
        check_model(Arguments("d", "t", **given), model)


@pytest.mark.parametrize(("name", "value"), [("time_unit", 60), ("mhc_sinkhorn_iter", 5), ("mhc_expansion_rate", 2)])
def test_values_of_a_given_model_may_be_repeated(name: str, value: int) -> None:
    model = TiSASRecConfig(residual="mhc").replace(**{name: value})
    given = Arguments("d", "t", use_mhc=True, **{name: value})  # type: ignore[arg-type]
    check_model(given, model)
    with pytest.raises(ConfigError, match=f"--{name}={value} contradicts --state_dict_path, which is TiSASRec"):
        check_model(given, model.replace(**{name: value + 1}))


def test_a_model_in_one_line() -> None:
    lines = describe(TiSASRecConfig(residual="mhc", mhc_expansion_rate=2))
    assert lines.startswith("TiSASRec: time on, residual mhc (2 streams, 20 Sinkhorn iterations), norm pre, maxlen 200")
