"""``evaluate --sweep``: probes along the curves of a finished purification, which sees none of it.

The run's folder says what was purified, with which images and how; its files are checked against
the hashes that the run wrote down.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sslpurify.checkpoint import read_json
from sslpurify.compute import choose
from sslpurify.curves import Profile
from sslpurify.encoders import Network
from sslpurify.errors import CheckpointError, ConfigError
from sslpurify.probes import Measurement, Probe
from sslpurify.purify import CurvePath, Stage, retrace
from sslpurify.recipe import PurifyRecipe, StoredEncoder, load
from sslpurify.report import Evaluation, SweepPoint, SweepRates, SweptStage, draw
from sslpurify.run.clean import read_clean
from sslpurify.run.loading import encoder_of, read_weights, wanted_size
from sslpurify.run.purification import TRACES, read_traces
from sslpurify.run.writing import save_json
from sslpurify.types import Listener

MeasurePoint = Callable[[Network, str], Mapping[Probe, Measurement]]
"""(a network, what it is for people) -> what each probe says of it."""


def described(run: Path) -> dict[str, Any]:
    """What the folder of a finished purification says of its encoder, as keys of an evaluation.

    Raises:
        ConfigError: It is no such folder.
    """
    recipe, report = _finished(run)
    choice = recipe.model_dump(include=set(StoredEncoder.model_fields) - {"seed", "device"})
    output = run / Path(str(report["output"])).name
    return {**choice, "checkpoint": output, "before": recipe.checkpoint}


def curves_of(run: Path, device: str, listener: Listener) -> list[tuple[CurvePath, Profile | None]]:
    """The curves of a run, each with what the run itself saw along it.

    Args:
        run: The folder of a finished purification.
        device: As on the command line.
        listener: Told about every step.

    Raises:
        ConfigError: The folder is none of a finished run, or its files have changed since.
        CheckpointError: What it keeps of the curves is damaged.
    """
    recipe, report = _finished(run)
    traces, profiles = read_traces(run / TRACES), _profiles(report)
    weights = read_weights(recipe.checkpoint, recipe)
    clean = read_clean(recipe, wanted_size(recipe, weights), listener)
    given = _json(run / "run.json").get("inputs", {})
    for key, source, now in (
        ("checkpoint", recipe.checkpoint, weights.checkpoint.sha256),
        ("images", recipe.data, clean.images.digest()),
    ):
        if given.get(key) != now:
            raise ConfigError(f"--sweep {run}: {source} has changed since; put back what was there")
    paths = retrace(
        encoder_of(recipe, clean.images.size, weights),
        weights.state,
        clean.images,
        traces,
        recipe.tsc,
        seed=recipe.seed,
        compute=choose(device, recipe.tsc.precision),
        listener=listener,
    )
    return [(path, profiles.get(path.name)) for path in paths]


def swept(
    path: CurvePath, profile: Profile | None, points: int, measure: MeasurePoint
) -> SweptStage:
    """Measures points along a curve, the ends included."""

    def look(t: float) -> SweepPoint:
        measured = measure(path.at(t), f"{path.name} · t = {t:.2f}")
        return SweepPoint(
            t,
            tuple(
                SweepRates(probe, its.clean_accuracy, its.attack_success_rate)
                for probe, its in measured.items()
            ),
        )

    positions = [number / (points - 1) for number in range(points)]
    return SweptStage(path.name, path.taken, tuple(map(look, positions)), profile)


def save_sweep(run: Path, evaluation: Evaluation) -> None:
    """Leaves a sweep in the folder of its run, as JSON and as a picture of each curve.

    Raises:
        ConfigError: The folder cannot be written to.
    """
    record = evaluation.to_json()
    try:
        save_json(record, run / "sweep.json")
        draw(record, run)
    except OSError as error:
        raise ConfigError(f"--sweep {run}: cannot be written to ({error.strerror})") from error


def _finished(run: Path) -> tuple[PurifyRecipe, dict[str, Any]]:
    if not (run / "report.json").is_file():
        raise ConfigError(f"--sweep {run}: is no folder of a finished purification (report.json)")
    if not (run / TRACES).is_file():
        raise ConfigError(
            f"--sweep {run}: has no {TRACES}, which a purification leaves; purify again"
        )
    report = _json(run / "report.json")
    if "output" not in report:
        raise ConfigError(f"--sweep {run}: report.json is not what a purification writes")
    return load(PurifyRecipe, run / "config.yaml"), report


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except CheckpointError as error:
        raise ConfigError(f"--sweep: {error}") from None


def _profiles(report: Mapping[str, Any]) -> dict[str, Profile]:
    try:
        stages = [Stage.from_json(stage) for stage in report["stages"]]
    except (KeyError, TypeError, ValueError):
        raise ConfigError("--sweep: report.json is not what a purification writes") from None
    return {stage.name: stage.profile for stage in stages if stage.profile is not None}
