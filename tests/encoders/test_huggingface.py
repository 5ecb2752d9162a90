import json
from copy import deepcopy

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from sslpurify.checkpoint import read
from sslpurify.encoders import create, embed_captions, extract, extract_text, locate, restore
from sslpurify.errors import ConfigError, UnsafeInputError
from sslpurify.statedict import digest
from tests import pico_clip

CAPTIONS = ["a photo of a blue thing", "red", "this is a photo of some thing ."]


@pytest.fixture(scope="module", params=pico_clip.HF_KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    return pico_clip.hf_model(kind)


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    return pico_clip.write_hf(tmp_path_factory.mktemp("hf") / kind, kind)


def encoder_of(checkpoint):
    return create("hf", config=checkpoint.config, tokenizer=checkpoint.path)


def own_embedding(kind, model, pixels):
    """transformers' own answer."""
    with torch.no_grad():
        if kind in ("clip", "siglip"):
            return model.get_image_features(pixel_values=pixels).pooler_output
        return model(pixel_values=pixels).last_hidden_state[:, 0]


def assert_embeds_as_transformers(kind, model, checkpoint):
    encoder = encoder_of(checkpoint)
    layout = locate(checkpoint.tensors, encoder, [])
    batch = pico_clip.images(3)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (encoder.mean, encoder.std))
    expected = own_embedding(kind, model, (batch - mean) / std)
    with torch.no_grad():
        found = encoder.load(extract(checkpoint, layout))(batch).embedding
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert expected.std(0).max() > 1e-3
    assert found.shape == (3, encoder.embedding_dim)
    assert (encoder.family, encoder.image_size, encoder.fixed_size) == ("vit", 32, True)
    restored = restore(checkpoint, layout, extract(checkpoint, layout))
    assert digest(restored.tensors) == digest(checkpoint.tensors)
    return encoder, layout


def test_what_save_pretrained_writes(kind, model, folder):
    assert_embeds_as_transformers(kind, model, read(folder))


def test_the_names_that_the_model_itself_has(kind, model, folder, tmp_path):
    """They differ from those of its files where transformers renames as it loads."""
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    assert_embeds_as_transformers(kind, model, read(tmp_path))


def test_shards(kind, model, tmp_path):
    pico_clip.write_hf(tmp_path / "sharded", kind, max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert_embeds_as_transformers(kind, model, read(tmp_path / "sharded"))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_captions_by_the_folder_s_own_tokenizer(kind, tmp_path):
    model = pico_clip.hf_model(kind)
    checkpoint = read(pico_clip.write_hf(tmp_path / "hf", kind))
    encoder = encoder_of(checkpoint)
    layout = locate(checkpoint.tensors, encoder, [])
    assert layout.ignored == ()
    tokens = encoder.text.tokenize(CAPTIONS)
    assert tokens.shape == (3, 16)
    assert tokens[1].tolist() == [pico_clip.WORDS.index("red")] + [0] * 15
    tower = encoder.text.load(extract_text(checkpoint, layout.text))
    with torch.no_grad():
        expected = model.get_text_features(input_ids=tokens).pooler_output
    found = embed_captions(tower, encoder.text.tokenize, CAPTIONS)
    torch.testing.assert_close(found, F.normalize(expected, dim=1), rtol=1e-5, atol=1e-6)
    assert tower.scale == pytest.approx(float(model.logit_scale.detach().exp()))
    assert (tower.bias is None) == (kind == "clip")
    without = create("hf", config=checkpoint.config)
    with pytest.raises(ConfigError, match="--tokenizer"):
        without.text.tokenize(CAPTIONS)
    with pytest.raises(ConfigError, match="no tokenizer can be read"):
        create("hf", config=checkpoint.config, tokenizer=tmp_path).text.tokenize(CAPTIONS)


def test_vision_only_models_have_no_text_side(tmp_path):
    for kind in ("vit", "dinov2"):
        checkpoint = read(pico_clip.write_hf(tmp_path / kind, kind))
        assert encoder_of(checkpoint).text is None


def config(kind: str, **changes):
    tree = deepcopy(pico_clip.hf_model(kind).config.to_dict())
    for place, value in changes.items():
        part, _, key = place.rpartition("__")
        (tree[part] if part else tree)[key] = value
    return json.loads(json.dumps(tree))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("clip", {"model_type": "llama"}),
        ("clip", {"model_type": None}),
        ("clip", {"model_type": ["clip"]}),
        ("clip", {"vision_config__num_attention_heads": 3}),
        ("clip", {"vision_config__num_attention_heads": 0}),
        ("clip", {"vision_config__patch_size": 0}),
        ("clip", {"vision_config__patch_size": "x"}),
        ("clip", {"vision_config__hidden_act": "eval"}),
        ("clip", {"vision_config__num_hidden_layers": 0}),
        ("clip", {"text_config__num_attention_heads": 3}),
        ("clip", {"vision_config": 3}),
        ("siglip", {"vision_config__image_size": "big"}),
        ("vit", {"num_attention_heads": 0}),
        ("dinov2", {"hidden_size": -16}),
    ],
)
def test_a_configuration_that_cannot_be_built_is_our_error(kind, change):
    with pytest.raises(ConfigError, match=r"config\.json"):
        create("hf", config=config(kind, **change))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("clip", {"vision_config__num_hidden_layers": 10**6}),
        ("clip", {"text_config__vocab_size": 10**10}),
        ("vit", {"hidden_size": 10**8}),
    ],
)
def test_absurd_sizes_are_refused_before_anything_is_built(kind, change):
    with pytest.raises(UnsafeInputError, match="no encoder has more than"):
        create("hf", config=config(kind, **change))


def test_a_folder_is_needed():
    with pytest.raises(ConfigError, match="name that folder"):
        create("hf")
