"""The command line: `ensue COMMAND`. Every command is one module; heavy modules are imported only when needed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from ensue import __version__
from ensue.errors import ConfigError, EnsueError, InterruptedTrainingError, is_utf8

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: the arguments; by default those of the process.

    Returns:
        The exit status: 0 on success, 1 for an error, 2 for a wrong command line or setting, 130 after Ctrl-C; 143 or
        129 if TERM or HUP ended a training; 3 if a gate of `compare` is not passed.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # Characters that the terminal cannot show must not end the command.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        status = _run(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except OSError as error:
        # Standard output is closed (errors of other files are handled in `_run`). Buffered output must not fail again
        # at exit. If the reader has closed the pipe, nothing is reported.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1 if isinstance(error, BrokenPipeError) else _fail(f"standard output: {error.strerror}", 1)
    return status


def leave(status: int) -> NoReturn:
    """End the process with a status; under torchrun as one rank of several."""
    if "RANK" in os.environ:
        from ensue.train.distributed import end

        end(status)
    sys.exit(status)


def _run(words: list[str]) -> int:
    if words[:1] == ["--version"]:
        print(f"ensue {__version__}")
        return _explain_version() if "--verbose" in words else 0
    from ensue.cli.app import build
    from ensue.modules import import_named
    from ensue.terminal.memory import explain_memory_errors

    words = words or ["--help"]
    odd = next((word for word in words if not is_utf8(word)), None)
    if odd is not None:
        return _fail(f"{odd!r} is not UTF-8: rename the file, or write the value in UTF-8", 2)
    try:
        with explain_memory_errors("use a smaller model or less data, or a machine with more memory"):
            import_named(words)
            status = build(words)(words, prog_name="ensue", standalone_mode=False)
    except EnsueError as error:
        if "--debug" in words:
            raise
        return _refuse(error, words)
    except BrokenPipeError:
        raise
    except OSError as error:
        if "--debug" in words:
            raise
        return _fail(str(error), 1)
    except Exception as error:
        # Typer's usage errors have no common public class, but each formats its own message.
        message = getattr(error, "format_message", None)
        if message is None or "--debug" in words:
            raise
        status = int(getattr(error, "exit_code", 2))
        if not message():
            # A group without a command has already shown its help.
            return status
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context is not None else ""
        return _fail(f"{message()}{hint}", status)
    # Typer turns Ctrl-C into a status.
    return _fail("interrupted", INTERRUPTED) if status == INTERRUPTED else status if isinstance(status, int) else 0


def _explain_version() -> int:
    """What computes and why, and the versions of Python and torch."""
    import platform
    from importlib.metadata import version

    from ensue.nn.native.library import compute

    try:
        print(f"compute: {compute()}")
    except EnsueError as error:
        return _fail(str(error), _status(error))
    print(f"Python {platform.python_version()}, torch {version('torch')}, {platform.machine()}")
    return 0


def _refuse(error: EnsueError, words: list[str]) -> int:
    """One line on standard error, and for a log in doubt a command for each reading."""
    from ensue.data.doubt import UnclearLogError

    if not isinstance(error, UnclearLogError):
        return _fail(str(error), _status(error))
    from ensue.cli.doubts import commands

    status = _fail(f"{error.doubt.title}; say which with one of", _status(error))
    for line in commands(words, error.doubt):
        print(f"  {line}", file=sys.stderr)
    return status


def _status(error: EnsueError) -> int:
    if isinstance(error, InterruptedTrainingError):
        return error.status
    return 2 if isinstance(error, ConfigError) else 1


def _fail(message: str, status: int) -> int:
    """Print one line on standard error; return the status."""
    line = "; ".join(part.strip() for part in message.splitlines() if part.strip())
    sys.stdout.flush()
    print(f"ensue: {line}", file=sys.stderr)
    return status
