"""Images to tensors: reading, batching, two random views; label-free sets have no label field."""

from sslpurify.data.decode import ImageError, decode_image, open_image
from sslpurify.data.images import (
    ImageSet,
    LabelledImages,
    epoch_batches,
    from_pixels,
    read_images,
    read_labelled,
    subset,
)
from sslpurify.data.views import ViewSettings, augment, two_views

__all__ = [
    "ImageError",
    "ImageSet",
    "LabelledImages",
    "ViewSettings",
    "augment",
    "decode_image",
    "epoch_batches",
    "from_pixels",
    "open_image",
    "read_images",
    "read_labelled",
    "subset",
    "two_views",
]
