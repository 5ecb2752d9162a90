"""What was measured, as data that other programs read."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from pydantic import TypeAdapter

from sslpurify.checkpoint import Checkpoint
from sslpurify.compute import Compute
from sslpurify.data import ImageSet
from sslpurify.probes import Change, Rate
from sslpurify.report.sweep import SweptStage

Which = Literal["before", "after", "reference"]

_RECORDED = ("sslpurify", "torch", "torchvision", "lightly", "numpy", "scipy", "safetensors")


@dataclass(frozen=True)
class ClassRates:
    """One class seen through one probe.

    Args:
        name: Of the class.
        clean_accuracy: Share of its clean test images classified as labelled; None: it has none.
        attack_success_rate: Share of its triggered test images classified as the target class;
            None when none of them counts, or no trigger was given.
    """

    name: str
    clean_accuracy: Rate | None
    attack_success_rate: Rate | None


@dataclass(frozen=True)
class Row:
    """One encoder seen through one probe.

    Args:
        which: The encoder: ``before`` purification, ``after`` it (the checkpoint asked about), or
            the never attacked ``reference``.
        probe: The probe's name.
        clean_accuracy: Share of clean test images classified as labelled.
        attack_success_rate: Share of triggered test images classified as the target class; None
            when no trigger was given.
        classes: The same of each class, in the order of the class folders.
    """

    which: Which
    probe: str
    clean_accuracy: Rate
    attack_success_rate: Rate | None
    classes: tuple[ClassRates, ...] = ()


@dataclass(frozen=True)
class Changes:
    """After less before through one probe, on the same images.

    Args:
        probe: The probe's name.
        clean_accuracy: How it changed.
        attack_success_rate: How it changed; None when no trigger was given.
    """

    probe: str
    clean_accuracy: Change
    attack_success_rate: Change | None


@dataclass(frozen=True)
class CheckpointName:
    """A checkpoint that was measured: its file's name and hash."""

    file: str
    sha256: str

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "CheckpointName":
        """That of a checkpoint that was read."""
        return cls(checkpoint.path.name, checkpoint.sha256)


@dataclass(frozen=True)
class EvaluationOrigin:
    """How an evaluation was made: two of the same origin say the same.

    Args:
        checkpoints: Those that were measured, by which they are.
        images: Hashes of the images that they were measured on.
        trigger: Hash of what the trigger makes of an image; None: there was none.
        seed: Seed of every random draw.
        device: Where networks ran.
        precision: Of their convolutions and matrix products, ``fp32`` or ``bf16``.
        recipe: The resolved recipe's text.
        versions: Of the packages that decide what is computed.
    """

    checkpoints: Mapping[Which, CheckpointName]
    images: Mapping[str, str]
    trigger: str | None
    seed: int
    device: str
    precision: str
    recipe: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Evaluation:
    """All that one evaluation found.

    Args:
        rows: In the order of the table.
        protocol: ``exclude-target`` or ``all``.
        seconds: Wall time of the whole evaluation.
        changes: After less before, a probe each; empty where one of the two was not measured.
        origin: How it was made; None where what it belongs to says so.
        sweep: What was measured along the curves of a purification, if that was asked for.
    """

    rows: tuple[Row, ...]
    protocol: str
    seconds: float
    changes: tuple[Changes, ...] = ()
    origin: EvaluationOrigin | None = None
    sweep: tuple[SweptStage, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The JSON shape of ``evaluate`` and ``demo``; rates are fractions."""
        plain = _EVALUATION.dump_python(self, mode="json", include={"rows", "changes", "origin"})
        return {
            "results": plain["rows"],
            "changes": plain["changes"],
            "protocol": self.protocol,
            "seconds": round(self.seconds, 2),
            **({} if self.origin is None else {"origin": plain["origin"]}),
            **({"sweep": [stage.to_json() for stage in self.sweep]} if self.sweep else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Evaluation":
        """The evaluation that `to_json` made plain data of.

        Raises:
            ValueError: It is nothing of the kind.
        """
        renamed = {"rows" if key == "results" else key: value for key, value in data.items()}
        return _EVALUATION.validate_python(renamed)


_EVALUATION = TypeAdapter(Evaluation)


def versions() -> Mapping[str, str]:
    """Versions of Python and of the packages that decide what a run computes."""
    return {"python": platform.python_version()} | {name: _version(name) for name in _RECORDED}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "not installed"


def provenance(
    parent: Checkpoint | None, images: ImageSet, compute: Compute, recipe: str, seed: int
) -> dict[str, Any]:
    """How a checkpoint was made, to be kept beside it.

    Args:
        parent: The file or folder it was made from; None: random weights.
        images: The images it was made with.
        compute: Where networks ran, and in which precision.
        recipe: The resolved recipe's text.
        seed: Seed of every random draw.
    """
    return {
        "parent": parent and {"file": parent.path.name, "sha256": parent.sha256},
        "data": {"images": len(images), "size": images.size, "sha256": images.digest()},
        "seed": seed,
        "device": str(compute.device),
        "precision": compute.precision,
        "recipe": recipe,
        "versions": dict(versions()),
    }
