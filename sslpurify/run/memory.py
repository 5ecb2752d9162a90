"""The memory of a run on disk: what it has done and where it stands, whole in every state file."""

import json
import logging
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from sslpurify.checkpoint import new, read, write
from sslpurify.errors import CheckpointError, InterruptionError, UnsafeInputError
from sslpurify.interruption import wished
from sslpurify.journal import Journal
from sslpurify.processes import ALONE, Processes
from sslpurify.report import Metrics
from sslpurify.statedict import joined, parted
from sslpurify.types import Listener, Piece, Step

KEPT = 2
"""State files that are kept: the newest, and one to fall back to."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Standing:
    """Where a run stands.

    Args:
        pieces: What it has done, by path; the parts of a whole lie below its name.
        begun: The stage that is under way and where it stands; None: none is.
        metrics: Bytes of the metrics file that belong to all this.
    """

    pieces: Mapping[str, Piece] = field(default_factory=dict[str, Piece])
    begun: tuple[str, Piece] | None = None
    metrics: int = 0


class Memory(Journal):
    """A journal that outlives the process, and the listener that keeps it.

    A state is saved when a piece with tensors is done, when ``every`` seconds have passed since
    the last one, and when somebody wishes to stop: each time at a step, or between two pieces, so
    that metrics and state agree.

    Args:
        folder: Of the state files.
        standing: Where an earlier process left the run.
        metrics: Gets a line for every step that has a loss; None: another process of the run
            writes, this one only remembers.
        every: Seconds between two states.
        listener: Told about every step.
        processes: Those that share the run; they agree at every step whether to stop.
    """

    def __init__(
        self,
        folder: Path,
        standing: Standing,
        metrics: Metrics | None,
        every: float,
        listener: Listener,
        processes: Processes = ALONE,
    ) -> None:
        self._folder, self._metrics, self._every = folder, metrics, every
        self._tell, self._processes = listener, processes
        self._standing = self._saved = standing
        self._open: list[str] = []
        self._last = time.monotonic()

    def once(self, name: str, work: Callable[[], Piece]) -> Piece:
        """As of every journal; done pieces with tensors are saved.

        Raises:
            TrainingError: The state cannot be written.
        """
        path = "/".join([*self._open, name])
        if (known := self._standing.pieces.get(path)) is not None:
            return known
        self._open.append(name)
        piece = work()
        self._open.pop()
        kept = {
            other: its
            for other, its in self._standing.pieces.items()
            if not other.startswith(f"{path}/")
        }
        self._standing = Standing({**kept, path: piece}, None, self._written())
        if piece.tensors or self._due():
            self.save()
        return piece

    def begun(self, stage: str) -> Piece | None:
        """As of every journal."""
        if self._standing.begun is None or self._standing.begun[0] != stage:
            return None
        return self._standing.begun[1]

    def listen(self, step: Step) -> None:
        """Keeps what a step tells, and passes it on.

        Raises:
            InterruptionError: Somebody wishes to stop; what can be kept has been.
            TrainingError: The state cannot be written.
        """
        if self._metrics is not None:
            self._metrics.add(step)
        wish = wished()
        if self._processes.any(wish is not None):
            wish = wish or signal.SIGTERM
        if step.state is not None and (wish is not None or self._due()):
            begun = (step.stage, step.state())
            self._standing = Standing(self._standing.pieces, begun, self._written())
            self.save()
        self._tell(step)
        if wish is not None:
            self.save()
            raise InterruptionError(wish)

    def save(self) -> None:
        """Writes where the run stands, unless the newest state says so already.

        Raises:
            TrainingError: The disk is full, or cannot be written to.
        """
        if self._standing is self._saved or self._metrics is None:
            return
        self._metrics.flush()
        numbers = [int(path.stem) for path in states(self._folder)]
        write_state(self._standing, self._folder / f"{max(numbers, default=0) + 1:06}.safetensors")
        for old in states(self._folder)[:-KEPT]:
            old.unlink()
        self._saved, self._last = self._standing, time.monotonic()

    def _written(self) -> int:
        return 0 if self._metrics is None else self._metrics.size()

    def _due(self) -> bool:
        return time.monotonic() - self._last >= self._every


def states(folder: Path) -> list[Path]:
    """The state files, oldest first."""
    return sorted(path for path in folder.glob("*.safetensors") if path.stem.isdecimal())


def write_state(standing: Standing, path: Path) -> None:
    """Writes a state whole or not at all."""
    pieces = [*standing.pieces.items(), *([] if standing.begun is None else [standing.begun])]
    parts = {str(number): piece.tensors for number, (_, piece) in enumerate(pieces)}
    tensors = joined({"format": {"version": torch.ones(1)}, **parts})  # a file needs a tensor
    entries = [{"name": name, "facts": piece.facts} for name, piece in pieces]
    done = len(standing.pieces)
    text = json.dumps({"pieces": entries, "done": done, "metrics": standing.metrics})
    write(new(tensors, {"standing": text}), path)


def read_state(path: Path) -> Standing:
    """What `write_state` wrote.

    Raises:
        CheckpointError: The file is torn, or is no state.
    """
    checkpoint = read(path)
    try:
        text, parts = json.loads(checkpoint.metadata["standing"]), parted(checkpoint.tensors)
        pieces = [
            (entry["name"], Piece(parts[str(number)], entry["facts"]))
            for number, entry in enumerate(text["pieces"])
        ]
        done = int(text["done"])
        begun = pieces[done] if done < len(pieces) else None
        return Standing(dict(pieces[:done]), begun, int(text["metrics"]))
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: is no state of a run") from error


def newest(folder: Path) -> Standing:
    """Where a run stands by its newest state that can be read; at its start, if there is none."""
    for path in reversed(states(folder)):
        try:
            return read_state(path)
        except (CheckpointError, UnsafeInputError) as error:
            log.warning("%s: torn, and left aside for the state before it (%s)", path, error)
            path.replace(path.with_suffix(".torn"))  # its number is free again
    return Standing()
