import json
import socket
from copy import deepcopy

import pytest
import torch
from open_clip import CLIP, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.tokenizer import SimpleTokenizer

from sslpurify.checkpoint import new
from sslpurify.encoders import (
    asks_activation,
    candidates,
    create,
    embed_captions,
    extract,
    extract_text,
    guess,
    locate,
    restore,
)
from sslpurify.encoders.open_clip import open_clip_encoder
from sslpurify.errors import CheckpointError, ConfigError, SslPurifyError, UnsafeInputError
from sslpurify.statedict import digest, identical
from tests import pico_clip

KINDS = list(pico_clip.CONFIGS)
CAPTIONS = ["a photo of a dog", "a truck", "a photo of a dog", "something much longer than that"]


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def encoder(kind):
    return open_clip_encoder("open_clip/pico.json", pico_clip.CONFIGS[kind], tokenize=tokens)


@pytest.fixture(scope="module")
def model(kind):
    return pico_clip.model(kind)


def tokens(captions):
    """A tokenizer for a vocabulary of 50."""
    rows = [[1 + sum(map(ord, word)) % 48 for word in caption.split()] for caption in captions]
    return torch.tensor([(row + [0] * 16)[:16] for row in rows])


def normalized(encoder, images):
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (encoder.mean, encoder.std))
    return (images - mean) / std


def located(model, encoder, prefix=""):
    checkpoint = new({prefix + name: tensor for name, tensor in model.state_dict().items()})
    return checkpoint, locate(checkpoint.tensors, encoder, [])


def test_image_embeddings_are_those_of_open_clip(model, encoder):
    checkpoint, layout = located(model, encoder)
    batch = pico_clip.images(3)
    with torch.no_grad():
        expected = model.encode_image(normalized(encoder, batch))
        found = encoder.load(extract(checkpoint, layout))(batch).embedding
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert expected.std(0).max() > 1e-4
    assert found.shape == (3, encoder.embedding_dim)


