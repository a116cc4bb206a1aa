"""`ensue train --devices N`: N processes on this machine, under torchrun's agent, and one message if one fails.

The command checks the data and the settings, starts the ranks (`python -m ensue.cli.launch`, below) and waits. Rank 0
shows the training; the output of the others is written to a file. A rank that fails writes its error to a file of the
agent.
"""

from __future__ import annotations

import ctypes
import json
import logging
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensue import errors
from ensue.cli import leave
from ensue.errors import ConfigError, EnsueError, TrainingError
from ensue.modules import import_named
from ensue.terminal.output import Screen

if TYPE_CHECKING:
    from ensue.cli.training import FitOptions
    from ensue.data.store import SequenceStore
    from ensue.runs.config import RunConfig
    from ensue.train.fit import Fitted

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
JSON, TENSORBOARD, OVERWRITE = "--json", "--tensorboard", "--overwrite"
PR_SET_PDEATHSIG = 1


def fit_in_ranks(
    screen: Screen,
    config: RunConfig,
    store: SequenceStore,
    data: Sequence[str],
    out: Path,
    devices: int,
    options: FitOptions,
) -> Fitted:
    """Train into a folder with several processes, or load the finished run of these settings in the folder.

    Args:
        screen: for messages.
        config: the settings.
        store: the opened data; the ranks open `data` themselves.
        data: the path of the data.
        out: the run folder.
        devices: number of processes.
        options: how to treat a run in the folder.

    Raises:
        ConfigError: the model is fitted by counting or too large, or there are too few devices.
        TrainingError: a rank failed; the message names it.
        Interrupted: a signal ended the training.
    """
    from ensue.cli.training import fit_shown
    from ensue.data.sources import STANDARD_INPUT
    from ensue.models import Catalogue, check_fits, is_counted
    from ensue.runs.work import find_work
    from ensue.train.distributed import device_type

    if options.finish or find_work(out, config, store.fingerprint, options.overwrite, finish=False) is None:
        return fit_shown(screen, config, store, out, options)
    if STANDARD_INPUT in data:
        raise ConfigError("every process reads the data: write standard input to a store first (ensue prepare -)")
    check_fits(config.model, Catalogue.of_store(store))
    if is_counted(config.model):
        raise ConfigError(f"model {config.model.name!r} is fitted by counting, in one process: omit --devices")
    where = "GPUs" if device_type(config.train.device, devices) == "cuda" else "processes on the CPU"
    screen.say(f"training with {devices} {where}")
    with tempfile.TemporaryDirectory(prefix="ensue-") as folder:
        settings = Path(folder) / "config.toml"
        config.write_toml(settings)
        words = [json.dumps(list(data)), str(out), str(settings)]
        words += [JSON] if screen.as_json else []
        words += [TENSORBOARD] if options.tensorboard else []
        words += [OVERWRITE] if options.overwrite else []
        try:
            _launch(words, devices, Path(folder))
        except BaseException:
            screen.console.show_cursor(True)
            raise
    if find_work(out, config, store.fingerprint, overwrite=False, finish=False) is not None:
        raise TrainingError(f"the {devices} ranks ended without an error, but {out} has no finished run")
    return replace(fit_shown(screen, config, store, out), is_new=True)


def _launch(words: list[str], devices: int, folder: Path) -> None:
    """Run the ranks until they end.

    Raises:
        TrainingError: a rank failed.
        Interrupted: a signal ended the command; the ranks have ended too.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from ensue.train.interrupt import Interrupted

    silent: dict[int, Std] = dict.fromkeys(range(1, devices), Std.ALL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder), redirects=silent),
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
    )
    with _quiet_agent():
        try:
            elastic_launch(config, sys.executable)("-m", "ensue.cli.launch", *words)
        except ChildFailedError as error:
            raise _first_cause(error.failures, devices) from None
        except SignalException as stop:
            raise Interrupted(int(stop.sigval)) from None


@contextmanager
def _quiet_agent() -> Iterator[None]:
    """Suppress the agent's log, and restore the signal handlers that it replaces."""
    logger = logging.getLogger("torch.distributed.elastic")
    handler, propagate = logging.NullHandler(), logger.propagate
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
        for number, previous in handlers.items():
            signal.signal(number, previous)


def _first_cause(failures: dict[int, Any], size: int) -> EnsueError:
    """The error of the rank whose failure caused the others, with its number.

    Args:
        failures: rank -> the agent's `ProcessFailure`, for all ranks that failed. The agent ends the other ranks with
            SIGTERM, and some of them may have reported the lost connection before that.
        size: number of ranks.
    """

    def order(rank: int) -> tuple[bool, bool, bool, int]:
        code, message = failures[rank].exitcode, str(failures[rank].message)
        return code == -signal.SIGTERM, "lost the connection" in message, code >= 0, rank

    rank = min(failures, key=order)
    failure = failures[rank]
    resume = "The others were ended; the same command resumes from the last checkpoint, if there is one"
    if failure.exitcode < 0:
        hint = " (by the system, if memory ran out)" if failure.exitcode == -signal.SIGKILL else ""
        return TrainingError(f"rank {rank} of {size} was killed by {failure.signal_name()}{hint}. {resume}")
    if not isinstance(failure.message, dict):
        return TrainingError(f"rank {rank} of {size} ended with status {failure.exitcode}. {resume}")
    kind, _, text = failure.message["message"].partition(": ")
    if kind in vars(errors):
        error: EnsueError = vars(errors)[kind](text if text.startswith("rank ") else f"rank {rank} of {size}: {text}")
        return error
    trace = failure.message["extraInfo"]["py_callstack"]
    return TrainingError(f"rank {rank} of {size} failed with {kind}: {text}. {resume}\n{trace}")


def main(words: list[str]) -> int:
    """Run one rank; the agent starts this function.

    Args:
        words: the data as a JSON list, the run folder, a TOML file with all settings, and flags.

    Returns:
        The exit status. An error's message is written to the agent's file, for the waiting command.
    """
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    _end_with_parent()
    try:
        import_named(())
        _train(json.loads(words[0]), Path(words[1]), Path(words[2]), words[3:])
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        get_error_handler().record_exception(error)
        return 1
    return 0


def _train(data: list[str], out: Path, settings: Path, flags: list[str]) -> None:
    from ensue.cli.sources import open_data
    from ensue.cli.training import FitOptions, fit_shown
    from ensue.runs.config import RunConfig

    screen = Screen(JSON in flags)
    options = FitOptions(OVERWRITE in flags, tensorboard=TENSORBOARD in flags)
    fit_shown(screen, RunConfig.read_toml(settings), open_data(data, screen), out, options)


def _end_with_parent() -> None:
    """Have the system end this process with its parent, so that two trainings never write into one folder."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
