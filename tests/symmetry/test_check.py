from dataclasses import replace

import pytest
import torch
from torch.func import functional_call

from sslpurify.errors import TrainingError
from sslpurify.symmetry.check import require_invariant
from sslpurify.symmetry.permutation import Permutation

from .adapter import shift
from .networks import PicoTransformer, images, randomize, transformer_spec

SPEC = transformer_spec()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_symmetry_passes_in_every_precision(dtype):
    network = randomize(PicoTransformer()).to(dtype)
    batch = images().to(dtype)
    permutation = Permutation.random(SPEC, torch.Generator().manual_seed(0))
    error = require_invariant(
        lambda state: functional_call(network, dict(state), (batch,)),
        network.state_dict(),
        permutation,
    )
    assert error < {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 5e-2}[dtype]


def test_what_changes_the_function_is_refused():
    network, batch = randomize(PicoTransformer()), images()
    group = SPEC.groups[0]
    broken = replace(group, touches=group.touches[:-1])
    with pytest.raises(TrainingError, match="permuting 1 groups changed the outputs"):
        require_invariant(
            lambda state: functional_call(network, dict(state), (batch,)),
            network.state_dict(),
            Permutation(((broken, shift(broken)),)),
        )


def test_an_error_that_is_no_number_is_refused():
    state = {name: torch.full((12,), float("nan")) for name in ("conv1.bias",)}
    with pytest.raises(TrainingError, match="nan"):
        require_invariant(lambda weights: weights["conv1.bias"], state, Permutation(()))
