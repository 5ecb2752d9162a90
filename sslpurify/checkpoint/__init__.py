"""Bytes to weights and back: the only room that opens untrusted checkpoints."""

from sslpurify.checkpoint.checkpoint import Checkpoint, replace
from sslpurify.checkpoint.read import read
from sslpurify.checkpoint.sniff import Container
from sslpurify.checkpoint.write import write

__all__ = ["Checkpoint", "Container", "read", "replace", "write"]
