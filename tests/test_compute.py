import pytest
import torch
from torch import nn

from sslpurify.compute import PLAIN, Compute, choose
from sslpurify.errors import ConfigError

CPU = torch.device("cpu")


def test_plain_is_float32_on_the_cpu():
    assert Compute(CPU, bf16=False) == PLAIN
    with PLAIN.autocast():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.float32


def test_bf16_casts_products_and_not_weights():
    layer = nn.Linear(2, 2)
    with Compute(bf16=True).autocast():
        assert layer(torch.ones(1, 2)).dtype == torch.bfloat16
    assert layer.weight.dtype == torch.float32
    assert layer(torch.ones(1, 2)).dtype == torch.float32


def test_networks_keep_the_plain_layout_on_a_cpu():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    placed = PLAIN.place(network)
    assert placed is network
    assert placed[0].weight.is_contiguous()


@pytest.mark.parametrize(("precision", "bf16"), [("fp32", False), ("bf16", True)])
def test_a_precision_that_is_asked_for_is_given(precision, bf16):
    assert choose("cpu", precision) == Compute(CPU, bf16)


def test_auto_takes_what_there_is():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose().device.type == expected
    assert choose("cpu", "auto").bf16 == torch.cpu._is_amx_tile_supported()


@pytest.mark.parametrize(
    ("device", "cause"),
    [
        ("gpu", "no device is called 'gpu'"),
        ("", "no device is called ''"),
        ("meta", "device 'meta' is not supported"),
        ("mps", "device 'mps' is not supported"),
        ("cuda:99", "there is no 'cuda:99' here"),
    ],
)
def test_devices_that_are_not_there_are_refused(device, cause):
    with pytest.raises(ConfigError, match=cause):
        choose(device)
