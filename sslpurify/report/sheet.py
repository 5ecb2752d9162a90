"""A contact sheet: what a trigger does to images, side by side."""

import textwrap
from collections.abc import Sequence
from io import BytesIO

from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

FACTORS = (1, 2, 5, 10, 20, 50, 100)
"""What differences are multiplied by, so that they can be seen."""

_GREY = "#555555"


def contact_sheet(
    clean: Float[Tensor, "n 3 h w"],
    triggered: Float[Tensor, "n 3 h w"],
    *,
    captions: Sequence[str],
    title: str,
    description: str,
) -> tuple[bytes, int]:
    """Draw images, the same with a trigger, and the difference, as a PNG of three rows.

    Args:
        clean: In [0, 1].
        triggered: The same images with the trigger.
        captions: Above each image.
        title: The trigger's name.
        description: What the trigger is, in a line or more.

    Returns:
        The PNG, and the factor that the difference is multiplied by; unchanged pixels are grey.
    """
    difference = (triggered - clean).float()
    factor = amplification(difference)
    rows = {
        "clean": clean,
        "triggered": triggered,
        f"difference\n× {factor}": (0.5 + factor * difference / 2).clamp(0, 1),
    }
    size = 1.25
    figure = Figure(figsize=(1 + size * len(clean), 1.1 + size * 3), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    width = max(28, 22 * len(clean))
    figure.suptitle(_plain(title), x=0.01, ha="left", fontweight="bold", fontsize="large")
    lines = textwrap.wrap(_plain(description), width, max_lines=3, placeholder=" …")
    lines.append("difference: grey where nothing changed")
    grid = figure.subplots(3, len(clean), squeeze=False)
    for (name, images), line in zip(rows.items(), grid, strict=True):
        for axes, image in zip(line, images, strict=True):
            axes.imshow(image.float().permute(1, 2, 0).cpu().numpy(), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(name)
    for axes, caption in zip(grid[0], captions, strict=True):
        axes.set_title(_plain(textwrap.shorten(caption, 16, placeholder="…")), fontsize="small")
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize="small", color=_GREY)
    file = BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue(), factor


def amplification(difference: Float[Tensor, "n 3 h w"]) -> int:
    """The largest of `FACTORS` that leaves 99 of 100 changed values within the range of colours."""
    changed = difference.abs().flatten()
    changed = changed[changed > 0].sort().values
    if not len(changed):
        return FACTORS[-1]
    most = float(changed[int(0.99 * (len(changed) - 1))])
    return max((factor for factor in FACTORS if factor * most < 1 + 1e-4), default=1)


def _plain(text: str) -> str:
    """A name from a file, which matplotlib must not take for mathematics."""
    return "".join(c if c.isprintable() else "?" for c in text).replace("$", r"\$")
