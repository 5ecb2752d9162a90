"""Curves are walked again bit for bit from what is kept of them."""

import pytest
import torch

from sslpurify.errors import CheckpointError
from sslpurify.purify import Purified, Trace, purify, retrace
from sslpurify.statedict import identical
from tests.purify.test_tsc import ENCODER, FULL, HEAD, IMAGES, headless


@pytest.fixture(scope="module")
def purified() -> Purified:
    """Two rounds, so that the second one's beginning is kept."""
    return purify(ENCODER, headless(), IMAGES, FULL, seed=3)


def walked(traces, **options):
    options = {"settings": FULL, "seed": 3, **options}
    return list(retrace(ENCODER, headless(), IMAGES, traces, **options))


def without_head(network):
    return {n: t for n, t in network.state_dict().items() if not n.startswith(HEAD)}


def test_the_last_point_is_the_result(purified):
    path = walked(purified.traces)[-1]
    assert path.name == "round 2 · stage 2"
    assert path.taken == FULL.t_aligned
    again = without_head(path.at(path.taken))
    assert list(again) == list(purified.state)
    assert all(identical(again[name], purified.state[name]) for name in again)


def test_the_first_curve_begins_at_the_suspect_and_ends_at_its_copy(purified):
    first, second = walked(purified.traces)[:2]
    near, far = (dict(first.at(t).named_parameters()) for t in (0.0, 1.0))
    assert all(identical(near[name].data, t) for name, t in headless().items() if name in near)
    weight = "backbone.layer4.0.conv1.weight"
    assert not identical(near[weight].data, far[weight].data)
    rows = [sorted(row.sum().item() for row in w[weight].detach().double()) for w in (near, far)]
    assert rows[0] == pytest.approx(rows[1])
    middle = dict(first.at(first.taken).named_parameters())
    assert identical(dict(second.at(1.0).named_parameters())[weight].data, middle[weight].data)


def test_statistics_belong_to_the_point(purified):
    path = walked(purified.traces)[0]
    name = "backbone.layer4.0.bn1.running_mean"
    means = [path.at(t).state_dict()[name] for t in (0.0, 0.5)]
    assert not torch.equal(*means)


def test_nothing_is_kept_twice(purified):
    """The suspect's weights are in its own file, so only the second round's beginning is kept."""
    kept = [bool(trace.start) for trace in purified.traces]
    assert kept == [False, False, True, False]
    sections = ("backbone.conv1.", "backbone.layer1.", HEAD)
    assert not any(name.startswith(sections) for trace in purified.traces for name in trace.bend)


def test_a_trace_survives_being_written(purified):
    for trace in purified.traces:
        again = Trace.from_piece(trace.name, trace.to_piece())
        assert again.turn == trace.turn
        assert all(identical(again.bend[name], tensor) for name, tensor in trace.bend.items())
        assert list(again.start) == list(trace.start)


def test_traces_of_something_else_are_refused(purified):
    piece = purified.traces[0].to_piece()

    def changed(tensors=piece.tensors, **facts):
        return Trace.from_piece("x", type(piece)(tensors, {**piece.facts, **facts}))

    for wrong in ({"t": 1.5}, {"t": "a"}, {"sense": "sideways"}, {"views": 0}):
        with pytest.raises(CheckpointError, match="the trace of 'x' is damaged"):
            changed(**wrong)
    with pytest.raises(CheckpointError, match="stored permutation"):
        walked([changed(permutation=[{"group": "no", "order": [0]}])])
    for tensors in ({"bend/no": torch.ones(1)}, {"bend/backbone.bn1.weight": torch.ones(99)}):
        with pytest.raises(CheckpointError, match="the trace of 'x' does not fit the encoder"):
            walked([changed(tensors)])
    with pytest.raises(CheckpointError, match="does not fit"):
        walked(purified.traces[1:])
