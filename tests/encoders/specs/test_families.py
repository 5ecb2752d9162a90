"""What is particular to a family: its groups at full size, and what is refused."""

import pytest
import timm
import torch
import transformers
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer as OpenClipViT
from timm.models.vision_transformer import ParallelScalingBlock, ResPostBlock
from torch import nn
from torchvision.models import resnet50, vit_b_32
from torchvision.models.vision_transformer import ConvStemConfig

from sslpurify.encoders.specs import (
    hf_vision_spec,
    modified_resnet_spec,
    open_clip_vit_spec,
    sections_of,
    timm_vit_spec,
    torchvision_vit_spec,
)
from sslpurify.errors import ConfigError
from sslpurify.symmetry.permutation import Permutation
from sslpurify.symmetry.spec import Fixed
from tests.encoders.specs import families
from tests.symmetry import adapter
from tests.symmetry.networks import images, randomize


def rn50() -> nn.Module:
    return ModifiedResNet([3, 4, 6, 3], output_dim=1024, heads=32)


def vit_b_32_of_open_clip() -> nn.Module:
    return OpenClipViT(224, 32, 768, 12, 12, 4.0, output_dim=512)


def hf_clip() -> nn.Module:
    config = transformers.CLIPVisionConfig(patch_size=32)
    return families.Embedding(transformers.CLIPVisionModelWithProjection(config), "image_embeds")


def hf_dinov2() -> nn.Module:
    config = transformers.Dinov2Config()
    return families.Embedding(transformers.Dinov2Model(config), "last_hidden_state")


FULL_SIZE = {
    "open_clip-RN50": (rn50, modified_resnet_spec, 104),
    "open_clip-ViT-B-32": (vit_b_32_of_open_clip, open_clip_vit_spec, 12 * 26 + 1),
    "hf-clip-base": (hf_clip, families.hf_spec, 12 * 26 + 1),
    "hf-dinov2-base": (hf_dinov2, families.hf_spec, 12 * 26),
}


@pytest.mark.slow
@pytest.mark.parametrize(("make", "spec", "groups"), FULL_SIZE.values(), ids=FULL_SIZE.keys())
def test_full_size_networks_keep_their_function(make, spec, groups):
    network = randomize(make())
    found = spec(network, "")
    assert len(found.groups) == groups
    state, batch = network.state_dict(), images(1, 224)
    drawn = Permutation.random(found, torch.Generator().manual_seed(0))
    expected = adapter.outputs(network, state, batch)
    result = adapter.outputs(network, drawn.apply(state), batch)
    assert adapter.relative_error(result, expected) < 1e-9
    assert expected.abs().max() > 1e-3
    adapter.assert_same(drawn.inverse().apply(drawn.apply(state)), state)


def names(spec, kind):
    return [group.name for group in spec.groups if group.kind == kind]


def test_all_streams_of_a_resnet_with_an_attention_pool_are_free():
    with torch.device("meta"):
        network = rn50()
    spec = modified_resnet_spec(network)
    streams = ["stem", "layer1.0", "layer2.0", "layer3.0", "layer4.0"]
    assert names(spec, "residual") == streams
    assert len(names(spec, "inner")) == 2 + 32
    assert [len(names(spec, kind)) for kind in ("heads", "qk", "vo")] == [1, 32, 32]
    for axis in (Fixed("backbone.attnpool.c_proj.weight", 0), Fixed("backbone.conv1.weight", 1)):
        assert axis in spec.fixed


def test_norms_that_all_heads_share_make_one_group_of_queries_and_keys():
    spec = timm_vit_spec(families.timm(qk_norm=True)(), "")
    assert names(spec, "qk") == ["blocks.0.attn.qk", "blocks.1.attn.qk"]
    assert len(names(spec, "vo")) == 2 * 3


def test_the_latent_query_of_a_pool_stays():
    spec = timm_vit_spec(families.FAMILIES["timm-siglip"].make(), "")
    assert {Fixed("attn_pool.latent", 2), Fixed("attn_pool.q.weight", 1)} <= {*spec.fixed}


