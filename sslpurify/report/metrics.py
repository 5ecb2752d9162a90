"""The losses of a run, one JSON line a step, in a file that only grows."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sslpurify.errors import ConfigError
from sslpurify.types import Step

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Metrics:
    """``metrics.jsonl``: stage, step, steps, images and loss of every step that has a loss.

    Args:
        path: The file; made if it does not exist.
        size: Bytes of it that count: what an interrupted process wrote after its last state is
            cut off, and will be written again.
        tensorboard: Folder for TensorBoard's files, which get the losses too; None: none.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    def __init__(self, path: Path, size: int = 0, tensorboard: Path | None = None) -> None:
        self._file = path.open("a+b")
        self._file.truncate(min(size, self.size()))
        self._file.seek(0)
        self._lines = self._file.read().count(b"\n")
        self._board = None if tensorboard is None else _board(tensorboard, self._lines)

    def add(self, step: Step) -> None:
        """Write a line, if the step has a loss."""
        if step.loss is None:
            return
        line = {
            "stage": step.stage,
            "step": step.step,
            "steps": step.steps,
            "images": step.images,
            "loss": step.loss,
        }
        self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        if self._board is not None:
            self._board.add_scalar(f"loss/{step.stage}", step.loss, self._lines)
        self._lines += 1

    def size(self) -> int:
        """Bytes written so far."""
        return self._file.seek(0, os.SEEK_END)

    def flush(self) -> None:
        """Make sure that what was written outlives a power cut."""
        os.fsync(self._file.fileno())
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def _board(folder: Path, lines: int) -> "SummaryWriter":
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "report_to: tensorboard is not installed: pip install 'sslpurify[tensorboard]'"
        ) from None
    return SummaryWriter(str(folder), purge_step=lines)
