import pytest
import torch

from sslpurify.compute import Compute, choose
from sslpurify.encoders import by_views
from sslpurify.errors import ConfigError
from sslpurify.processes import ALONE, Processes, join, leave, local_rank
from tests import together


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
    compute = Compute(processes=Processes(1, 2))
    with pytest.raises(ConfigError, match="too small for 2 processes"):
        together.clean(compute, by_views(0.5), micro_batch)
