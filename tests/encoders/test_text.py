import pytest
import torch
from torch.nn import functional as F

from sslpurify.encoders import TextTower, embed_captions
from tests.encoders.test_open_clip import create_pico


class Counting(TextTower):
    """A text tower that says how many captions it saw at a time."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Embedding(256, 5))
        self.seen: list[int] = []

    def forward(self, tokens):
        self.seen.append(len(tokens))
        return self.network(tokens).sum(1)


def letters(captions):
    return torch.tensor([[ord(letter) for letter in caption.ljust(4)] for caption in captions])


def test_equal_captions_are_embedded_once_and_stand_where_they_stood():
    tower, told = Counting().eval(), []
    captions = ["dog", "cat", "dog", "bird", "cat"]
    found = embed_captions(tower, letters, captions, batch_size=2, listener=told.append)
    assert tower.seen == [2, 1]
    with torch.no_grad():
        expected = F.normalize(tower.network(letters(captions)).sum(1), dim=1)
    torch.testing.assert_close(found, expected)
    assert torch.equal(found[0], found[2])
    assert not found.is_inference()
    assert [(step.step, step.steps, step.images) for step in told] == [(1, 2, 2), (2, 2, 1)]


def test_fresh_towers_are_a_function_of_the_seed():
    side = create_pico("vit").text
    one, two, other = (side.fresh(seed).state_dict() for seed in (0, 0, 1))
    name = "network.token_embedding.weight"
    assert torch.equal(one[name], two[name])
    assert not torch.equal(one[name], other[name])


def test_a_tower_that_lacks_a_tensor_is_not_loaded():
    side = create_pico("vit").text
    state = dict(side.fresh(0).state_dict())
    del state["logit_scale"]
    with pytest.raises(RuntimeError, match="logit_scale"):
        side.load(state)


def test_only_sigmoid_models_have_a_bias():
    assert create_pico("vit").text.fresh(0).bias is None
    assert create_pico("siglip").text.fresh(0).bias == -10
