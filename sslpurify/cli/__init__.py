"""The command line."""

from sslpurify.cli.commands import app, main

__all__ = ["app", "main"]
