"""A damaged file is one of our errors, within five seconds and half a gigabyte."""

import os
import subprocess
import sys

import pytest

EXAMPLES = int(os.environ.get("SSLPURIFY_FUZZ_EXAMPLES", "400"))
"""``make fuzz`` sets more."""
ROUND = 5_000
"""Examples of one process: hypothesis remembers them all, and memory is what is watched."""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_AS and /proc")
@pytest.mark.parametrize("seed", range(-(-EXAMPLES // ROUND)))
def test_mutated_files_are_our_errors_or_come_back_as_they_are(seed: int) -> None:
    examples = min(ROUND, EXAMPLES - seed * ROUND)
    command = [sys.executable, "-m", "tests.fuzz.worker", str(examples), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
