import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def public_files():
    """The BadEncoder authors' own trigger and reference files, which lie outside the repository."""
    beside = Path(__file__).parents[2].parent / "shared"
    folder = Path(os.environ.get("SSLPURIFY_SHARED", beside)) / "data" / "badencoder"
    if not folder.is_dir():
        pytest.skip(f"no public BadEncoder files in {folder}; set SSLPURIFY_SHARED")
    return folder
