"""The folder of a run: its configuration, metrics and state while it lasts, its results at the end.

Every file appears whole. ``report.json`` is the last one: a folder that has it holds a finished
run. A folder that has states holds a run that can be gone on with; one that has neither is taken
away when the run fails.
"""

import errno
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Collection, Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sslpurify.errors import ConfigError, GateError, InterruptionError, TrainingError
from sslpurify.interruption import heed
from sslpurify.processes import ALONE, Processes
from sslpurify.recipe import Run, dump
from sslpurify.report import Metrics, versions
from sslpurify.run.memory import Memory, newest, states
from sslpurify.run.stopping import stoppable
from sslpurify.run.writing import save_json, save_text
from sslpurify.types import Listener, Step

_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}
_METRICS = "metrics.jsonl"
_RESULTS = ".results"
_STATE = "state"
_INDIFFERENT = {"out", "save_every", "report_to", "checkpoint", "text_from", "data"}

log = logging.getLogger(__name__)


class RunDirectory:
    """One run's folder, while this process has it for itself.

    Args:
        out: The folder; exists.
        listener: Told about every step.
        processes: Those that share the run; the first one alone writes.

    Attributes:
        report: Of the run that is already finished here; None: it is not.
        listener: For what has nothing to save.
    """

    def __init__(self, out: Path, listener: Listener, processes: Processes) -> None:
        self.out, self._tell, self._processes = out, listener, processes
        self.listener = stoppable(listener)
        self.report = _read_json(out / "report.json")
        self._memory: Memory | None = None
        self._open = ExitStack()

    @property
    def follows(self) -> bool:
        """Whether another process writes what this run leaves."""
        return self._processes.rank > 0

    def losses(self) -> Listener:
        """Like ``listener``, and keeps the losses as well; for a run that has nothing to save."""
        if self.follows:
            return self.listener
        metrics = Metrics(self.out / _METRICS)
        self._open.callback(metrics.close)

        def tell(step: Step) -> None:
            metrics.add(step)
            self.listener(step)

        return tell

    def begin(
        self,
        recipe: Run,
        inputs: Mapping[str, Any],
        room: int,
    ) -> Memory | None:
        """The run's memory, once everything that decides its outcome is known.

        None where the run is finished already: ``report`` is its report.

        Args:
            recipe: Resolved.
            inputs: What it was given: hashes of files and images.
            room: Bytes that it will write at most.

        Raises:
            ConfigError: An interrupted run of this folder was given something else.
            TrainingError: There is too little room on the disk.
        """
        folder = self.out / _STATE
        if self.follows:
            self._processes.wait()  # until the first process has put the folder in order
            standing = newest(folder)
            self._processes.wait()
            if self.report is not None:
                return None
            return Memory(folder, standing, None, recipe.save_every, self._tell, self._processes)
        made_from = {"recipe": _comparable(recipe), "inputs": dict(inputs)}
        self._require_same(made_from)
        if self.report is not None:
            shutil.rmtree(folder, ignore_errors=True)
            self._agree()
            return None
        _require_room(self.out, room)
        save_json({**made_from, "versions": dict(versions())}, self.out / "run.json")
        save_text(dump(recipe), self.out / "config.yaml")
        folder.mkdir(exist_ok=True)
        for left in folder.glob(".sslpurify-*"):  # of a process that was killed while it wrote
            left.unlink()
        standing = newest(folder)
        self._agree()
        if standing.pieces or standing.begun:
            log.info("going on after %s", standing.begun[0] if standing.begun else "a stage's end")
        board = self.out / "tensorboard" if recipe.report_to == "tensorboard" else None
        metrics = Metrics(self.out / _METRICS, standing.metrics, board)
        self._open.callback(metrics.close)
        self._open.enter_context(_logged(self.out / "log.txt"))
        every, tell = recipe.save_every, self._tell
        self._memory = Memory(folder, standing, metrics, every, tell, self._processes)
        return self._memory

    def _agree(self) -> None:
        """Lets those that follow read the folder, and waits until they have."""
        self._processes.wait()
        self._processes.wait()

    @contextmanager
    def results(self) -> Generator[Path]:
        """A folder whose files become the run's when the block ends well, the report last."""
        staging = self.out / _RESULTS
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            yield staging
            heed()
            for path in sorted(staging.iterdir(), key=lambda path: path.name == "report.json"):
                target = self.out / path.name
                if target.is_dir():
                    shutil.rmtree(target)
                path.replace(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(self.out / _STATE, ignore_errors=True)

    def close(self, error: BaseException | None) -> None:
        """Keeps what can be gone on with, or takes everything away.

        Args:
            error: What ended the run; None: it went well.
        """
        try:
            if isinstance(error, InterruptionError) and self._memory is not None:
                self._memory.save()
        finally:
            self._open.close()
            if error is not None and not (self.out / "report.json").exists():
                self._leave(error)

    def _leave(self, error: BaseException) -> None:
        if isinstance(error, GateError) or not resumable(self.out):
            for path in self.out.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif isinstance(error, TrainingError):
            error.add_note("the last good state is kept: --resume goes on from it")

    def _require_same(self, made_from: Mapping[str, Any]) -> None:
        earlier = _read_json(self.out / "run.json")
        if earlier is None or not (self.report or resumable(self.out)):
            return
        then, now = (_flat(data) for data in (earlier, made_from))
        changed = [
            f"  {key}: {then.get(key)!r} there, {now.get(key)!r} now"
            for key in sorted({*then, *now})
            if then.get(key) != now.get(key) and not key.startswith("versions.")
        ]
        if changed:
            raise ConfigError(
                f"--resume: the run in {self.out} was started with something else; name another "
                "folder, or give what it was given\n" + "\n".join(changed)
            )
        for name, version in versions().items():
            if (other := then.get(f"versions.{name}", version)) != version:
                log.warning(
                    "begun with %s %s, gone on with with %s: the result may differ in its last "
                    "digits from an uninterrupted run's",
                    name, other, version,
                )  # fmt: skip


@contextmanager
def run_directory(
    out: Path,
    *,
    listener: Listener,
    resume: bool,
    outside: Collection[Path | None] = (),
    processes: Processes = ALONE,
) -> Generator[RunDirectory]:
    """The folder of a run, made where it does not exist.

    Args:
        out: The folder: new or empty, or, to resume, one that an interrupted or finished run left.
        listener: Told about every step.
        resume: Whether to go on with what is there.
        outside: What is read, none of which may contain ``out``.
        processes: Those that share the run, on a disk that all of them see.

    Raises:
        ConfigError: ``out`` holds something else, lies inside what is read, or another process is
            at work on it.
        TrainingError: The disk is full or ``out`` cannot be written to.
    """
    if processes.rank > 0:
        yield RunDirectory(out, listener, processes)
        return
    _require_usable(out, outside, resume)
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _alone(out):
            run = RunDirectory(out, listener, processes)
            try:
                yield run
            except BaseException as error:
                run.close(error)
                raise
            run.close(None)
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        raise TrainingError(f"cannot write to {out}: {error.strerror}") from error
    finally:
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def resumable(out: Path) -> bool:
    """Whether a folder holds states of a run."""
    return bool(states(out / _STATE))


def unused(out: Path) -> Path:
    """``out``, or the first of ``out-2``, ``out-3``, ... that does not exist."""
    number = 1
    while (free := out if number == 1 else out.with_name(f"{out.name}-{number}")).exists():
        number += 1
    return free


def _require_usable(out: Path, outside: Collection[Path | None], resume: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; name a new or empty folder")
    for source in outside:
        if source is not None and out.resolve().is_relative_to(source.resolve()):
            raise ConfigError(f"--out {out} lies inside {source}, which is only read; name another")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / "run.json").exists():
        raise ConfigError(f"--out {out} is not empty; name a new or empty folder")
    if not resume:
        what = "a finished run" if (out / "report.json").exists() else "an interrupted run"
        raise ConfigError(
            f"--out {out} is not empty: it holds {what}; name a new or empty folder"
            + (", or go on with it: --resume" if what == "an interrupted run" else "")
        )


@contextmanager
def _alone(out: Path) -> Generator[None]:
    """Holds a lock that the system gives back when the process ends, however it ends."""
    handle = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"--out {out}: another process is at work on it") from None
        except OSError:  # a file system without locks
            log.warning("%s cannot be locked: start no second run on it", out)
        yield
    finally:
        os.close(handle)


@contextmanager
def _logged(path: Path) -> Generator[None]:
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    ours = logging.getLogger("sslpurify")
    ours.addHandler(handler)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        handler.close()


def _require_room(out: Path, room: int) -> None:
    free = shutil.disk_usage(out).free
    if free < room:
        raise TrainingError(
            f"{out}: {free / 1e9:.1f} GB are free and up to {room / 1e9:.1f} GB will be written; "
            "name a folder on a larger disk"
        )


def _comparable(recipe: Run) -> dict[str, Any]:
    """What of a recipe decides the outcome; the files it names do by their hashes."""
    settings = recipe.model_dump(exclude=_INDIFFERENT)
    return json.loads(json.dumps(settings, default=str))


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(f"{path}: is not what a run writes ({error}); name another") from None
