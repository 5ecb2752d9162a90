"""Curves through weight space: fitting one, taking a point on it, looking along it."""

from sslpurify.curves.batchnorm import reestimate
from sslpurify.curves.bezier import BezierCurve, basis, midpoint_bend
from sslpurify.curves.descent import Batch, Objective, Schedule, backward, cosine, descend
from sslpurify.curves.fit import Endpoints, fit_bend
from sslpurify.curves.profile import Point, Profile, survey

__all__ = [
    "Batch",
    "BezierCurve",
    "Endpoints",
    "Objective",
    "Point",
    "Profile",
    "Schedule",
    "backward",
    "basis",
    "cosine",
    "descend",
    "fit_bend",
    "midpoint_bend",
    "reestimate",
    "survey",
]
