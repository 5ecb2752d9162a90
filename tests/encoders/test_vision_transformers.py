import pytest
import timm
import torch
from torch import nn
from torchvision.models import VisionTransformer

from sslpurify.encoders import HeadLayout, create, default_head, locate
from sslpurify.errors import ConfigError
from tests import pico_clip

NAMES = {"torchvision/vit_b_32": 64, "timm/vit_tiny_patch16_224": 32}


def library_s(name: str, size: int) -> nn.Module:
    library, _, model = name.partition("/")
    if library == "timm":
        return timm.create_model(model, num_classes=0, img_size=size).eval()
    made = VisionTransformer(size, 32, 12, 12, 768, 3072)
    made.heads = nn.Identity()
    return made.eval()


@pytest.mark.parametrize(("name", "size"), NAMES.items())
def test_embeddings_are_those_of_the_library(name, size):
    model = library_s(name, size)
    encoder = create(name, image_size=size)
    assert (encoder.family, encoder.image_size, encoder.fixed_size) == ("vit", size, True)
    tensors = model.state_dict()
    layout = locate({f"module.{key}": tensor for key, tensor in tensors.items()}, encoder, [])
    assert (layout.prefix, layout.ignored) == ("module.", ())
    network = encoder.fresh(0).eval()
    network.backbone.load_state_dict(tensors)
    batch = pico_clip.images(2, size=size)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (encoder.mean, encoder.std))
    with torch.no_grad():
        found, expected = network(batch).embedding, model((batch - mean) / std)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert found.shape == (2, encoder.embedding_dim)
    assert encoder.head == default_head(encoder.embedding_dim)
    assert encoder.text is None


def test_the_library_s_own_size_and_a_head_as_given():
    head = HeadLayout(8, 4, last_norm=False)
    encoder = create("timm/vit_tiny_patch16_224", head=head)
    assert (encoder.image_size, encoder.mean, encoder.head) == (224, (0.5, 0.5, 0.5), head)
    assert create("timm/vit_tiny_patch16_224", std=(1.0, 1.0, 1.0)).std == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("torchvision/resnet18", None),
        ("torchvision/vit_b_17", None),
        ("torchvision/vit_b_16", 100),
        ("torchvision/", None),
        ("timm/resnet18", None),
        ("timm/hf-hub:someone/vit", None),
        ("timm/vit_tiny_r_s16_p8_224", None),
    ],
)
def test_other_names_and_sizes_are_refused(name, size):
    with pytest.raises(ConfigError):
        create(name, image_size=size)
