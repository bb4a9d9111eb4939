"""Commands run as a user runs them; what the whole tree of processes cost, as the kernel counts it at the end."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """Seconds of one command. cpu_s: user and system, of the process and of all descendants that were waited for."""

    cpu_s: float
    wall_s: float


def run_measured(argv: Sequence[str | Path], folder: Path, environment: Mapping[str, str]) -> Usage:
    """Run to the end in `folder`, output to a file there. Raises RuntimeError with its last lines unless it exits with 0."""
    log = folder / "output.log"
    with log.open("wb") as output:
        began = time.perf_counter()
        # Popen would wait by itself and throw the usage away, so it is wait4 that reaps, not Popen.
        process = subprocess.Popen(
            [str(a) for a in argv], cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        wall_s = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        raise RuntimeError(f"{' '.join(map(str, argv))} ended with exit code {process.returncode}:\n{tail}")
    return Usage(usage.ru_utime + usage.ru_stime, wall_s)


def clean_environment(**changes: str) -> dict[str, str]:
    """This process's, without settings of the harness and paths of modules: what is measured must not depend on the user's."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HARNESS_") and k != "PYTHONPATH"}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", **changes}
