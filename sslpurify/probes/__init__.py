"""Probes: what a downstream task would make of an encoder's embeddings, as rates with intervals."""

from sslpurify.probes.fewshot import draw_shots
from sslpurify.probes.knn import KnnSettings, knn_predict, require_neighbours
from sslpurify.probes.linear import LinearSettings, linear_predict
from sslpurify.probes.metrics import (
    Gate,
    Hits,
    Measurement,
    Protocol,
    Rate,
    correct,
    fooled,
    near_chance,
    require_gate,
    wilson,
)
from sslpurify.probes.mlp import MlpSettings, mlp_predict
from sslpurify.probes.paired import Change, compare
from sslpurify.probes.predict import Probe, ProbeName, ProbeSettings, predict
from sslpurify.probes.zeroshot import class_embedding, zeroshot_predict

__all__ = [
    "Change",
    "Gate",
    "Hits",
    "KnnSettings",
    "LinearSettings",
    "Measurement",
    "MlpSettings",
    "Probe",
    "ProbeName",
    "ProbeSettings",
    "Protocol",
    "Rate",
    "class_embedding",
    "compare",
    "correct",
    "draw_shots",
    "fooled",
    "knn_predict",
    "linear_predict",
    "mlp_predict",
    "near_chance",
    "predict",
    "require_gate",
    "require_neighbours",
    "wilson",
    "zeroshot_predict",
]
