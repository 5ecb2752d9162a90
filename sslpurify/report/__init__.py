"""What a run shows and leaves behind: records, tables, figures, pages, progress."""

from sslpurify.report.aggregate import aggregate, aggregate_table
from sslpurify.report.embeddings import embedding_map, nearest, spread
from sslpurify.report.metrics import Metrics
from sslpurify.report.page import PICTURES, draw, pictures_of, slug, to_html
from sslpurify.report.pictures import png
from sslpurify.report.progress import progress
from sslpurify.report.record import (
    Changes,
    CheckpointName,
    ClassRates,
    Evaluation,
    EvaluationOrigin,
    Row,
    Which,
    provenance,
    versions,
)
from sslpurify.report.sheet import contact_sheet
from sslpurify.report.sweep import SweepPoint, SweepRates, SweptStage
from sslpurify.report.table import (
    classes_table,
    evaluation_table,
    grid,
    inspection_table,
    stages_table,
    sweep_table,
)

__all__ = [
    "PICTURES",
    "Changes",
    "CheckpointName",
    "ClassRates",
    "Evaluation",
    "EvaluationOrigin",
    "Metrics",
    "Row",
    "SweepPoint",
    "SweepRates",
    "SweptStage",
    "Which",
    "aggregate",
    "aggregate_table",
    "classes_table",
    "contact_sheet",
    "draw",
    "embedding_map",
    "evaluation_table",
    "grid",
    "inspection_table",
    "nearest",
    "pictures_of",
    "png",
    "progress",
    "provenance",
    "slug",
    "spread",
    "stages_table",
    "sweep_table",
    "to_html",
    "versions",
]
