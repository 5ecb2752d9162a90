"""A process that has imported everything, and forks a child for every run that it is told of.

Reads JSON lines ``[workload, out, resume]`` on standard input; answers each with the child's
process number, and once it has ended with its exit code (negative: of a signal).
"""

import json
import os
import sys
import traceback
from pathlib import Path

from sslpurify.interruption import heeded
from sslpurify.types import silent
from tests.torture.workloads import run


def child(workload: dict[str, object], out: str, resume: bool) -> int:
    try:
        with heeded(lambda _: None):
            run(workload, Path(out), silent, resume=resume)
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        return getattr(error, "exit_code", 1)
    return 0


def tell(answer: int) -> None:
    sys.stdout.write(f"{answer}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    for line in sys.stdin:
        wanted = json.loads(line)
        number = os.fork()
        if number == 0:
            code = child(*wanted)
            sys.stderr.flush()
            os._exit(code)
        tell(number)
        tell(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]))