class TestSections:
    def test_of_a_resnet_with_an_attention_pool(self):
        with torch.device("meta"):
            first, *_, last = sections_of(rn50())
        assert first == ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "layer1")
        assert last == ("layer4", "attnpool")

    def test_of_a_plain_resnet(self):
        with torch.device("meta"):
            network = resnet50()
        assert sections_of(network)[1:] == (("layer2",), ("layer3",), ("layer4", "fc"))
        network.fc = nn.Identity()
        assert sections_of(network)[3] == ("layer4",)

    def test_of_a_transformer_are_equal_parts_of_its_blocks(self):
        with torch.device("meta"):
            network = vit_b_32_of_open_clip()
        first, second, _, last = sections_of(network)
        blocks = [f"transformer.resblocks.{number}" for number in range(12)]
        outside = ("class_embedding", "positional_embedding", "conv1", "ln_pre")
        assert first == (*outside, *blocks[:3])
        assert second == tuple(blocks[3:6])
        assert last == (*blocks[9:], "ln_post", "proj")

    def test_of_fewer_blocks_than_parts_are_the_blocks(self):
        assert len(sections_of(families.timm(depth=2)())) == 2
        assert [len(part) for part in sections_of(families.timm(depth=7)())] == [4, 2, 2, 3]

    def test_of_anything_else_are_refused(self):
        with pytest.raises(ConfigError, match="no family of architectures has a Linear"):
            sections_of(nn.Linear(1, 1))


def torchvision_stem() -> nn.Module:
    stem = [ConvStemConfig(8, 3, 2)]
    return vit_b_32(image_size=32, conv_stem_configs=stem)


def with_grouped_patches() -> nn.Module:
    network = families.timm()()
    network.patch_embed.proj = nn.Conv2d(3, 12, 8, 8, groups=3)
    return network


def with_replaced_linear() -> nn.Module:
    network = families.open_clip()()
    network.transformer.resblocks[1].mlp.c_fc = nn.Identity()
    return network


def with_another_norm() -> nn.Module:
    network = families.timm()()
    network.blocks[1].norm2 = nn.BatchNorm1d(12)
    return network


def with_an_extra_parameter() -> nn.Module:
    network = families.torchvision(classes=False)()
    network.encoder.register_parameter("scale", nn.Parameter(torch.ones(12)))
    return network


def rope() -> nn.Module:
    return timm.create_model("vit_small_patch16_rope_224.naver_in1k")


REFUSED = {
    "pooler": (
        families.open_clip(attentional_pool=True, attn_pooler_heads=3),
        open_clip_vit_spec,
        "attn_pool is an attentional pooler",
    ),
    "cosine": (
        families.open_clip(scaled_cosine_attn=True),
        open_clip_vit_spec,
        "axis 0 of 'transformer.resblocks.0.attn.logit_scale'",
    ),
    "linear": (with_replaced_linear, open_clip_vit_spec, r"1\.mlp\.c_fc is no linear layer"),
    "post-norm": (
        families.timm(block_fn=ResPostBlock),
        timm_vit_spec,
        r"blocks\.0 is timm.ResPostBlock",
    ),
    "parallel": (
        families.timm(block_fn=ParallelScalingBlock),
        timm_vit_spec,
        r"blocks\.0 is timm.ParallelScalingBlock",
    ),
    "rope": (rope, timm_vit_spec, "the module is timm.Eva"),
    "attention": (
        families.timm(attn_layer="diff"),
        timm_vit_spec,
        r"blocks\.0\.attn is timm.DiffAttention",
    ),
    "prr-pool": (
        families.timm(global_pool="prr"),
        timm_vit_spec,
        "attn_pool is timm.AttentionPoolPrr",
    ),
    "grouped": (with_grouped_patches, timm_vit_spec, "patch_embed.proj is not a plain convolution"),
    "norm": (with_another_norm, timm_vit_spec, r"blocks\.1\.norm2 is BatchNorm1d"),
    "stem": (torchvision_stem, torchvision_vit_spec, "conv_proj is not a plain convolution"),
    "parameter": (with_an_extra_parameter, torchvision_vit_spec, "axis 0 of 'encoder.scale'"),
    "text": (
        lambda: transformers.CLIPTextModel(transformers.CLIPTextConfig(num_hidden_layers=1)),
        hf_vision_spec,
        "the module is transformers.CLIPTextModel",
    ),
    "resnet": (resnet50, modified_resnet_spec, "the module is torchvision.ResNet"),
}


@pytest.mark.parametrize(("make", "spec", "cause"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_described_is_refused_by_name(make, spec, cause):
    with torch.device("meta"):
        network = make()
    with pytest.raises(ConfigError, match=cause):
        spec(network, "")
