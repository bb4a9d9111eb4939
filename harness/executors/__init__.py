"""Executors: whatever can run trials somewhere and gives back an `Outcome` for each, whatever happens to its process."""

from harness.executors.forkserver import ForkServer, Job
from harness.executors.subprocess_executor import SubprocessExecutor
from harness.worker.trial import WorkerOptions

__all__ = ["ForkServer", "Job", "SubprocessExecutor", "WorkerOptions"]
