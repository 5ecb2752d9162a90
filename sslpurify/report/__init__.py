"""What a run shows and leaves behind: records, tables, figures, progress."""

from sslpurify.report.aggregate import aggregate, aggregate_table
from sslpurify.report.figures import save_profile, save_sweep
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
    "evaluation_table",
    "grid",
    "inspection_table",
    "progress",
    "provenance",
    "save_profile",
    "save_sweep",
    "stages_table",
    "sweep_table",
    "versions",
]
