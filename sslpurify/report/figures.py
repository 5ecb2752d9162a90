"""Pictures of a run, drawn without a display."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sslpurify.curves import Profile
from sslpurify.probes import Rate
from sslpurify.report.sweep import SweptStage

# Okabe and Ito's colours, told apart by colour-blind readers; markers differ as well.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#555555"


def save_profile(profile: Profile, path: Path, *, title: str) -> None:
    """Draw a curve's label-free profile as a PNG.

    The upper panel holds the loss along the curve, the lower one how far the embeddings of clean
    images still agree with the input encoder's (mean cosine, overlap of nearest neighbours).

    Args:
        profile: Points along the curve; the one that was taken is marked.
        path: The PNG to write; its folder must exist.
        title: Printed above, e.g. ``round 1 · stage 1``.
    """
    along = [point.t for point in profile.points]
    figure, (upper, lower) = _panels(2, profile.chosen, title)
    upper.plot(along, [p.loss for p in profile.points], "o-", color=_BLUE)
    upper.set_ylabel("label-free loss")

    lower.plot(along, [p.agreement for p in profile.points], "s-", color=_ORANGE)
    lower.plot(along, [p.overlap for p in profile.points], "^--", color=_GREEN)
    lower.set_ylim(-0.02, 1.05)
    lower.set_ylabel("agreement with the input")
    lower.legend(["mean cosine", "kNN overlap"], frameon=False)
    _save(figure, path)


def save_sweep(
    stage: SweptStage, path: Path, *, title: str, floors: Mapping[str, Rate] | None = None
) -> None:
    """Draw what was evaluated along a curve as a PNG, under its label-free loss.

    Args:
        stage: The curve; a panel for each probe, clean accuracy and attack success rate with their
            95 % intervals.
        path: The PNG to write; its folder must exist.
        title: Printed above, e.g. ``round 1 · stage 1``.
        floors: By probe, the attack success rate of a never attacked encoder.
    """
    probes = [rates.probe for rates in stage.points[0].results]
    losses = 1 if stage.profile else 0
    figure, panels = _panels(len(probes) + losses, stage.chosen, title)
    if stage.profile:
        points = stage.profile.points
        panels[0].plot([p.t for p in points], [p.loss for p in points], "o-", color=_BLUE)
        panels[0].set_ylabel("label-free loss")
    along = [point.t for point in stage.points]
    for number, (axes, probe) in enumerate(zip(panels[losses:], probes, strict=True)):
        results = [point.results[number] for point in stage.points]
        _rates(axes, along, [r.clean_accuracy for r in results], "s-", _GREEN, "clean accuracy")
        fooled = [r.attack_success_rate for r in results if r.attack_success_rate is not None]
        if fooled:
            _rates(axes, along, fooled, "^--", _ORANGE, "attack success rate")
        if floors and probe in floors:
            floor = 100 * floors[probe].value
            axes.axhline(
                floor, color=_GREY, linewidth=1, label="success rate, never attacked encoder"
            )
        axes.set_ylim(-2, 105)
        axes.set_ylabel(f"{probe}, per cent")
        axes.legend(frameon=False, fontsize="small")
    _save(figure, path)


def _rates(
    axes: Axes, along: list[float], rates: list[Rate], style: str, color: str, label: str
) -> None:
    axes.plot(along, [100 * rate.value for rate in rates], style, color=color, label=label)
    low, high = ([100 * getattr(rate, end) for rate in rates] for end in ("low", "high"))
    axes.fill_between(along, low, high, color=color, alpha=0.15, linewidth=0)


def _panels(count: int, chosen: float, title: str) -> tuple[Figure, list[Axes]]:
    """Panels above one another that share t."""
    figure = Figure(figsize=(7, 3 * count), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])
    panels[0].set_title(title, loc="left", fontweight="bold")
    panels[0].set_title(
        f"dotted: t = {chosen:.3g}, the point taken", loc="right", fontsize="medium"
    )
    panels[-1].set_xlabel("position t on the curve (0: the encoder that entered the round)")
    for axes in panels:
        axes.axvline(chosen, color=_GREY, linestyle=":")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _save(figure: Figure, path: Path) -> None:
    figure.align_ylabels()
    figure.savefig(path, metadata={"Software": None})
