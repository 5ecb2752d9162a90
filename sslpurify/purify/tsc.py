"""Two-stage symmetry connectivity (TSC; ICML 2025, arXiv 2506.07467).

A channel permutation of a network computes the same function from a far-away place in weight space.
On a curve from one to the other, trained with nothing but clean images and a label-free loss, clean
behaviour stays and a backdoor does not.
"""

import time
from dataclasses import replace
from functools import partial

import torch

from sslpurify.compute import PLAIN, Compute
from sslpurify.curves import BezierCurve, Point, Profile, fit_bend, survey
from sslpurify.data import ImageSet
from sslpurify.encoders import (
    Captions,
    CleanSet,
    Encoder,
    Guide,
    Network,
    Prompts,
    by_captions,
    by_views,
    default_head,
    embed,
)
from sslpurify.journal import FORGETFUL, Journal
from sslpurify.purify.path import point
from sslpurify.purify.settings import TscSettings, resolved
from sslpurify.purify.stage import Purified, Stage, Trace, Trained, Turn
from sslpurify.purify.workshop import Workshop, permuted_groups
from sslpurify.symmetry import Permutation, Sense, correlate, match
from sslpurify.types import Listener, Piece, State, Step, silent

HEAD = "projection_head."


def purify(
    encoder: Encoder,
    state: State,
    images: ImageSet,
    settings: TscSettings | None = None,
    *,
    text: Captions | Prompts | None = None,
    seed: int = 0,
    compute: Compute = PLAIN,
    journal: Journal = FORGETFUL,
    listener: Listener = silent,
) -> Purified:
    """Takes the backdoor out of an encoder's weights.

    Args:
        encoder: What ``state`` is a state of.
        state: Suspicious weights, float32, under the encoder's names; the projection head may be
            missing. Not changed.
        images: Clean images, a few thousand, without labels.
        settings: The method's; what is not set explicitly is as the encoder's family has it.
        text: Of a CLIP: the images' captions, or where they have none, prompts to describe them
            by. None trains with two views of each image, and leaves a CLIP's image tower where
            its text tower may not find it.
        seed: Same seed, same bytes on a CPU.
        compute: Device and precision.
        journal: Remembers what an interrupted purification did.
        listener: Told about every step.

    Returns:
        The purified weights under the names of ``state``, and what happened in each stage.

    Raises:
        DataError: Fewer images than one batch takes.
        TrainingError: A loss is not finite.
    """
    captions = isinstance(text, Captions)
    settings = resolved(settings or TscSettings(), encoder.family, captions=captions)
    if encoder.head is None and text is None:
        encoder = replace(encoder, head=default_head(encoder.embedding_dim))
    guide = _guide(encoder, state, images, settings, text, compute, listener)
    clean = CleanSet(
        images,
        guide,
        settings.views,
        settings.batch_size,
        settings.micro_batch,
        seed,
        compute,
    )
    done = _stages(Workshop(encoder, clean, settings, compute, journal, listener), state)
    return Purified({name: done.weights[name] for name in state}, done.stages, done.traces)


def _stages(workshop: Workshop, state: State) -> Trained:
    """All of them, one after the other."""
    encoder, settings = workshop.encoder, workshop.settings
    done = Trained(state)
    if encoder.head is not None and not any(name.startswith(HEAD) for name in state):
        done = _fit_head(workshop, state)
    reference = workshop.load(done.weights)
    for number in range(1, settings.rounds + 1):
        name = f"round {number}"
        if number > 1 and settings.finetune_steps:
            tuned = _fine_tune(
                workshop,
                done.weights,
                f"{name} · fine-tuning",
                settings.finetune_steps,
                settings.finetune_learning_rate,
            )
            done = done.then(tuned)
        began = {} if number == 1 else done.weights
        connect = partial(_round, workshop, done.weights, began, reference, name)
        done = done.then(workshop.once(name, connect))
    if settings.final_steps:
        tuned = _fine_tune(
            workshop.seeing(settings.final_views or settings.views),
            done.weights,
            "fine-tuning",
            settings.final_steps,
            settings.final_learning_rate,
        )
        done = done.then(tuned)
    return done


def _guide(
    encoder: Encoder,
    state: State,
    images: ImageSet,
    settings: TscSettings,
    text: Captions | Prompts | None,
    compute: Compute,
    listener: Listener,
) -> Guide:
    """The loss that the encoder itself was trained with, or the nearest to it."""
    if isinstance(text, Captions):
        return by_captions(text)
    if text is None:
        return by_views(settings.temperature)
    network = compute.place(encoder.load(encoder.completed(state)))
    seen = embed(
        network,
        images,
        device=compute.device,
        processes=compute.processes,
        listener=listener,
        stage="pseudo-captions",
    )
    return by_captions(text.nearest(seen, settings.pseudo_captions))


