import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sslpurify.compute import PLAIN
from sslpurify.statedict import digest
from tests import pico, together

pytestmark = pytest.mark.slow  # two processes are started, once
COUNT = 2
GUIDES = list(together.guides())
ROUNDED = 1e-6
"""Relative L2 distance of gradients: losses are computed in float32 (a rounding is 6e-8)."""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes find together, each for itself."""
    folder = tmp_path_factory.mktemp("processes")
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.together",
                folder / "meet",
                str(rank),
                str(COUNT),
                folder,
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).parent.parent,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(COUNT)
    ]
    try:
        told = [process.communicate(timeout=300)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * COUNT, "\n".join(told)
    return [torch.load(folder / f"{rank}.pt") for rank in range(COUNT)]


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """What one process finds."""
    return {name: law(PLAIN) for name, law in together.LAWS.items()}


def apart(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """The relative L2 distance of all tensors as one vector."""
    assert list(found) == list(wanted)
    one, other = (
        torch.cat([tensor.flatten().double() for tensor in each.values()])
        for each in (found, wanted)
    )
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("micro_batch", [None, 6])
@pytest.mark.parametrize("mode", ["frozen", "synchronized"])
@pytest.mark.parametrize("guide", GUIDES)
def test_loss_and_gradients_are_those_of_the_whole_batch(many, alone, guide, mode, micro_batch):
    label = f"{guide} · {mode} · {micro_batch}"
    loss, gradients = alone["losses"][label]
    assert len(gradients) >= 60
    for found in many:
        assert found["losses"][label][0] == pytest.approx(loss, rel=1e-6)
        assert apart(found["losses"][label][1], gradients) < ROUNDED
    bits = {digest(found["losses"][label][1]) for found in many}
    assert len(bits) == 1, "processes would drift apart"


@pytest.mark.parametrize("name", ["NT-Xent", "InfoNCE", "SigLIP"])
def test_for_equal_shares_the_libraries_distributed_losses_say_the_same(many, name):
    for found in many:
        (loss, gradients), (theirs, averages) = found["libraries"][name]
        assert loss == pytest.approx(theirs, rel=1e-6)
        assert apart(gradients, averages) < ROUNDED


def test_statistics_are_those_of_all_rows(many, alone):
    wanted = alone["statistics"]
    for found in many:
        assert list(found["statistics"]) == list(wanted)
        for name, tensor in wanted.items():
            torch.testing.assert_close(found["statistics"][name], tensor, rtol=1e-5, atol=1e-6)
    assert digest(many[0]["statistics"]) == digest(many[1]["statistics"])


def test_embeddings_come_in_order_to_all(many, alone):
    assert together.COUNT % (11 * COUNT) < COUNT, "somebody has none of the last batch"
    for found in many:
        for count in ("1", str(together.COUNT)):
            torch.testing.assert_close(
                found["embeddings"][count], alone["embeddings"][count], rtol=1e-5, atol=1e-6
            )
        told = found["embeddings"][f"{together.COUNT} told"]
        assert told == [(1, 2, 22), (2, 2, 1)]


def test_permutations_are_identical(many, alone):
    wanted = alone["permutations"]
    for found in many:
        assert found["permutations"]["images"] == together.COUNT
        for sense, orders in wanted["orders"].items():
            assert len(orders) == 11
            for name, order in orders.items():
                assert torch.equal(found["permutations"]["orders"][sense][name], order)
        for one, other in zip(found["permutations"]["matrices"], wanted["matrices"], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_the_first_process_sends_the_ends_of_a_curve(many, alone):
    for found in many:
        assert apart(found["curve"], alone["curve"]) < 1e-4
    assert digest(many[0]["curve"]) == digest(many[1]["curve"])


@pytest.mark.parametrize("momentum", ["0.1", "None"])
def test_synchronized_batchnorm_is_that_of_all_rows(many, alone, momentum):
    wanted = alone["normalization"][momentum]
    for found in many:
        assert list(found["normalization"][momentum]) == list(wanted)
        for name, tensor in wanted.items():
            torch.testing.assert_close(found["normalization"][momentum][name], tensor)


def test_a_purification_ends_where_one_process_takes_it(many, alone):
    """Adam divides by a gradient's own size, so rounding grows where gradients vanish."""
    before, wanted = pico.state(1), alone["whole"]
    names = [name for name, _ in together.ENCODER.fresh(0).named_parameters() if name in before]
    moved = {
        name: wanted["state"][name] - before[name] for name in names if name in wanted["state"]
    }
    for found in many:
        result = found["whole"]
        again = {n: result["state"][n] - before[n] for n in moved}
        assert apart(again, moved) < 1e-2
        assert result["told"] == wanted["told"]
        for one, other in zip(result["losses"], wanted["losses"], strict=True):
            assert one == pytest.approx(other, rel=1e-3)
        for one, other in zip(result["profiles"], wanted["profiles"], strict=True):
            for point, expected in zip(one, other, strict=True):
                assert point == pytest.approx(expected, rel=1e-2)
    assert digest(many[0]["whole"]["state"]) == digest(many[1]["whole"]["state"])


def test_collectives(many):
    for found in many:
        seen = found["collectives"]
        assert seen["sums"] == [[3.0], [3.0], [3]]
        assert seen["sent"] == [1.0]
        assert seen["gathered"] == [[], [0, 1, 2]]
        assert seen["any"] == [True, False]
        assert seen["joined"]
