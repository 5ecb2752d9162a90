"""Pictures of a run as PNG and SVG files, drawn without a display."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sslpurify.curves import Profile
from sslpurify.data.folder import printable
from sslpurify.probes import Rate
from sslpurify.report.sweep import SweptStage

# Okabe and Ito's colours, told apart by colour-blind readers; markers differ as well.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#7A7A7A"
CLASS_COLOURS = (
    "#1f77b4", "#d95f02", "#2a972a", "#d62728", "#8d63c0",
    "#9c6450", "#d452a5", "#7a7a7a", "#85861a", "#0d8a99",
)  # fmt: skip
"""Of up to ten classes; each stands out from white as well as from a dark page."""

_MARKERS = "osDv<>Pph8"
_TARGET = "^"
_INK = "#1b1b1b"
_PALE = "#ececec"
_STYLE: dict[Any, Any] = {
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK
    ),
    "font.size": 11,
    "svg.hashsalt": "sslpurify",  # the same bytes again
    "text.parse_math": False,  # a class may be called $
}
_LONGEST, _SHORT = 22, 13  # signs of a class's name in a legend: at most, and in three columns


def save_profile(profile: Profile, path: Path, *, title: str) -> None:
    """Draw a curve's label-free profile as a PNG, and as an SVG beside it.

    The upper panel holds the loss along the curve, the lower one how far the embeddings of clean
    images still agree with the input encoder's (mean cosine, overlap of nearest neighbours).

    Args:
        profile: Points along the curve; the one that was taken is marked.
        path: The PNG to write; its folder must exist.
        title: Printed above, e.g. ``round 1 · stage 1``.
    """
    along = [point.t for point in profile.points]
    with rc_context(_STYLE):
        figure = _blank(4.5, 4.6)
        upper, lower = figure.subplots(2, 1, sharex=True)
        upper.plot(along, [p.loss for p in profile.points], "o-", color=_BLUE)
        upper.set_ylabel("label-free loss")
        upper.set_title(title, loc="left", fontweight="bold")
        lower.plot(along, [p.agreement for p in profile.points], "s-", color=_ORANGE)
        lower.plot(along, [p.overlap for p in profile.points], "^--", color=_GREEN)
        lower.set_ylim(-0.02, 1.05)
        lower.set_ylabel("agreement with input")
        lower.set_xlabel("position t (0: as it entered the round)")
        taken = [
            _plain(axes).axvline(profile.chosen, color=_GREY, ls=":") for axes in (upper, lower)
        ]
        upper.legend(taken[:1], [f"taken: t = {profile.chosen:.3g}"], frameon=False)
        lower.legend(lower.lines[:2], ["mean cosine", "kNN overlap"], frameon=False)
        figure.align_ylabels()
        _save(figure, path)


def save_sweep(
    stage: SweptStage, path: Path, *, title: str, usual: Mapping[str, Rate] | None = None
) -> None:
    """Draw what was evaluated along a curve as a PNG and an SVG, under its label-free loss.

    Args:
        stage: The curve; a panel for each probe, clean accuracy and attack success rate with their
            95 % intervals.
        path: The PNG to write; its folder must exist.
        title: Printed above, e.g. ``round 1 · stage 1``.
        usual: By probe, the attack success rate of a never attacked encoder.
    """
    probes = [rates.probe for rates in stage.points[0].results]
    losses = 1 if stage.profile else 0
    with rc_context(_STYLE):
        figure = _blank(4.5, 2.3 * (len(probes) + losses))
        count = len(probes) + losses
        panels: list[Axes] = list(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])
        panels[0].set_title(title, loc="left", fontweight="bold")
        for axes in panels:
            _plain(axes).axvline(
                stage.chosen, color=_GREY, ls=":", label=f"taken: t = {stage.chosen:.3g}"
            )
        if stage.profile:
            points = stage.profile.points
            panels[0].plot([p.t for p in points], [p.loss for p in points], "o-", color=_BLUE)
            panels[0].set_ylabel("label-free loss")
        for number, (axes, probe) in enumerate(zip(panels[losses:], probes, strict=True)):
            _draw_rates(axes, stage, number, (usual or {}).get(probe))
            axes.set_ylabel(f"{probe}, per cent")
        panels[-1].set_xlabel("position t (0: as it entered the round)")
        figure.align_ylabels()
        _save(figure, path)


def _draw_rates(axes: Axes, stage: SweptStage, number: int, usual: Rate | None) -> None:
    """Draw what the probe of this number said along the curve."""
    seen = [(point.t, point.results[number]) for point in stage.points]
    _line(axes, [(t, rates.clean_accuracy) for t, rates in seen], "s-", _GREEN, "clean accuracy")
    fooled = [(t, rate) for t, rates in seen if (rate := rates.attack_success_rate) is not None]
    if fooled:
        _line(axes, fooled, "^--", _ORANGE, "attack success rate")
    if usual is not None:
        axes.axhline(100 * usual.value, color=_GREY, lw=1, label="never attacked encoder's")
    axes.set_ylim(-2, 105)
    axes.legend(frameon=False, fontsize="small")


def _line(axes: Axes, points: list[tuple[float, Rate]], style: str, color: str, label: str) -> None:
    along = [t for t, _ in points]
    value, low, high = (
        [100 * getattr(rate, end) for _, rate in points] for end in ("value", "low", "high")
    )
    axes.plot(along, value, style, color=color, label=label)
    axes.fill_between(along, low, high, color=color, alpha=0.15, linewidth=0)


def save_map(
    data: Mapping[str, Any], which: str, classes: Sequence[str], target: str | None, path: Path
) -> None:
    """Draw one encoder's map of clean and triggered embeddings as a PNG, and as an SVG beside it.

    Args:
        data: As `sslpurify.report.embeddings.embedding_map` gives it; all encoders on it share
            their axes.
        which: The encoder.
        classes: Names of the classes. Up to ten have a colour each, of more only the target.
        target: The trigger's class, None: there is no trigger.
        path: The PNG to write; its folder must exist.
    """
    labels, seen = np.array(data["labels"]), data["encoders"][which]
    clean = np.array(seen["clean"])
    with rc_context(_STYLE):
        figure = _blank(4.5, 5.6)
        axes = _plain(figure.subplots())
        for name, colour, marker, rows in _kinds(labels, classes, target):
            size = 6 if marker == _TARGET else 4
            axes.plot(*clean[rows].T, marker, color=colour, ms=size, alpha=0.75, mew=0, label=name)
        if seen["triggered"] is not None:
            cross = np.array(seen["triggered"])
            axes.plot(*cross.T, "x", color=_INK, ms=5, mew=0.8, alpha=0.7, label="with trigger")
        handles, names = axes.lines, [str(line.get_label()) for line in axes.lines]
        (left, right), (bottom, top) = data["limits"]
        axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
        first, second = (f"{100 * share:.0f} %" for share in data["explained"])
        axes.set_xlabel(f"direction 1 ({first} of the variance before)")
        axes.set_ylabel(f"direction 2 ({second})")
        axes.set_title(which, loc="left", fontweight="bold")
        columns = 3 if max(map(len, names)) <= _SHORT else 2
        figure.legend(
            handles, names, loc="outside lower left", ncols=columns, frameon=False, fontsize=10,
            handletextpad=0.1, columnspacing=0.8,
        )  # fmt: skip
        _save(figure, path)


def _kinds(
    labels: np.ndarray, classes: Sequence[str], target: str | None
) -> list[tuple[str, str, str, np.ndarray]]:
    """What is drawn of the clean images: name, colour, marker and rows of each kind."""
    chosen = -1 if target is None else list(classes).index(target)
    if len(classes) > len(CLASS_COLOURS):
        others = [("other classes" if target else "all classes", _GREY, "o", labels != chosen)]
        return others + [(_legible(target), _ORANGE, _TARGET, labels == chosen)] * (
            target is not None
        )
    return [
        (_legible(name), CLASS_COLOURS[i], _TARGET if i == chosen else _MARKERS[i], labels == i)
        for i, name in enumerate(classes)
    ]


def _legible(name: str | None) -> str:
    """A stranger's name in signs that the figures' font has."""
    text = printable(name or "").encode("latin-1", "backslashreplace").decode("latin-1")
    short = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    return f" {short}"  # matplotlib hides what begins with an underscore


def _blank(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain(axes: Axes) -> Axes:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Software": None})
    drawing = path.with_suffix(".svg")
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(drawing, transparent=True, metadata=nothing)
    drawing.write_text(_adaptive(drawing.read_text(encoding="utf-8")), encoding="utf-8")


def _adaptive(svg: str) -> str:
    """The drawing without references, its ink pale where the page that shows it is dark."""
    drawing = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", drawing, flags=re.DOTALL)
    style = (
        f"<style>svg{{color:{_INK}}}"
        f"@media (prefers-color-scheme:dark){{svg{{color:{_PALE}}}}}</style>"
    )
    head, rest = body.split(">", 1)
    return f"{head}>{style}{rest.replace(_INK, 'currentColor')}"
