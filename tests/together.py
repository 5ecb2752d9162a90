"""Work that several processes share, so that a test can compare it with what one does alone.

python -m tests.together RENDEZVOUS RANK COUNT FOLDER
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightly.loss import NTXentLoss
from open_clip.loss import ClipLoss, SigLipLoss
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from sslpurify.compute import CPU, Compute, choose
from sslpurify.curves import Batch, Schedule, backward, fit_bend, reestimate
from sslpurify.data import ViewSettings, from_pixels
from sslpurify.encoders import (
    Captions,
    CleanSet,
    Encoder,
    Guide,
    Output,
    by_captions,
    by_views,
    embed,
)
from sslpurify.losses import info_nce, nt_xent, siglip
from sslpurify.processes import leave
from sslpurify.purify import TscSettings, purify
from sslpurify.rng import generator
from sslpurify.symmetry import correlate, match
from sslpurify.synchronized import synchronize
from tests import pico

BATCH, COUNT = 11, 23  # neither can be halved
BLURRED = ViewSettings(blur_probability=0.5)
ENCODER: Encoder = pico.encoder()
IMAGES = from_pixels(
    torch.randint(0, 256, (COUNT, 3, pico.SIZE, pico.SIZE), generator=generator(0, "pixels")).to(
        torch.uint8
    )
)
LOOSE = TscSettings(
    **{**pico.QUICK, "steps": 3, "batch_size": BATCH, "micro_batch": 6},
    rounds=1,
    kept=0.25,
    views=BLURRED,
)


def guides() -> dict[str, Guide]:
    """All label-free losses."""
    draws = generator(0, "text")
    said = F.normalize(torch.randn(2 * COUNT, ENCODER.embedding_dim, generator=draws), dim=1)
    choices = torch.arange(2 * COUNT).view(COUNT, 2)
    return {
        "views": by_views(0.5),
        "captions": by_captions(Captions(said, choices, scale=20.0)),
        "biased captions": by_captions(Captions(said, choices, scale=10.0, bias=-3.0)),
    }


def clean(compute: Compute, guide: Guide, micro_batch: int | None) -> CleanSet:
    return CleanSet(IMAGES, guide, BLURRED, BATCH, micro_batch, 0, compute)


def gradients(network: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}


def losses(compute: Compute) -> dict[str, Any]:
    """Loss and gradients by guide, mode of BatchNorm and size of micro-batches.

    The network is in float64: in float32 rounding now and then carries an activation over ReLU's
    kink, and a gradient jumps by a thousandth. Losses are computed in float32 all the same.
    """
    found: dict[str, Any] = {}
    for name, guide in guides().items():
        for training in (False, True):
            for micro_batch in (None, 6):
                network = compute.place(ENCODER.load(pico.state())).double().train(training)
                batch = clean(compute, guide, micro_batch).objective("curve")(1)
                loss = backward(network, batch, compute)
                label = (name, "synchronized" if training else "frozen", micro_batch)
                found[" · ".join(map(str, label))] = (loss, gradients(network))
    return found


def statistics(compute: Compute) -> dict[str, Tensor]:
    """Of BatchNorm, measured anew."""
    network = compute.place(ENCODER.load(pico.state()))
    reestimate(network, clean(compute, by_views(0.5), None).statistics(COUNT), compute)
    return network.weights()


def embeddings(compute: Compute) -> dict[str, Any]:
    """Of numbers of images that no two processes can halve, and fewer than processes."""
    found: dict[str, Any] = {}
    network = compute.place(ENCODER.load(pico.state()))
    for count in (1, COUNT):
        told: list[tuple[int, int, int]] = []
        few = from_pixels(IMAGES.pixels[:count])
        found[str(count)] = embed(
            network,
            few,
            batch_size=11,
            processes=compute.processes,
            listener=lambda s, told=told: told.append((s.step, s.steps, s.images)),
        )
        found[f"{count} told"] = told
    return found


def permutations(compute: Compute) -> dict[str, Any]:
    """Of two networks, aligned and misaligned, and what they are made from."""
    one, other = (compute.place(ENCODER.load(pico.state(seed))) for seed in (0, 1))
    span = compute.processes.span
    parts = torch.arange(COUNT).split(11)  # of the last, of one image, a process may have none
    batches = [IMAGES.batch(part[span(len(part))]) for part in parts]
    spec = ENCODER.spec
    seen = correlate(one, other, batches, spec, processes=compute.processes)
    orders = {
        sense: {group.name: order for group, order in match(spec, seen, sense).steps}
        for sense in ("align", "misalign")
    }
    return {"orders": orders, "images": seen.images, "matrices": list(seen.matrices.values())}


def whole(compute: Compute) -> dict[str, Any]:
    """A purification, with how often each process told what."""
    told: list[tuple[str, int, int, int]] = []
    head = "projection_head."
    headless = {n: t for n, t in pico.state(1).items() if not n.startswith(head)}
    result = purify(
        ENCODER,
        headless,
        IMAGES,
        LOOSE,
        compute=compute,
        listener=lambda s: told.append((s.stage, s.step, s.steps, s.images)),
    )
    profiles = [
        [(p.loss, p.agreement, p.overlap) for p in stage.profile.points]
        for stage in result.stages
        if stage.profile
    ]
    losses_ = [stage.loss for stage in result.stages]
    return {"state": result.state, "told": told, "profiles": profiles, "losses": losses_}


def curve(compute: Compute) -> dict[str, Tensor]:
    """The bend of a curve whose ends only the first process knows."""
    spoilt = float(compute.processes.rank)
    names = dict(ENCODER.fresh(0).named_parameters())
    ends = [{name: pico.state(seed)[name] + spoilt for name in names} for seed in (0, 1)]
    fitted, _ = fit_bend(
        compute.place(ENCODER.load(pico.state())),
        *ends,
        clean(compute, by_views(0.5), None).objective("curve"),
        Schedule(1, BATCH, 1e-3, "curve"),
        seed=0,
        compute=compute,
    )
    return dict(fitted.bend)


def normalization(compute: Compute) -> dict[str, Any]:
    """One BatchNorm layer in training, in float64: output, gradients, running statistics."""
    rows = torch.randn(BATCH, 3, 2, 2, generator=generator(0, "rows"), dtype=torch.float64) * 3 + 7
    slopes = torch.randn(rows.shape, generator=generator(0, "slopes"), dtype=torch.float64)
    mine = compute.processes.span(len(rows))
    found: dict[str, Any] = {}
    for momentum in (0.1, None):
        network = nn.Sequential(nn.BatchNorm2d(3, momentum=momentum)).double().train()
        with torch.no_grad():
            network[0].weight.copy_(torch.tensor([0.5, -2, 1]))
            network[0].bias.copy_(torch.tensor([1, 2, 3]))
        if compute.processes.count > 1:
            synchronize(network, CPU)
        for _ in range(2):
            shown = rows[mine].clone().requires_grad_()
            output = network(shown)
        network.zero_grad()
        (output * slopes[mine]).sum().backward()
        compute.processes.sum_(p.grad for p in network.parameters())
        found[str(momentum)] = {
            "output": torch.cat(compute.processes.gather(output)),
            "slopes": torch.cat(compute.processes.gather(shown.grad)),
            **gradients(network),
            **network.state_dict(),
        }
    return found


def collectives(compute: Compute) -> dict[str, Any]:
    """What the methods of `Processes` give."""
    p = compute.processes
    strided = torch.full((2, 3), float(p.rank + 1)).T
    large = torch.full((2**23 + 1,), float(p.rank + 1))  # more than a bucket
    whole_numbers = torch.tensor([p.rank + 1])
    p.sum_([strided, large, whole_numbers])
    sent = torch.full((2, 2), float(p.rank + 1)).T
    p.broadcast_([sent])
    p.wait()
    return {
        "sums": [strided.unique().tolist(), large.unique().tolist(), whole_numbers.tolist()],
        "sent": sent.unique().tolist(),
        "gathered": [part.tolist() for part in p.gather(torch.arange(p.rank * 3))],
        "any": [p.any(p.rank == 1), p.any(flag=False)],
        "joined": choose("cpu", "fp32") == compute,
    }


class Two(nn.Module):
    """Two linear maps of the same rows."""

    def __init__(self) -> None:
        super().__init__()
        weights = torch.randn(2, 5, 4, generator=generator(0, "two"))
        self.first, self.second = nn.Parameter(weights[0]), nn.Parameter(weights[1])

    def forward(self, rows: Tensor) -> Output:
        return Output(*(F.normalize(rows @ w.T, dim=1) for w in (self.first, self.second)))


def libraries(compute: Compute) -> dict[str, list[tuple[float, dict[str, Tensor]]]]:
    """Loss and gradients for equal shares, by us and by the libraries' own distributed losses.

    The libraries' loss is that of a process's own rows and their gradients are averaged, as
    DistributedDataParallel does.
    """
    p = compute.processes
    clip = ClipLoss(local_loss=True, gather_with_grad=True, rank=p.rank, world_size=p.count)
    sigmoid = SigLipLoss(rank=p.rank, world_size=p.count)
    pairs = {
        "NT-Xent": (nt_xent(0.3), NTXentLoss(0.3, gather_distributed=True)),
        "InfoNCE": (lambda a, b: info_nce(a, b, 9.0), lambda a, b: clip(a, b, 9.0)),
        "SigLIP": (lambda a, b: siglip(a, b, 9.0, -4.0), lambda a, b: sigmoid(a, b, 9.0, -4.0)),
    }
    rows = torch.randn(12, 4, generator=generator(0, "rows"))[p.span(12)]
    found: dict[str, list[tuple[float, dict[str, Tensor]]]] = {}
    for name, (ours, theirs) in pairs.items():
        network = Two()
        batch = Batch([lambda: rows], lambda outputs, ours=ours: ours(*outputs))
        found[name] = [(backward(network, batch, compute), gradients(network))]
        network.zero_grad()
        loss = theirs(*network(rows))
        loss.backward()
        average = [loss.detach().clone(), *(each.grad for each in network.parameters())]
        p.sum_(average)
        averages = {n: grad / p.count for n, grad in gradients(network).items()}
        found[name].append((float(average[0]) / p.count, averages))
    return found


LAWS: dict[str, Callable[[Compute], Any]] = {
    "losses": losses,
    "statistics": statistics,
    "embeddings": embeddings,
    "permutations": permutations,
    "curve": curve,
    "normalization": normalization,
    "whole": whole,
}
"""What must come out alike however many processes share it."""
TOGETHER = {**LAWS, "collectives": collectives, "libraries": libraries}
"""What several processes do."""


def main(rendezvous: str, rank: int, count: int, folder: str) -> None:
    """What one of the processes does."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=count
    )
    compute = choose("cpu", "fp32")
    found = {name: law(compute) for name, law in TOGETHER.items()}
    leave()
    torch.save(found, Path(folder) / f"{rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
