import pytest
import torch

from sslpurify.errors import CheckpointError, TrainingError
from sslpurify.probes.mlp import MlpSettings, _forward, _start, mlp_predict
from sslpurify.rng import generator
from tests.probes.clusters import clusters

BANK, LABELS = clusters(300, seed=1)
QUERIES, TRUTH = clusters(200, seed=2)
FAST = MlpSettings(epochs=10, learning_rate=1e-3, batch_size=32)


def test_it_learns_and_generalises():
    found = mlp_predict(BANK, LABELS, QUERIES, 5, 0, FAST)
    assert (found == TRUTH).float().mean() > 0.9


def test_it_is_a_function_of_its_seed_and_of_no_global_state():
    before = torch.get_rng_state()
    settings = MlpSettings(epochs=1, learning_rate=1e-4)
    noise = torch.randn(400, 16, generator=generator(0, "noise"))
    first = mlp_predict(BANK, LABELS, noise, 5, 0, settings)
    torch.manual_seed(1)
    again = mlp_predict(BANK, LABELS, noise, 5, 0, settings)
    torch.set_rng_state(before)
    assert torch.equal(first, again)
    assert not torch.equal(first, mlp_predict(BANK, LABELS, noise, 5, 1, settings))
    assert torch.equal(before, torch.get_rng_state())


def test_the_layers_are_badencoders():
    layers = _start(64, 10, generator(0))
    assert [tuple(layer.shape) for layer in layers] == [
        (512, 64), (512,), (256, 512), (256,), (10, 256), (10,),
    ]  # fmt: skip
    bound = 64**-0.5
    assert 0.99 * bound < layers[0].detach().abs().max() <= bound


def test_dropout_keeps_half_of_the_first_hidden_layer_and_its_mean():
    # Hidden units are 1; the next layers add them up, so the output counts what was kept.
    layers = [
        torch.zeros(512, 4), torch.ones(512), torch.ones(256, 512) / 512, torch.zeros(256),
        torch.ones(1, 256) / 256, torch.zeros(1),
    ]  # fmt: skip
    points = torch.zeros(2000, 4)
    dropped = _forward(layers, points, generator(0))
    assert torch.equal(_forward(layers, points, None), torch.ones(2000, 1))
    assert dropped.mean() == pytest.approx(1, abs=0.01)
    assert dropped.std() == pytest.approx(512**-0.5, rel=0.1)


def test_a_loss_that_explodes_is_an_error():
    with pytest.raises(TrainingError, match=r"in epoch 1: lower mlp\.learning_rate"):
        mlp_predict(BANK, LABELS, QUERIES, 5, 0, MlpSettings(epochs=3, learning_rate=1e30))


def test_unusable_embeddings_are_refused():
    with pytest.raises(CheckpointError, match="collapsed"):
        mlp_predict(torch.ones(300, 16), LABELS, QUERIES, 5, 0, FAST)


def test_embeddings_made_in_inference_mode_are_welcome():
    with torch.inference_mode():
        bank = BANK * 1
    settings = MlpSettings(epochs=1)
    assert mlp_predict(bank, LABELS, QUERIES, 5, 0, settings).shape == (200,)
