"""`ensue serve`: recommendations over HTTP from a trained run."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensue.cli.recommend import RunFolder
from ensue.cli.sources import data_of_run
from ensue.errors import ConfigError, DataError
from ensue.terminal.output import Screen

if TYPE_CHECKING:
    from ensue.data.store import SequenceStore
    from ensue.runs.run import Run
    from ensue.serving.service import Service

NO_LOG = "none"
BACKLOG = 2_048
# Open files that the server asks the system for; many systems allow 1,024 unless asked.
CONNECTIONS = 16_384


def run(
    screen: Screen,
    folder: RunFolder,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port; 0: any free one.", min=0, max=65535)] = 8000,
    events: Annotated[
        str,
        typer.Option("--events", metavar="ADDRESS", help="Log of events: sqlite:///FILE, postgresql://..., or none."),
    ] = "sqlite:///ensue-events.db",
    data: Annotated[list[str] | None, typer.Option("--data", help="Data of users; default: the run's.")] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option("--variant", metavar="NAME=RUN:SHARE", help="Another run, and its share of the users."),
    ] = None,
    experiment: Annotated[
        str, typer.Option("--experiment", help="Name; users are assigned anew under another name.")
    ] = "default",
    trending: Annotated[
        float, typer.Option("--trending-days", help="Days of events that rank items for newcomers; 0: all.", min=0)
    ] = 0.0,
    threads: Annotated[int, typer.Option("--threads", help="Threads of the model.", min=1)] = 1,
) -> dict[str, Any]:
    """Serve recommendations over HTTP: an API, a page to look at, metrics, and a log of events.

    POST /events needs the key in the variable ENSUE_WRITE_KEY if it is set, POST /admin/models the one in
    ENSUE_ADMIN_KEY.
    """
    try:
        import uvicorn

        from ensue.serving.api import WRITE_KEY, Access, create_app
        from ensue.serving.connection import LimitedProtocol, allow_connections
        from ensue.serving.swap import Swapper
    except ModuleNotFoundError as error:
        raise ConfigError(f"ensue serve needs {error.name}: pip install 'ensue[serve]'") from None
    import torch

    torch.set_num_threads(threads)
    access = Access.from_environment(os.environ, host)
    if access.hosts is None and events != NO_LOG and access.write_key is None:
        raise ConfigError(f"--host {host} lets others write events: set {WRITE_KEY}, or add --events {NO_LOG}")
    service, folders = _open(screen, folder, data, variant or [], experiment, events, trending)
    app = create_app(service, access, Swapper(service, folders, folder.absolute().parent))
    with _listen(host, port) as listener:
        address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        served = ", ".join(f"{name} = {each.model.name}" for name, each in service.variants.items())
        screen.say(f"{address}: page, API and metrics ({served}); Ctrl-C ends", "bold")
        allow_connections(CONNECTIONS)
        config = uvicorn.Config(app, http=LimitedProtocol, log_level="warning", access_log=False, server_header=False)
        uvicorn.Server(config).run(sockets=[listener])
    return {"address": address}


def _open(
    screen: Screen,
    folder: Path,
    data: list[str] | None,
    variants: list[str],
    experiment: str,
    events: str,
    trending: float,
) -> tuple[Service, dict[str, Path]]:
    """The service, and the folder of each variant."""
    from ensue.serving.events import EventLog
    from ensue.serving.experiment import CONTROL, experiment_of, parse_variants
    from ensue.serving.service import Service
    from ensue.serving.swap import open_served

    others = parse_variants(variants)
    folders = {CONTROL: folder, **{name: Path(run) for name, (run, _) in others.items()}}
    served = {name: open_served(name, run) for name, run in folders.items()}
    log = None if events == NO_LOG else EventLog(events)
    if log is not None:
        screen.say(f"events: {log.shown}")
    store = _store(screen, folder, served[CONTROL].run, data)
    return Service(served, experiment_of(experiment, others), log, store, trending), folders


def _store(screen: Screen, folder: Path, run: Run, data: list[str] | None) -> SequenceStore | None:
    """The data of users; without --data, a run whose data is gone is served without it."""
    try:
        store = data_of_run(folder, run, data, screen)
    except DataError as error:
        if data:
            raise
        screen.say(f"users have only the history of the log of events: {error}", "yellow")
        return None
    store.verify_once()
    return store


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an address.

    Raises:
        ConfigError: the address is taken, or is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without the protocol asyncio would not send small answers at once (TCP_NODELAY), and each would take 40 ms.
    listener = socket.socket(family, proto=socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # Connections wait from now on, so the address can be printed before the server has started.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror or error}): choose another port"
        ) from None
    return listener
