"""The flags of the classic command line, with the names used by SASRec.pytorch and TiSASRec.pytorch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NoReturn

from ensue.errors import nearest

RULE = """\
Two generations of this command line have different defaults; the data and the --no_* flags decide which applies. The
older one applies to two-column data ("user item") without any --no_* flag: SASRec with plain residuals; --use_mhc or
any --mhc_* flag switches mHC on. The newer one applies to data with timestamps, or with any --no_* flag: mHC, and time
attention if there are timestamps, are on unless --no_mhc or --no_time switches them off. The first line printed names
the model. Flags that contradict each other, and --use_time without timestamps, are errors.

Data is read from data/<dataset>.txt, relative to the working directory: "user item" in the order of the file;
"user item timestamp" or "user item rating timestamp", without the users and items that have fewer than 5 events, as in
TiSASRec. If there is no such file, <dataset> is the name of a public dataset (see `ensue datasets`). The trained model
is written to the run folder <dataset>_<train_dir>/; the same command resumes an interrupted run."""
# Flags that torch.distributed.launch adds; they are not used.
LAUNCHER = ("--local-rank", "--local_rank")


@dataclass(frozen=True)
class Arguments:
    """The values of the flags; None for a flag that was not given, if its default depends on the model.

    Attributes:
        dataset: data/<dataset>.txt, or a public dataset.
        train_dir: the run folder is <dataset>_<train_dir>.
        device: cuda, cpu and so on.
        batch_size: windows per step.
        lr: learning rate.
        dropout_rate: dropout.
        l2_emb: factor of the sum of squares of the item vectors.
        maxlen: how many of the newest events the model reads.
        hidden_units: width.
        num_blocks: blocks.
        num_epochs: maximum number of epochs.
        num_heads: attention heads.
        inference_only: evaluate `state_dict_path`, train nothing.
        state_dict_path: a .pth file or a run folder.
        norm_first: normalise before each sublayer.
        use_time: choose TiSASRec.
        no_time: choose SASRec.
        time_span: the largest interval.
        time_unit: seconds per unit of the intervals.
        use_mhc: choose mHC residuals.
        no_mhc: choose plain residuals.
        mhc_expansion_rate: residual streams.
        mhc_sinkhorn_iter: Sinkhorn iterations.
        use_amp: mixed precision.
        multi_gpu: several processes, under torchrun.
    """

    dataset: str
    train_dir: str
    device: str = "cuda"
    batch_size: int = 128
    lr: float = 0.001
    dropout_rate: float = 0.2
    l2_emb: float = 0.0
    maxlen: int | None = None
    hidden_units: int | None = None
    num_blocks: int | None = None
    num_epochs: int | None = None
    num_heads: int | None = None
    inference_only: bool = False
    state_dict_path: str | None = None
    norm_first: bool | None = None
    use_time: bool = False
    no_time: bool = False
    time_span: int | None = None
    time_unit: int | None = None
    use_mhc: bool = False
    no_mhc: bool = False
    mhc_expansion_rate: int | None = None
    mhc_sinkhorn_iter: int | None = None
    use_amp: bool = False
    multi_gpu: bool = False


def parse(words: Sequence[str] | None = None) -> Arguments:
    """Parse a command line.

    Args:
        words: the arguments; those of the process by default.

    Raises:
        SystemExit: an unknown flag or a wrong value (status 2), or `--help` (status 0).
    """
    words = sys.argv[1:] if words is None else words
    parser = _parser()
    _check_names(parser, words)
    parsed = parser.parse_args(words)
    return Arguments(**{field.name: getattr(parsed, field.name) for field in fields(Arguments)})


def _check_names(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Refuse the first unknown flag. argparse would not suggest the nearest one, or would report a missing flag."""
    known = [f"--{field.name}" for field in fields(Arguments)]
    for word in words:
        name = word.split("=")[0]
        is_flag = name.startswith("-") and not name[1:2].isdigit()
        if is_flag and name not in (*known, *LAUNCHER, "--help", "-h"):
            parser.error(f"unknown flag {name}: {nearest(name, known)}")


def boolean(text: str) -> bool:
    """Read `true` or `false`, in any case, as SASRec.pytorch does.

    Raises:
        ArgumentTypeError: anything else.
    """
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false (got {text!r})")
    return text.lower() == "true"


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage of all flags."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="main.py",
        description="Train or evaluate SASRec and TiSASRec, with plain or mHC residuals.",
        epilog=RULE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--dataset", required=True, help="data/<dataset>.txt, or the name of a public dataset")
    add("--train_dir", required=True, help="the run folder is <dataset>_<train_dir>")
    add("--batch_size", type=int, default=128, help="sequences per step (128)")
    add("--lr", type=float, default=0.001, help="learning rate (0.001)")
    add("--maxlen", type=int, help="how many of the newest events the model reads (SASRec 200, TiSASRec 50)")
    add("--hidden_units", type=int, help="width (50)")
    add("--num_blocks", type=int, help="blocks (2)")
    add("--num_epochs", type=int, help="epochs (SASRec 1000, TiSASRec 201)")
    add("--num_heads", type=int, help="attention heads (1)")
    add("--dropout_rate", type=float, default=0.2, help="dropout (0.2)")
    add("--l2_emb", type=float, default=0.0, help="L2 penalty on the item vectors (0)")
    add("--device", default="cuda", help="cuda (falls back to cpu), cuda:1, cpu, mps, auto (cuda)")
    add("--state_dict_path", help="a .pth file or a run folder to evaluate, or to start training from")
    add("--time_span", type=int, help="TiSASRec: the largest interval (256)")
    add("--time_unit", type=int, help="TiSASRec: seconds per unit of the intervals; 0: the history's smallest gap (0)")
    add("--mhc_expansion_rate", type=int, help="mHC: residual streams (4)")
    add("--mhc_sinkhorn_iter", type=int, help="mHC: Sinkhorn iterations (20)")
    switches = {
        "inference_only": "evaluate --state_dict_path and train nothing",
        "norm_first": "normalise before each sublayer (mHC: true; SASRec: after it; TiSASRec: as its authors)",
        "use_time": "TiSASRec: attention reads the time between events",
        "no_time": "SASRec, also for data with timestamps",
        "use_mhc": "residuals are manifold-constrained hyper-connections",
        "no_mhc": "plain residuals",
        "use_amp": "mixed precision: bf16, or fp16 on GPUs without it",
        "multi_gpu": "several processes; start them with torchrun --nproc-per-node N main.py ...",
    }
    for name, text in switches.items():
        default = None if name == "norm_first" else False
        add(f"--{name}", type=boolean, nargs="?", const=True, default=default, metavar="true|false", help=text)
    add(*LAUNCHER, type=int, help=argparse.SUPPRESS)
    return parser
