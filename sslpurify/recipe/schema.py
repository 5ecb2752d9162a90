"""The recipes: one closed, frozen model per verb, nouns and numbers only."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from sslpurify.attacks import (
    BadClipSettings,
    BadEncoderSettings,
    CtrlSettings,
    PairPoisoningSettings,
    PatchPoisoningSettings,
)
from sslpurify.pretrain import ClipSettings, SimclrSettings
from sslpurify.probes import (
    Gate,
    KnnSettings,
    LinearSettings,
    MlpSettings,
    Probe,
    ProbeSettings,
    Protocol,
)
from sslpurify.purify import TscSettings
from sslpurify.strict_yaml import line

Channels = tuple[float, float, float]

Count = Annotated[int, Field(gt=0)]
Deviation = Annotated[float, Field(gt=0)]


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("reads as true or false; put it in quotes")
    return value


def _as_line(value: Any) -> Any:
    """A description written out in a recipe, as the line that it would be on the command line."""
    return line(value) if isinstance(value, dict) else value


def _split_by_commas(value: Any) -> Any:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


TriggerName = Annotated[str, BeforeValidator(_as_line)]
# A class is often called 3; only true, false, yes, no, on and off are not what was meant.
ClassName = Annotated[str, Field(coerce_numbers_to_str=True), BeforeValidator(_no_bool)]


class EncoderChoice(BaseModel):
    """What every recipe says: which encoder, and how images enter it.

    Paths are relative to the working directory, in a recipe as on the command line.

    Attributes:
        arch: Architecture, e.g. ``simclr/resnet18-cifar``.
        image_size: Side of the images in pixels; None: 32 for the ``-cifar`` stems, otherwise the
            images' own size.
        image_mean: Mean of each channel, in [0, 1]; None: CIFAR-10's up to 64 px, ImageNet's above.
        image_std: Standard deviation of each channel; None: as ``image_mean``.
        quick_gelu: Whether an open_clip model was trained with QuickGELU (OpenAI's were), which no
            weight tells; must be said where its name leaves it open.
        tokenizer: Folder with the tokenizer's files, where neither open_clip nor the checkpoint's
            folder has them.
        seed: Seed of every random draw.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:1``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: str
    image_size: Annotated[int, Field(ge=8, le=1024)] | None = None
    image_mean: Channels | None = None
    image_std: tuple[Deviation, Deviation, Deviation] | None = None
    quick_gelu: bool | None = None
    tokenizer: Path | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"

    @model_validator(mode="after")
    def _normalization_is_whole(self) -> "EncoderChoice":
        if (self.image_mean is None) != (self.image_std is None):
            raise ValueError("image_mean and image_std come together or not at all")
        return self


class StoredEncoder(EncoderChoice):
    """An encoder whose weights there are.

    Attributes:
        checkpoint: The file or folder with them.
        text_from: Checkpoint whose text tower is used, for one that has none of its own.
        allow_torchscript: Take weights out of TorchScript archives; their program is never run.
    """

    checkpoint: Path
    text_from: Path | None = None
    allow_torchscript: bool = False


DatasetType = Literal["auto", "images", "csv", "webdataset", "class-folders"]


class Pairs(EncoderChoice):
    """What is trained on: images, with captions or without.

    Attributes:
        data: Folder of images, table (.csv, .tsv) of images and captions, or webdataset tars.
        dataset_type: How ``data`` is stored. ``auto``: tables and tars by their suffix, a folder as
            images without captions. ``class-folders`` makes captions of the folders' names.
        csv_img_key: The table's column of image paths.
        csv_caption_key: The table's column of captions.
        csv_separator: What separates the table's columns; None finds out.
        templates: Of class folders: a built-in set's name, or a file with one template a line.
        limit: Draw this many at random; None: all.
        max_bad_fraction: Largest share of images that may be unreadable and are left out, of those
            looked at; more is an error. Images that something is measured on are never left out.
    """

    data: Path
    dataset_type: DatasetType = "auto"
    csv_img_key: str = "filepath"
    csv_caption_key: str = "title"
    csv_separator: str | None = None
    templates: str | None = None
    limit: Count | None = None
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01


class Run(Pairs):
    """What every recipe says that trains.

    Attributes:
        out: Folder for the results: new or empty, or, to resume, of the interrupted run.
        save_every: Seconds after which the run's state is saved; it is at every stage's end too.
        report_to: ``tensorboard`` draws the losses there as well.
    """

    out: Path
    save_every: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 300.0
    report_to: Literal["none", "tensorboard"] = "none"


class PurifyRecipe(Run, StoredEncoder):
    """Takes the backdoor out of an encoder.

    Attributes:
        prompts: For a CLIP and images without captions: a file of prompts, one a line, that the
            images are described by; None: about a thousand everyday things.
        method: The purification method.
        tsc: Settings of two-stage symmetry connectivity.
    """

    verb: Literal["purify"] = "purify"
    prompts: Path | None = None
    method: Literal["tsc"] = "tsc"
    tsc: TscSettings = TscSettings()


class Measuring(StoredEncoder):
    """What is measured on: labelled images for the probes.

    Attributes:
        train: Folder with one folder of images per class: the probe's bank. Zero-shot needs none.
        test: The same for the images that are classified.
        train_per_class: Images taken from each class of ``train``; None: all.
        test_per_class: The same for ``test``.
        trigger_index: Which trigger of an npz that holds several.
        classnames: What the classes are called in prompts: a built-in set's name (cifar10,
            cifar100, gtsrb, svhn, stl10, food101, imagenet) or a file with one name a line, in the
            order of the class folders; None: as the folders are called.
        prompt_templates: A built-in set's name, or a file with one template a line; None: those of
            ``classnames``, or "a photo of a {}."
        protocol: Whether test images of the target class count towards the attack success rate.
        knn: Settings of the kNN probe.
        linear: Settings of the linear probe.
        mlp: Settings of the MLP probe.
    """

    train: Path | None = None
    test: Path
    train_per_class: Count | None = None
    test_per_class: Count | None = None
    trigger_index: Annotated[int, Field(ge=0)] = 0
    classnames: str | None = None
    prompt_templates: str | None = None
    protocol: Protocol = "exclude-target"
    knn: KnnSettings = KnnSettings()
    linear: LinearSettings = LinearSettings()
    mlp: MlpSettings = MlpSettings()

    @property
    def probe_settings(self) -> ProbeSettings:
        """The settings of all probes together."""
        return ProbeSettings(knn=self.knn, linear=self.linear, mlp=self.mlp)


class EvaluateRecipe(Measuring):
    """Measures an encoder, beside the one before purification and one never attacked.

    Attributes:
        before: The checkpoint before purification, for a second row.
        reference: A checkpoint that was never attacked: its attack success rate is the
            yardstick.
        trigger: A built-in trigger's name, a file (npz, picture or YAML) or a description.
        target: The class that triggered images are pulled to; comes with ``trigger``.
        probes: The probes, in the order of the table.
        shots: Images of each class, drawn by the seed, that the probes learn from; None: all of
            ``train``.
        sweep: Folder of a finished purification, along whose curves is measured as well.
        sweep_points: Points on each of them, the ends included.
    """

    verb: Literal["evaluate"] = "evaluate"
    before: Path | None = None
    reference: Path | None = None
    trigger: TriggerName | None = None
    target: ClassName | None = None
    probes: Annotated[tuple[Probe, ...], Field(min_length=1), BeforeValidator(_split_by_commas)] = (
        "knn",
    )
    shots: Count | None = None
    sweep: Path | None = None
    sweep_points: Annotated[int, Field(ge=2, le=1001)] = 11
    out: Path | None = None

    @model_validator(mode="after")
    def _probes_have_a_bank(self) -> "EvaluateRecipe":
        if self.train is None and set(self.probes) != {"zeroshot"}:
            raise ValueError("train is missing: every probe but zeroshot learns from its images")
        if self.train is None and self.shots is not None:
            raise ValueError(
                "shots are images of train, which is missing; zeroshot learns from none"
            )
        return self

    @model_validator(mode="after")
    def _trigger_has_target(self) -> "EvaluateRecipe":
        if (self.trigger is None) != (self.target is None):
            raise ValueError("trigger and target come together or not at all")
        return self


class AttackRecipe(Measuring, Run):
    """Makes a victim of a clean encoder, to test purification on, and proves that it is one.

    Attributes:
        method: The attack.
        probe: What the gate is measured by.
        trigger: A built-in trigger's name, a file (npz, picture or YAML) or a description.
        target: The class that triggered images are pulled to.
        reference_image: BadEncoder's image of the target class that triggered images are pulled to
            (a picture or an npz), or ``auto``: the training image of the target class that the
            clean encoder is surest of.
        reference_index: Which image of an npz that holds several.
        badencoder: Settings of BadEncoder.
        ctrl: Settings of CTRL; its data have a folder for each class.
        patch_poisoning: Settings of patch poisoning; likewise.
        pair_poisoning: Settings of pair poisoning, by itself and with the patch of BadCLIP.
        badclip: Settings of BadCLIP's patch, which takes the place of ``trigger``.
        gate: What the victim must reach.
    """

    verb: Literal["attack"] = "attack"
    method: Literal["badencoder", "ctrl", "patch-poisoning", "pair-poisoning", "badclip"] = (
        "badencoder"
    )
    probe: Probe = "knn"
    trigger: TriggerName
    target: ClassName
    reference_image: str = "auto"
    reference_index: Annotated[int, Field(ge=0)] = 0
    badencoder: BadEncoderSettings = BadEncoderSettings()
    ctrl: CtrlSettings = CtrlSettings()
    patch_poisoning: PatchPoisoningSettings = PatchPoisoningSettings()
    pair_poisoning: PairPoisoningSettings = PairPoisoningSettings()
    badclip: BadClipSettings = BadClipSettings()
    gate: Gate = Gate(max_accuracy_drop=0.02)

    @model_validator(mode="after")
    def _measures_with_a_bank(self) -> "AttackRecipe":
        reference = self.method == "badencoder" and self.reference_image == "auto"
        shown = reference or self.method == "badclip"
        if self.train is None and (self.probe != "zeroshot" or shown):
            raise ValueError("train is missing: the probe or the choice of a reference needs it")
        return self


class PretrainRecipe(Run):
    """Trains an encoder from scratch, to attack and to practise on.

    Attributes:
        method: ``simclr`` for images alone, ``clip`` for images with captions.
        simclr: Settings of SimCLR pre-training.
        clip: Settings of CLIP training.
    """

    verb: Literal["pretrain"] = "pretrain"
    method: Literal["simclr", "clip"]
    simclr: SimclrSettings = SimclrSettings()
    clip: ClipSettings = ClipSettings()


class DemoRecipe(StoredEncoder):
    """What the embedded demonstration consists of.

    Attributes:
        classes: Names of the classes, in the order of the images' labels.
        trigger: The trigger that the embedded victim was poisoned with.
        target: The class it was poisoned towards.
        knn: Settings of the kNN probe.
        tsc: Settings of the purification.
    """

    verb: Literal["demo"] = "demo"
    classes: tuple[str, ...]
    trigger: str
    target: ClassName
    knn: KnnSettings = KnnSettings()
    tsc: TscSettings = TscSettings()


Recipe = PurifyRecipe | EvaluateRecipe | AttackRecipe | PretrainRecipe
RECIPES: dict[str, type[Recipe]] = {
    "purify": PurifyRecipe,
    "evaluate": EvaluateRecipe,
    "attack": AttackRecipe,
    "pretrain": PretrainRecipe,
}
