import pytest
import torch
from torch import Tensor, nn

from sslpurify.errors import ConfigError
from sslpurify.symmetry.observing import observe
from sslpurify.symmetry.spec import Linear, Probe


class Shared(nn.Module):
    """A ReLU in place that runs twice, and a layer that may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(4, 2, 1)
        self.unused = nn.Identity()
        self.fail = False

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.relu(self.norm(self.first(images)))
        if self.fail:
            raise RuntimeError("broken")
        return self.relu(self.second(hidden))


BATCH = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))


def look(network: nn.Module, *probes: Probe, batch: Tensor = BATCH) -> dict[Probe, Tensor]:
    seen: dict[Probe, Tensor] = {}
    observe(network, batch, probes, lambda probe, values: seen.update({probe: values.clone()}))
    return seen


def hooks(network: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def test_pixels_are_samples_and_channels_columns():
    network = Shared().eval()
    reader, writer = Probe("second"), Probe("first", "output")
    seen = look(network, reader, writer)
    with torch.no_grad():
        before = network.first(BATCH)
        after = network.norm(before).relu()
    flat = before.permute(0, 2, 3, 1).reshape(50, 4)
    torch.testing.assert_close(seen[writer], flat)
    torch.testing.assert_close(seen[reader], after.permute(0, 2, 3, 1).reshape(50, 4))


def test_tokens_are_samples_and_a_fused_projection_is_applied():
    network = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 9))
    fused = Probe("1", "input", "channels-last", Linear("1.weight", "1.bias", 3, 6))
    bare = Probe("1", "input", "channels-last", Linear("1.weight", None, 0, 2))
    tokens = torch.rand(2, 7, 6)
    seen = look(network, fused, bare, batch=tokens)
    with torch.no_grad():
        expected = network(tokens).reshape(14, 9)
    torch.testing.assert_close(seen[fused], expected[:, 3:6])
    torch.testing.assert_close(seen[bare], expected[:, :2] - network[1].bias.detach()[:2])


def test_modes_and_hooks_come_back_and_statistics_do_not_move():
    network = Shared()
    network.second.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    look(network, Probe("second"), Probe("norm", "output"))
    assert hooks(network) == 0
    assert network.training
    assert network.norm.training
    assert not network.second.training
    assert all(torch.equal(tensor, before[n]) for n, tensor in network.state_dict().items())


def test_modes_and_hooks_come_back_after_an_error():
    network = Shared()
    network.fail = True
    with pytest.raises(RuntimeError, match="broken"):
        look(network, Probe("second"), Probe("norm"))
    assert hooks(network) == 0
    assert network.norm.training


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (Probe("third"), "the input of 'third': the network has no such module"),
        (Probe("unused"), "the input of 'unused' was not reached"),
        (Probe("relu"), "the input of 'relu' is not one tensor, once"),
    ],
)
def test_a_probe_that_does_not_fit_is_named(probe, message):
    network = Shared()
    with pytest.raises(ConfigError, match=message):
        look(network, Probe("second"), probe)
    assert hooks(network) == 0


def test_a_tuple_is_no_activation():
    class Pair(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return images, images

    with pytest.raises(ConfigError, match="not one tensor"):
        look(nn.Sequential(Pair()), Probe("0", "output"))


def test_what_is_seen_is_looked_at_outside_autocast():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
    seen: list[tuple[torch.dtype, torch.dtype]] = []

    def see(_: Probe, values: Tensor) -> None:
        single = values.float()
        seen.append((values.dtype, (single.T @ single).dtype))

    with torch.autocast("cpu", torch.bfloat16):
        observe(network, BATCH, [Probe("1")], see)
    assert seen == [(torch.bfloat16, torch.float32)]
