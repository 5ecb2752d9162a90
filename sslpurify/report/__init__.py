"""What a run shows and leaves behind: records, tables, figures, progress."""

from sslpurify.report.aggregate import aggregate, aggregate_table
from sslpurify.report.figures import save_profile
from sslpurify.report.metrics import Metrics
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
from sslpurify.report.table import (
    classes_table,
    evaluation_table,
    grid,
    inspection_table,
    stages_table,
)

__all__ = [
    "Changes",
    "CheckpointName",
    "ClassRates",
    "Evaluation",
    "EvaluationOrigin",
    "Metrics",
    "Row",
    "Which",
    "aggregate",
    "aggregate_table",
    "classes_table",
    "evaluation_table",
    "grid",
    "inspection_table",
    "progress",
    "provenance",
    "save_profile",
    "stages_table",
    "versions",
]
