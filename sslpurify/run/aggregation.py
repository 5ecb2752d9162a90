"""``aggregate``: what several evaluations of runs with different seeds found, as one table."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from sslpurify.checkpoint import read_json
from sslpurify.errors import CheckpointError, ConfigError, DataError
from sslpurify.probes import Probe
from sslpurify.report import Evaluation, EvaluationOrigin, aggregate_table
from sslpurify.report import aggregate as over_runs
from sslpurify.run.answer import Answer
from sslpurify.strict_yaml import parse

_MAY_DIFFER = {
    "checkpoint",
    "before",
    "reference",
    "train",
    "test",
    "trigger",
    "trigger_index",
    "sweep",
    "out",
    "seed",
    "device",
}
"""Of the recipes; the images and the trigger that a path leads to are compared by their hashes."""


def aggregate(files: Sequence[Path]) -> Answer:
    """Mean and spread over the evaluations in ``files``.

    Args:
        files: JSON that ``evaluate --json`` printed, at least two.

    Raises:
        ConfigError: They are not of the same images, settings and rows, or two are one.
        DataError: A file is no evaluation.
    """
    if len(files) < 2:
        raise ConfigError("a spread needs the evaluations of at least two runs")
    found = [read_evaluation(file) for file in files]
    first, drawing = _comparable(*found[0]), _drawing(found[0][1])
    for number, (file, (evaluation, origin)) in enumerate(zip(files, found, strict=True)):
        now = _comparable(evaluation, origin)
        if unlike := sorted(key for key in {*first, *now} if first.get(key) != now.get(key)):
            raise ConfigError(
                f"{file} cannot be put together with {files[0]}: they differ in {', '.join(unlike)}"
            )
        seeded = any(row.probe in drawing for row in evaluation.rows)
        earlier = [_measured(other, seeded=seeded) for _, other in found[:number]]
        if (measured := _measured(origin, seeded=seeded)) in earlier:
            other = files[earlier.index(measured)]
            unless = "" if seeded else ", and nothing here draws by the seed"
            raise ConfigError(f"{file} and {other} measured the same{unless}: one run")
    data = over_runs([evaluation for evaluation, _ in found], drawing)
    data["files"] = [str(file) for file in files]
    return Answer(data, aggregate_table(data))


def read_evaluation(path: Path) -> tuple[Evaluation, EvaluationOrigin]:
    """What ``evaluate --json`` printed, and how it was made.

    Raises:
        DataError: The file is something else.
        UnsafeInputError: It is too large, or nested too deep.
    """
    try:
        evaluation = Evaluation.from_json(read_json(path))
        origin = evaluation.origin
        if origin is None or not {row.which for row in evaluation.rows} <= set(origin.checkpoints):
            raise ValueError("it does not say how it was made")
        if not isinstance(parse(origin.recipe), dict):
            raise ValueError("its recipe is none")
        return evaluation, origin
    except (CheckpointError, ValueError) as error:
        raise DataError(
            f"{path}: is no output of `evaluate --json` ({str(error).splitlines()[0]})"
        ) from None


def _comparable(evaluation: Evaluation, origin: EvaluationOrigin) -> dict[str, Any]:
    settings = parse(origin.recipe)
    return {
        "rows": [(row.which, row.probe) for row in evaluation.rows],
        "changes": [change.probe for change in evaluation.changes],
        "images": origin.images,
        "trigger": origin.trigger,
        **{key: value for key, value in settings.items() if key not in _MAY_DIFFER},
    }


def _drawing(origin: EvaluationOrigin) -> Collection[Probe]:
    """The probes whose outcome depends on the seed: all that learn from a few images drawn."""
    few = parse(origin.recipe).get("shots") is not None
    return ("knn", "linear", "mlp") if few else ("mlp",)


def _measured(origin: EvaluationOrigin, *, seeded: bool) -> tuple[set[tuple[str, str]], int | None]:
    checkpoints = {(which, its.sha256) for which, its in origin.checkpoints.items()}
    return checkpoints, origin.seed if seeded else None
