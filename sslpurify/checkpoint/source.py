"""The file that a checkpoint came from, held open: it outlives its name."""

import hashlib
import os
import weakref
from io import BufferedRandom, BufferedReader

from sslpurify.errors import TrainingError

_CHUNK = 8 * 2**20


class Source:
    """An open file that may be renamed, replaced or removed until it is needed again.

    Args:
        file: Stays open here when it is closed there.
    """

    def __init__(self, file: BufferedReader) -> None:
        self._handle = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._handle)

    def copy(self, to: BufferedRandom, sha256: str) -> None:
        """Copies the file.

        Raises:
            TrainingError: It no longer has the given hash.
        """
        digest = hashlib.sha256()
        with os.fdopen(os.dup(self._handle), "rb") as file:
            file.seek(0)
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                to.write(chunk)
        if digest.hexdigest() != sha256:
            raise TrainingError("the checkpoint changed on the disk since it was read")
