"""Before against after on the same images: what changed, and whether it is more than chance."""

from dataclasses import dataclass
from math import sqrt

from jaxtyping import Bool
from scipy.stats import binom
from torch import Tensor

from sslpurify.errors import DataError
from sslpurify.probes.metrics import wilson


@dataclass(frozen=True)
class Change:
    """How a rate changed between two measurements of the same ``n`` images, all as fractions.

    Args:
        value: The later rate less the earlier one, in [-1, 1].
        low: Lower end of its 95 % interval.
        high: Upper end.
        n: Number of images, at least 1.
        only_before: Images that it happened to in the earlier measurement alone.
        only_after: In the later one alone.
        p: McNemar's mid-p: how likely so uneven a split of these images is, if either way were as
            likely as the other. Two-sided, in [0, 1].
    """

    value: float
    low: float
    high: float
    n: int
    only_before: int
    only_after: int
    p: float


def compare(before: Bool[Tensor, " n"], after: Bool[Tensor, " m"]) -> Change:
    """The change of a rate, image by image.

    Two intervals of unpaired rates may overlap although every image that changed did so in one
    direction: most images are the same twice, and only those that changed count here.

    Args:
        before: Whether it happened to each image.
        after: The same of the same images, in the same order.

    Raises:
        DataError: There are no images, or not the same number twice.
    """
    if len(before) != len(after):
        raise DataError(f"{len(before)} images before, {len(after)} after: a pair needs the same")
    both, lost, gained = (
        int((first & second).sum())
        for first, second in ((before, after), (before, ~after), (~before, after))
    )
    low, high = newcombe(both, lost, gained, len(before))
    value = (gained - lost) / len(before)
    return Change(value, low, high, len(before), lost, gained, mcnemar(lost, gained))


def mcnemar(lost: int, gained: int) -> float:
    """The mid-p of McNemar's test, two-sided.

    Source: Fagerland, Lydersen and Laake 2013 (BMC Medical Research Methodology 13:91): the exact
    test, less half the probability of what was seen on either side; without its conservatism.

    Args:
        lost: Pairs that changed one way.
        gained: Pairs that changed the other way.

    Returns:
        In [0, 1]; 1 where neither way is ahead.
    """
    if lost == gained:
        return 1.0
    split = (min(lost, gained), lost + gained, 0.5)
    return float(2 * binom.cdf(*split) - binom.pmf(*split))


def newcombe(both: int, lost: int, gained: int, n: int) -> tuple[float, float]:
    """The 95 % interval of the difference of two paired rates, later less earlier.

    Source: Newcombe 1998 (Statistics in Medicine 17:2635), method 10: Wilson's intervals of both
    rates, put together with the correlation of the pairs.

    Args:
        both: Pairs with both.
        lost: With the earlier alone.
        gained: With the later alone.
        n: All pairs.

    Raises:
        DataError: There are no pairs.
    """
    before, after = wilson(both + lost, n), wilson(both + gained, n)
    neither = n - both - lost - gained
    odds = both * neither - lost * gained
    if odds > 0:
        odds = max(odds - n / 2, 0)  # the correction for continuity
    margins = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    correlation = odds / sqrt(margins) if margins else 0.0

    def reach(one: float, other: float) -> float:
        return sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))

    value = after.value - before.value
    return (
        value - reach(after.value - after.low, before.high - before.value),
        value + reach(after.high - after.value, before.value - before.low),
    )
