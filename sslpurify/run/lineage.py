"""The purification that made a checkpoint, from the report that lies beside it."""

import json
import logging
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from sslpurify.checkpoint import Checkpoint, read_json
from sslpurify.data.folder import printable
from sslpurify.errors import CheckpointError, UnsafeInputError
from sslpurify.purify import Stage

log = logging.getLogger(__name__)


class _Origin(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)

    recipe: str


class _Report(BaseModel):
    """What is believed of a ``report.json``, which may be a stranger's."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    seconds: float
    stages: tuple[Stage, ...]
    origin: _Origin


def purification_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """The stages and the recipe of the run that made a checkpoint, as parts of a record.

    Returns:
        ``stages`` and ``purification``; nothing where no report of a purification lies beside the
        checkpoint, or one of other weights, or one that no purification wrote.
    """
    path = checkpoint.path.parent / "report.json"
    if not path.is_file():
        return {}
    try:
        report = _Report.model_validate(read_json(path))
        stages = [stage.to_json() for stage in report.stages]
        json.dumps([stages, report.seconds], allow_nan=False)
    except (ValidationError, ValueError, CheckpointError, UnsafeInputError):
        log.info("%s: not the report of a purification; left out", printable(path))
        return {}
    if report.sha256 != checkpoint.sha256:
        log.info("%s: tells of other weights; left out", printable(path))
        return {}
    made = {"recipe": report.origin.recipe, "seconds": report.seconds}
    return {"stages": stages, "purification": made}