def _round(
    workshop: Workshop, weights: State, kept: State, reference: Network, name: str
) -> Trained:
    """Misalign and connect, align and connect; ``kept`` of the weights goes into its trace."""
    suspect, settings = workshop.load(weights), workshop.settings
    away = _match(workshop, suspect, None, "misalign", f"{name} · misaligning")
    first = _connect(
        workshop,
        (weights, away.apply(weights)),
        Turn("misalign", settings.t_misaligned, workshop.clean.guide.views, away.to_json()),
        away,
        reference,
        f"{name} · stage 1",
    )
    back = _match(workshop, workshop.load(first.weights), suspect, "align", f"{name} · aligning")
    # The curve runs from the suspect at t = 0 to the first point at t = 1.
    second = _connect(
        workshop,
        (back.apply(weights), first.weights),
        Turn("align", settings.t_aligned, workshop.clean.guide.views, back.to_json()),
        back,
        reference,
        f"{name} · stage 2",
    )
    traces = tuple(replace(trace, start=kept) for trace in first.traces)
    return replace(first, traces=traces).then(second)


def _match(
    workshop: Workshop, reference: Network, other: Network | None, sense: Sense, stage: str
) -> Permutation:
    spec = permuted_groups(workshop.encoder, workshop.settings)
    size, processes = workshop.settings.batch_size, workshop.compute.processes
    images = workshop.clean.some(workshop.settings.match_images)
    parts = torch.arange(len(images)).split(size)
    batches = (
        images.batch(part[processes.span(len(part))]).to(workshop.compute.device) for part in parts
    )

    def tell(step: Step) -> None:
        workshop.listener(replace(step, images=len(parts[step.step - 1])))  # of all processes

    def matched() -> Piece:
        correlations = correlate(
            reference,
            other,
            batches,
            spec,
            stage=stage,
            steps=len(parts),
            journal=workshop.journal,
            listener=tell,
            processes=processes,
        )
        return Piece(facts={"steps": match(spec, correlations, sense).to_json()})

    return Permutation.from_json(spec, workshop.journal.once(stage, matched).facts["steps"])


def _connect(
    workshop: Workshop,
    ends: tuple[State, State],
    turn: Turn,
    permutation: Permutation,
    reference: Network,
    name: str,
) -> Trained:
    """Fits a curve, looks along it and takes a point."""

    def connected() -> Trained:
        began, start = time.monotonic(), ends[0]
        curve, loss = _fit(workshop, ends, name)
        points = _look(workshop, curve, start, reference, f"{name} · profile")
        taken = point(workshop, curve, turn.t, start, name)
        stage = Stage(
            name,
            "curve",
            time.monotonic() - began,
            loss,
            t=turn.t,
            profile=Profile(points, turn.t),
            displacement=permutation.displacement(),
        )
        return Trained(taken.weights(), (stage,), (Trace(name, turn, curve.bend),))

    return workshop.once(name, connected)


def _fit(
    workshop: Workshop, ends: tuple[State, State], name: str
) -> tuple[BezierCurve, tuple[float, float]]:
    settings = workshop.settings

    def fitted() -> Piece:
        network = workshop.trainable(ends[0])
        curve, loss = fit_bend(
            network,
            *ends,
            workshop.clean.objective(name),
            workshop.schedule(name, settings.steps, settings.learning_rate),
            seed=workshop.clean.seed,
            weight_decay=settings.weight_decay,
            endpoints=settings.endpoints,
            compute=workshop.compute,
            blame=lambda step: workshop.clean.blame(network, name, step),
            journal=workshop.journal,
            listener=workshop.listener,
        )
        return Piece(curve.bend, {"loss": loss})

    done = workshop.journal.once(f"{name} · curve", fitted)
    start, end = ({key: state[key] for key in done.tensors} for state in ends)
    return BezierCurve(start, done.tensors, end), tuple(done.facts["loss"])


def _look(
    workshop: Workshop, curve: BezierCurve, buffers: State, reference: Network, name: str
) -> tuple[Point, ...]:
    count = workshop.settings.profile_points
    return survey(
        lambda t: workshop.measure(point(workshop, curve, t, buffers, name)),
        workshop.measure(reference)[1],
        [number / (count - 1) for number in range(count)],
        stage=name,
        journal=workshop.journal,
        listener=workshop.listener,
    )


def _fit_head(workshop: Workshop, state: State) -> Trained:
    """Makes the projection head that a published encoder lacks; the backbone stays as it is."""
    settings, name = workshop.settings, "projection head"
    blank = workshop.encoder.fresh(workshop.clean.seed).state_dict()

    def fitted() -> Trained:
        began = time.monotonic()
        network = workshop.load({**blank, **state})
        network.requires_grad_(requires_grad=False)
        network.projection_head.requires_grad_(requires_grad=True).train()
        schedule = workshop.schedule(name, settings.head_steps, settings.head_learning_rate)
        loss = workshop.minimize(network, schedule)
        head = {key: value for key, value in network.weights().items() if key.startswith(HEAD)}
        return Trained(head, (Stage(name, "head", time.monotonic() - began, loss),))

    fitted_head = workshop.once(name, fitted)
    return replace(fitted_head, weights={**blank, **state, **fitted_head.weights})


def _fine_tune(
    workshop: Workshop, weights: State, name: str, steps: int, learning_rate: float
) -> Trained:
    def tuned() -> Trained:
        began = time.monotonic()
        network = workshop.trainable(weights)
        loss = workshop.minimize(network, workshop.schedule(name, steps, learning_rate))
        workshop.settle(network, name)
        stage = Stage(name, "finetune", time.monotonic() - began, loss)
        return Trained(network.weights(), (stage,))

    return workshop.once(name, tuned)
