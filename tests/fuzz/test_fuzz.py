"""A damaged checkpoint is one of our errors, within five seconds and half a gigabyte."""

import os
import subprocess
import sys

import pytest

EXAMPLES = int(os.environ.get("SSLPURIFY_FUZZ_EXAMPLES", "300"))
"""``make fuzz`` sets more."""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_AS and /proc")
def test_mutated_checkpoints_are_our_errors_or_come_back_as_they_are() -> None:
    command = [sys.executable, "-m", "tests.fuzz.worker", str(EXAMPLES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
