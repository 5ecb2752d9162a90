"""Images to tensors: reading, batching, two random views; label-free sets have no label field."""

from sslpurify.data.decode import ImageError, decode_image, open_image
from sslpurify.data.drawing import read_images
from sslpurify.data.images import (
    ImageSet,
    LabelledImages,
    epoch_batches,
    from_pixels,
    read_labelled,
    replaced,
    step_batch,
    subset,
)
from sslpurify.data.pairs import CaptionedImages, PairsKind, pairs_kind, read_pairs
from sslpurify.data.prompts import (
    SIMPLE_TEMPLATES,
    PromptSet,
    PromptSetName,
    class_prompts,
    names_of_folders,
    prompt_set,
    read_names,
    read_templates,
    vocabulary,
)
from sslpurify.data.sources import Source, TarMember
from sslpurify.data.views import ViewSettings, augment, draw, render

__all__ = [
    "SIMPLE_TEMPLATES",
    "CaptionedImages",
    "ImageError",
    "ImageSet",
    "LabelledImages",
    "PairsKind",
    "PromptSet",
    "PromptSetName",
    "Source",
    "TarMember",
    "ViewSettings",
    "augment",
    "class_prompts",
    "decode_image",
    "draw",
    "epoch_batches",
    "from_pixels",
    "names_of_folders",
    "open_image",
    "pairs_kind",
    "prompt_set",
    "read_images",
    "read_labelled",
    "read_names",
    "read_pairs",
    "read_templates",
    "render",
    "replaced",
    "step_batch",
    "subset",
    "vocabulary",
]
