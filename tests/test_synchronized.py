import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sslpurify.compute import CPU
from sslpurify.synchronized import synchronize
from tests import pico, together


def test_names_modes_and_tensors_stay_when_batchnorm_is_synchronized():
    network = pico.encoder().load(pico.state()).train()
    network.backbone.layer1.eval()
    before, modes = network.state_dict(), [m.training for m in network.modules()]
    changed = synchronize(network, CPU)
    after = changed.state_dict()
    assert changed is network
    assert list(after) == list(before)
    assert all(after[name].data_ptr() == tensor.data_ptr() for name, tensor in before.items())
    assert [m.training for m in network.modules()] == modes
    assert not any(type(m) in (nn.BatchNorm1d, nn.BatchNorm2d) for m in network.modules())


def test_in_evaluation_synchronized_batchnorm_is_batchnorm():
    plain, changed = (pico.encoder().load(pico.state()) for _ in range(2))
    images = together.IMAGES.batch(torch.arange(4))
    with torch.no_grad():
        wanted, found = plain(images), synchronize(changed, CPU)(images)
    assert torch.equal(found.projection, wanted.projection)


class Rectified(nn.BatchNorm2d):
    def forward(self, input):  # noqa: A002
        return F.relu(super().forward(input))


def test_a_batchnorm_of_its_own_kind_is_refused():
    with pytest.raises(TypeError, match="Rectified '0' cannot be synchronized"):
        synchronize(nn.Sequential(Rectified(2)), CPU)
