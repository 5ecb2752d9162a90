import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sslpurify.compute import CPU, PLAIN, choose
from sslpurify.encoders import by_views
from sslpurify.errors import ConfigError
from sslpurify.processes import ALONE, Processes, join, leave, local_rank
from sslpurify.statedict import digest
from sslpurify.synchronized import synchronize
from tests import pico, together

COUNT = 2
GUIDES = list(together.guides())
EXACT, SYNCHRONIZED = 1e-6, 1e-5
"""Relative L2 distances of gradients, BatchNorm frozen and synchronized."""


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


@pytest.mark.parametrize("micro_batch", [None, 4])
@pytest.mark.parametrize("mode", ["frozen", "synchronized"])
@pytest.mark.parametrize("guide", GUIDES)
def test_loss_and_gradients_are_those_of_the_whole_batch(many, alone, guide, mode, micro_batch):
    label = f"{guide} · {mode} · {micro_batch}"
    loss, gradients = alone["losses"][label]
    assert len(gradients) >= 60
    for found in many:
        assert found["losses"][label][0] == pytest.approx(loss, rel=1e-6)
        limit = EXACT if mode == "frozen" else SYNCHRONIZED
        assert apart(found["losses"][label][1], gradients) < limit
    bits = {digest(found["losses"][label][1]) for found in many}
    assert len(bits) == 1, "processes would drift apart"


@pytest.mark.parametrize("name", ["NT-Xent", "InfoNCE", "SigLIP"])
def test_for_equal_shares_the_libraries_distributed_losses_say_the_same(many, name):
    for found in many:
        (loss, gradients), (theirs, averages) = found["libraries"][name]
        assert loss == pytest.approx(theirs, rel=1e-6)
        assert apart(gradients, averages) < EXACT


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
    moved = {n: t - before[n] for n, t in wanted["state"].items() if t.is_floating_point()}
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


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("length", [0, 1, 6, 7, 20])
def test_shares_are_neighbours_near_equal_and_complete(count, length):
    spans = [Processes(rank, count).span(length) for rank in range(count)]
    rows = [list(range(length))[span] for span in spans]
    assert [row for part in rows for row in part] == list(range(length))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1
    assert Processes(0, count).lengths(length) == list(map(len, rows))


def test_alone_nothing_is_sent():
    tensor = torch.ones(2)
    ALONE.sum_([tensor])
    ALONE.broadcast_([tensor])
    ALONE.wait()
    assert tensor.tolist() == [1, 1]
    assert ALONE.gather(tensor) == [tensor]
    assert ALONE.any(flag=True)
    assert not ALONE.any(flag=False)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch):
    """An environment with torchrun's variables, some of them wrong."""

    def start(**variables: str) -> None:
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return start


def test_without_torchrun_a_process_is_alone(started):
    started()
    assert join("cpu") == ALONE
    assert local_rank() is None
    leave()
    started(LOCAL_RANK="0")  # as other launchers set it
    assert choose("cpu").processes == ALONE


def test_one_process_under_torchrun_is_alone(started):
    started(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    assert join("cpu") == ALONE
    assert local_rank() == 0


@pytest.mark.parametrize(
    ("variables", "cause"),
    [
        ({"RANK": "0"}, "no WORLD_SIZE and no LOCAL_RANK"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "no RANK"),
        ({"RANK": "one", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "not all numbers"),
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "contradict"),
        ({"RANK": "-1", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "contradict"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, "contradict"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "MASTER_"),
    ],
)
def test_variables_that_cannot_be_are_refused(started, variables, cause):
    started(**variables)
    with pytest.raises(ConfigError, match=cause):
        choose("cpu")


@pytest.mark.parametrize("micro_batch", [3, 10])
def test_micro_batches_that_leave_a_process_without_images_are_refused(micro_batch):
    compute = type(PLAIN)(processes=Processes(1, 2))
    with pytest.raises(ConfigError, match="too small for 2 processes"):
        together.clean(compute, by_views(0.5), micro_batch)


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
