"""What a run shows and leaves behind: records, tables, figures, progress."""

from sslpurify.report.figures import save_profile
from sslpurify.report.metrics import Metrics
from sslpurify.report.progress import progress
from sslpurify.report.record import (
    Changes,
    ClassRates,
    Evaluation,
    Row,
    Which,
    evaluation_origin,
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
    "ClassRates",
    "Evaluation",
    "Metrics",
    "Row",
    "Which",
    "classes_table",
    "evaluation_origin",
    "evaluation_table",
    "grid",
    "inspection_table",
    "progress",
    "provenance",
    "save_profile",
    "stages_table",
    "versions",
]