def test_caption_embeddings_scale_and_bias_are_those_of_open_clip(model, encoder):
    checkpoint, layout = located(model, encoder)
    assert layout.text is not None
    tower = encoder.text.load(extract_text(checkpoint, layout.text))
    found = embed_captions(tower, tokens, CAPTIONS, batch_size=2)
    with torch.no_grad():
        expected = model.encode_text(tokens(CAPTIONS), normalize=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert tower.scale == pytest.approx(float(model.logit_scale.detach().exp()))
    bias = model.logit_bias
    assert tower.bias == (None if bias is None else pytest.approx(float(bias.detach())))
    assert not any(parameter.requires_grad for parameter in tower.parameters())


def test_towers_of_a_model_are_told_from_the_rest_and_go_back_bit_for_bit(kind, model, encoder):
    for prefix in ("", "module."):
        checkpoint, layout = located(model, encoder, prefix)
        assert layout.prefix == f"{prefix}visual."
        assert layout.ignored == ()
        place = f"{prefix}text." if kind in ("custom", "siglip") else prefix
        assert layout.text["network.token_embedding.weight"] == f"{place}token_embedding.weight"
        assert layout.text["logit_scale"] == f"{prefix}logit_scale"
        text = extract_text(checkpoint, layout.text)
        restored = restore(checkpoint, layout, extract(checkpoint, layout), text)
        assert digest(restored.tensors) == digest(checkpoint.tensors)
        moved = {name: tensor + 1 for name, tensor in text.items()}
        after = restore(checkpoint, layout, extract(checkpoint, layout), moved)
        changed = {n for n, t in after.tensors.items() if not identical(t, checkpoint.tensors[n])}
        assert changed == set(layout.text.values())


@pytest.mark.parametrize("prefix", ["visual.", "", "module.visual.", "model."])
def test_a_tower_alone_is_found_and_goes_back_bit_for_bit(model, encoder, prefix):
    tower = {prefix + name: t.half() if t.is_floating_point() else t
             for name, t in model.visual.state_dict().items()}  # fmt: skip
    checkpoint = new(tower)
    layout = locate(tower, encoder, [])
    assert (layout.prefix, layout.text, layout.ignored) == (prefix, None, ())
    restored = restore(checkpoint, layout, extract(checkpoint, layout))
    assert digest(restored.tensors) == digest(tower)


def test_a_text_tower_that_lacks_a_tensor_is_none(model, encoder):
    tensors = dict(model.state_dict())
    del tensors[next(name for name in tensors if name.endswith("ln_final.weight"))]
    assert locate(tensors, encoder, []).text is None


def test_a_scale_with_an_axis_is_the_same_scale_and_keeps_its_axis():
    encoder = create_pico("rn")
    tensors = pico_clip.state("rn")
    tensors["logit_scale"] = tensors["logit_scale"].reshape(1)
    layout = locate(tensors, encoder, [])
    text = extract_text(new(tensors), layout.text)
    assert text["logit_scale"].shape == ()
    text["logit_scale"] = torch.tensor(1.5)
    after = restore(new(tensors), layout, extract(new(tensors), layout), text)
    assert after.tensors["logit_scale"].tolist() == [1.5]


def create_pico(kind: str, **options):
    return open_clip_encoder("open_clip/pico.json", pico_clip.CONFIGS[kind], **options)


def test_a_part_of_a_tower_is_refused():
    tensors = pico_clip.state("vit")
    del tensors["visual.ln_post.bias"]
    with pytest.raises(CheckpointError, match=r"missing are 'ln_post\.bias'"):
        locate(tensors, create_pico("vit"), [])


def test_built_in_names_and_files_mean_the_same(tmp_path):
    config = pico_clip.write_config(tmp_path / "mine.json", "vit")
    from_file = create(f"open_clip/{config}")
    assert from_file.shapes == create_pico("vit").shapes
    assert (from_file.family, from_file.image_size, from_file.fixed_size) == ("vit", 32, True)
    assert create_pico("rn").family == "modified-resnet"
    full = create("open_clip/RN50", quick_gelu=True)
    assert (full.image_size, full.embedding_dim, full.head) == (224, 1024, None)
    assert full.shapes["conv1.weight"] == (32, 3, 3, 3)
    with pytest.raises(ConfigError, match="no model of this name"):
        create("open_clip/RN51")
    with pytest.raises(ConfigError, match="unknown architecture"):
        create("open_clip/")


MEAN, STD = [0.0, 0.25, 0.5], [0.2, 0.25, 1]


@pytest.mark.parametrize("architecture", ["hf", "file", "open_clip/ViT-B-32"])
def test_normalization_is_that_of_the_configuration(tmp_path, architecture):
    config = {
        "model_cfg": pico_clip.CONFIGS["vit"],
        "preprocess_cfg": {"mean": MEAN, "std": STD, "interpolation": "bicubic"},
    }
    if architecture == "file":
        (tmp_path / "mine.json").write_text(json.dumps(config))
        architecture, config = f"open_clip/{tmp_path / 'mine.json'}", None
    encoder = create(architecture, config=config)
    assert (encoder.mean, encoder.std) == (tuple(MEAN), tuple(STD))
    asked = create(architecture, config=config, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert (asked.mean, asked.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.mark.parametrize("preprocess", [{}, None, {"mean": None}, {"interpolation": "bicubic"}])
def test_a_configuration_that_says_nothing_of_normalization_means_the_usual_one(preprocess):
    config = {"model_cfg": pico_clip.CONFIGS["vit"], "preprocess_cfg": preprocess}
    encoder = create("hf", config=config)
    assert (encoder.mean, encoder.std) == (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("mean", [0.5, 0.5]),
        ("mean", 0.5),
        ("std", [0.5, 0.5, "0.5"]),
        ("std", [0.5, 0, 0.5]),
        ("std", [10**400] * 3),
        ("mean", [-0.5] * 3),
    ],
)
def test_a_normalization_that_is_none(name, values):
    config = {"model_cfg": pico_clip.CONFIGS["vit"], "preprocess_cfg": {name: values}}
    with pytest.raises(ConfigError, match=f"{name} of preprocess_cfg"):
        create("hf", config=config)


def test_the_activation_is_asked_for_where_the_name_leaves_it_open():
    assert asks_activation("open_clip/RN50")
    assert asks_activation("open_clip/ViT-B-32")
    assert not asks_activation("open_clip/RN50-quickgelu")
    assert not asks_activation("open_clip/ViT-B-16-SigLIP")
    assert not asks_activation("open_clip/mine.json")
    assert not asks_activation("simclr/resnet18")
    with pytest.raises(ConfigError, match="no model of this name"):
        asks_activation("open_clip/RN51")


def test_quick_gelu_is_another_network_of_the_same_tensors():
    plain, quick = (create_pico("vit", quick_gelu=value) for value in (False, True))
    assert plain.shapes == quick.shapes
    checkpoint, layout = located(pico_clip.model("vit"), plain)
    state, batch = extract(checkpoint, layout), pico_clip.images(2)
    with torch.no_grad():
        one, two = (encoder.load(state)(batch).embedding for encoder in (plain, quick))
        config = deepcopy(dict(pico_clip.VIT)) | {"quick_gelu": True}
        forced = CLIP(**config).eval()
        forced.load_state_dict(checkpoint.tensors)
        expected = forced.encode_image(normalized(quick, batch))
    torch.testing.assert_close(two, expected, rtol=1e-6, atol=1e-6)
    assert (one - two).abs().max() > 1e-3


def test_captions_are_cut_to_the_context_of_the_model():
    encoder = create_pico("rn")
    expected = SimpleTokenizer(context_length=16)(CAPTIONS)
    assert torch.equal(encoder.text.tokenize(CAPTIONS), expected)


def test_a_tokenizer_that_is_not_built_in_is_asked_for():
    config = deepcopy(dict(pico_clip.SIGLIP))
    config["text_cfg"] = config["text_cfg"] | {"hf_tokenizer_name": "timm/ViT-B-16-SigLIP"}
    encoder = open_clip_encoder("open_clip/siglip.json", config)
    with pytest.raises(ConfigError, match="--tokenizer"):
        encoder.text.tokenize(["a"])


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("something asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def changed(kind: str, **changes):
    config = deepcopy(dict(pico_clip.CONFIGS[kind]))
    for place, value in changes.items():
        part, _, key = place.partition("__")
        if key:
            config[part] = config[part] | {key: value}
        elif value is None:
            del config[part]
        else:
            config[part] = value
    return config


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("siglip", {"vision_cfg__timm_model_name": "hf-hub:someone/model"}),
        ("siglip", {"vision_cfg__timm_model_name": "local-dir:/tmp/model"}),
        ("siglip", {"vision_cfg__timm_model_name": "resnet18"}),
        ("siglip", {"vision_cfg__timm_model_name": 3}),
        ("siglip", {"vision_cfg__timm_proj": "linear"}),
        ("siglip", {"vision_cfg__timm_pool": "other"}),
        ("vit", {"vision_cfg__patch_size": 0}),
        ("vit", {"vision_cfg__patch_size": "x"}),
        ("vit", {"vision_cfg__image_size": [32, 64]}),
        ("vit", {"vision_cfg__head_width": 0}),
        ("vit", {"vision_cfg__code": "import os"}),
        ("vit", {"vision_cfg__pos_embed_type": "other"}),
        ("vit", {"vision_cfg__layers": -1}),
        ("rn", {"vision_cfg__layers": [1, 1]}),
        ("siglip", {"vision_cfg__image_size": 64}),
        ("vit", {"text_cfg__heads": 0}),
        ("vit", {"text_cfg__pool_type": "other"}),
        ("vit", {"vision_cfg": None}),
        ("vit", {"text_cfg": None}),
        ("vit", {"embed_dim": None}),
        ("vit", {"embed_dim": "12"}),
        ("vit", {"vision_cfg": [1]}),
    ],
)
@pytest.mark.usefixtures("offline")
def test_a_configuration_that_cannot_be_built_is_our_error(kind, change):
    with pytest.raises(ConfigError, match=r"open_clip/mine\.json"):
        open_clip_encoder("open_clip/mine.json", changed(kind, **change))


@pytest.mark.parametrize(
    "change",
    [
        {"vision_cfg__layers": 10**9},
        {"vision_cfg__width": 10**9},
        {"vision_cfg__image_size": 10**9},
        {"text_cfg__vocab_size": 10**12},
        {"text_cfg__layers": 1000},
        {"embed_dim": 10**9},
    ],
)
def test_absurd_sizes_are_refused_before_anything_is_built(change):
    with pytest.raises(UnsafeInputError, match="no encoder has more than"):
        open_clip_encoder("open_clip/mine.json", changed("vit", **change))


@pytest.mark.usefixtures("offline")
def test_a_text_tower_that_lies_on_the_hub_is_none():
    config = changed("vit", text_cfg__hf_model_name="someone/model")
    assert open_clip_encoder("open_clip/mine.json", config).text is None


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"model_cfg": 3}', '{"model_cfg": {}}', "\0", '{"text_cfg": 3}']
)
def test_a_file_that_is_no_configuration(tmp_path, text):
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(SslPurifyError, match=r"mine\.json"):
        create(f"open_clip/{path}")
    with pytest.raises(SslPurifyError, match=r"missing\.json"):
        create(f"open_clip/{tmp_path / 'missing.json'}")


@pytest.mark.slow
def test_full_size_towers_are_guessed():
    for name in ("RN50", "ViT-B-32"):
        encoder = create(f"open_clip/{name}", quick_gelu=False)
        tensors = {f"visual.{name}": torch.empty(shape, device="meta")
                   for name, shape in encoder.shapes.items()}  # fmt: skip
        best = guess(tensors, candidates(tensors))[0]
        assert best.confidence == 1
        assert best.architecture.startswith(f"open_clip/{name}")
