"""Pictures of a run, drawn without a display."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sslpurify.curves import Profile

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
    figure = Figure(figsize=(7, 6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)

    upper.plot(along, [p.loss for p in profile.points], "o-", color=_BLUE)
    upper.set_ylabel("label-free loss")
    upper.set_title(title, loc="left", fontweight="bold")
    upper.set_title(
        f"dotted: t = {profile.chosen:.3g}, the point taken", loc="right", fontsize="medium"
    )

    lower.plot(along, [p.agreement for p in profile.points], "s-", color=_ORANGE)
    lower.plot(along, [p.overlap for p in profile.points], "^--", color=_GREEN)
    lower.set_ylim(-0.02, 1.05)
    lower.set_ylabel("agreement with the input")
    lower.set_xlabel("position t on the curve (0: the encoder that entered the round)")
    lower.legend(["mean cosine", "kNN overlap"], frameon=False)

    for axes in (upper, lower):
        axes.axvline(profile.chosen, color=_GREY, linestyle=":")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.align_ylabels()
    figure.savefig(path, metadata={"Software": None})
