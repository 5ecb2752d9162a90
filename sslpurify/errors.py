"""Every error a user can meet, each with the exit code the command line ends with.

Raised low, where the cause is known; given context once, at the public edge. A message names the
operation, the input (file, tensor, row, key), the cause and, where there is one, the fix. No
message ever advises switching a safety check off.
"""


class SslPurifyError(Exception):
    """Base of all errors raised on purpose; anything else is a bug (exit code 1)."""

    exit_code = 1


class ConfigError(SslPurifyError):
    """A flag, recipe or setting is wrong."""

    exit_code = 2


class UnsafeInputError(SslPurifyError):
    """An input would run code, leave its folder or exhaust memory; it was refused unread."""

    exit_code = 3


class CheckpointError(SslPurifyError):
    """A checkpoint cannot be used: damaged, incomplete, or not the architecture asked for."""

    exit_code = 4


class DataError(SslPurifyError):
    """An image set, trigger or reference file cannot be used."""

    exit_code = 5


class TrainingError(SslPurifyError):
    """Training failed: a loss that is not finite, memory or disk exhausted."""

    exit_code = 6


class GateError(SslPurifyError):
    """An attack did not embed: its success rate or clean accuracy is below the recipe's floor."""

    exit_code = 7


class InterruptionError(SslPurifyError):
    """A signal asked to stop; what was saved before, if anything, can be gone on with.

    Args:
        number: Of the signal; the exit code is 128 more.
    """

    def __init__(self, number: int) -> None:
        super().__init__("interrupted" if number == 2 else f"ended by signal {number}")
        self.exit_code = 128 + number
