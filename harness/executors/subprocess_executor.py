"""The executor that starts `python -m harness.worker SPEC OUT` for each trial: slower, and nothing is shared.

The same interface, limits and care as the fork server, because the same server watches; it execs instead of forking on. A
scheduler (SLURM, Ray) needs only that command line on its nodes: this shows that nothing else is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.executors.forkserver import ForkServer
from harness.worker.trial import WorkerOptions


def SubprocessExecutor(parallel: int = 1, options: WorkerOptions | None = None, preload: Sequence[str] = ()) -> ForkServer:
    """A `ForkServer` whose trials are fresh interpreters. preload is taken for the interface's sake: nothing is shared."""
    return ForkServer(parallel, options, preload=(), isolation="exec")
