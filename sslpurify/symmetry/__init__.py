"""Permutation symmetry: what may be reordered, matching by activations, and applying it."""

from sslpurify.symmetry.assignment import Sense, linear_assignment
from sslpurify.symmetry.check import relative_error, require_invariant
from sslpurify.symmetry.matching import Correlations, correlate, match, similarity
from sslpurify.symmetry.observing import observe
from sslpurify.symmetry.permutation import Permutation
from sslpurify.symmetry.spec import (
    Fixed,
    Group,
    Linear,
    PermutationSpec,
    Probe,
    Touch,
    View,
    fixed_axes,
)

__all__ = [
    "Correlations",
    "Fixed",
    "Group",
    "Linear",
    "Permutation",
    "PermutationSpec",
    "Probe",
    "Sense",
    "Touch",
    "View",
    "correlate",
    "fixed_axes",
    "linear_assignment",
    "match",
    "observe",
    "relative_error",
    "require_invariant",
    "similarity",
]
