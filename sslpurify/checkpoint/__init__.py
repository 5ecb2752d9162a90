"""Bytes to weights and back: the only room that opens untrusted checkpoints."""

from sslpurify.checkpoint.checkpoint import Checkpoint, new, replace
from sslpurify.checkpoint.read import read
from sslpurify.checkpoint.report import LoadReport, load_report
from sslpurify.checkpoint.stored import Container
from sslpurify.checkpoint.strict_json import parse as parse_json
from sslpurify.checkpoint.strict_json import read_json
from sslpurify.checkpoint.write import write

__all__ = [
    "Checkpoint",
    "Container",
    "LoadReport",
    "load_report",
    "new",
    "parse_json",
    "read",
    "read_json",
    "replace",
    "write",
]
