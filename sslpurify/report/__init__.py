"""What a run shows and leaves behind: records, tables, figures, progress."""

from sslpurify.report.figures import save_profile
from sslpurify.report.metrics import Metrics
from sslpurify.report.progress import progress
from sslpurify.report.record import Evaluation, Row, Which, provenance, versions
from sslpurify.report.sheet import contact_sheet
from sslpurify.report.table import evaluation_table, grid, inspection_table, stages_table

__all__ = [
    "Evaluation",
    "Metrics",
    "Row",
    "Which",
    "contact_sheet",
    "evaluation_table",
    "grid",
    "inspection_table",
    "progress",
    "provenance",
    "save_profile",
    "stages_table",
    "versions",
]
