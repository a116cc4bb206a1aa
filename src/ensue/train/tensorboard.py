"""A watcher that writes TensorBoard files; needs the extra `log`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ensue.errors import EnsueError
from ensue.runs.log import Records


class TensorBoardWatcher:
    """Writes loss, learning rate and validation of every epoch as TensorBoard scalars.

    Args:
        folder: where the event files are written.

    Raises:
        EnsueError: tensorboard is not installed.
    """

    open: Any
    writer: Any

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise EnsueError("TensorBoard is not installed: pip install 'ensue[log]'") from None
        self.folder, self.open, self.writer = folder, SummaryWriter, None

    def start(self, steps: int, epochs: int, epoch: int, step: int, records: Records) -> None:
        """Open the event file when training starts or resumes."""
        self.writer = self.open(str(self.folder))

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Do nothing: only epochs are written."""

    def record(self, record: dict[str, Any]) -> None:
        """Write an epoch's numbers."""
        for name, value in record.items():
            if name != "epoch" and isinstance(value, int | float):
                self.writer.add_scalar(name.replace(" ", "/").replace("@", "_at_"), value, record["epoch"])
        self.writer.flush()

    def finish(self) -> None:
        """Close the event file when training ends."""
        self.writer.close()
