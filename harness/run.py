"""Running a plan: trials in, attempts in the registry out. Quality trials side by side, timing trials last and alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from harness.executors import Job
from harness.provenance import new_id
from harness.records import Attempt, Measurement, Outcome, Provenance, Trial
from harness.registry import Registry


class Executor(Protocol):
    """Whatever can run trials somewhere: the fork server here, a cluster elsewhere."""

    def run(self, jobs: Sequence[Job], *, parallel: int, on_start: Callable[[Job], None]) -> Iterator[tuple[Job, Outcome]]: ...


@dataclass(frozen=True)
class Limits:
    """What one trial may take before it is killed. memory_bytes None: all that this machine has, shared by the workers."""

    timeout_s: float
    memory_bytes: int | None


@dataclass
class Progress:
    """Called as things happen; the command line draws it. The default draws nothing."""

    def started(self, trial: Trial) -> None: ...

    def finished(self, attempt: Attempt) -> None: ...


@dataclass
class Summary:
    """How many attempts ended how, and whether the user stopped the run."""

    counts: dict[str, int] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def failed(self) -> int:
        return sum(n for status, n in self.counts.items() if status not in ("ok", "unsupported", "interrupted"))


def run_trials(
    trials: Sequence[Trial],
    executor: Executor,
    registry: Registry,
    provenance: Provenance,
    declared: Callable[[Trial], tuple[Measurement, ...]],
    limits: Limits,
    parallel: int,
    progress: Progress,
) -> Summary:
    """Run the trials and record each attempt as it ends. Ctrl-C keeps all that is finished and records what was cut.

    declared: the metrics that a trial owes, so that a failed attempt can count as their `worst`.
    """
    summary = Summary()
    try:
        for kind, at_once in (("quality", parallel), ("timing", 1)):
            jobs = [Job(t, limits.timeout_s, limits.memory_bytes) for t in trials if t.kind == kind]
            if jobs and not summary.interrupted:
                run_jobs(jobs, executor, registry, provenance, declared, at_once, progress, summary)
    finally:
        registry.fold(provenance.invocation)
    return summary


def run_jobs(
    jobs: Sequence[Job],
    executor: Executor,
    registry: Registry,
    provenance: Provenance,
    declared: Callable[[Trial], tuple[Measurement, ...]],
    parallel: int,
    progress: Progress,
    summary: Summary,
) -> None:
    markers: dict[str, Path] = {}

    def started(job: Job) -> None:
        markers[job.trial.trial_id] = registry.begin(job.trial, provenance)
        progress.started(job.trial)

    for job, outcome in executor.run(jobs, parallel=parallel, on_start=started):
        marker = markers.pop(job.trial.trial_id, None)
        # Marker and record share an id: a sweep after a crash between the two then sees that nothing is missing.
        attempt_id = marker.stem if marker is not None else new_id()
        attempt = Attempt(attempt_id, job.trial, outcome, provenance, declared=declared(job.trial))
        blob_files = {str(b["name"]): Path(str(b["path"])) for b in outcome.blobs}
        attempt = registry.append(attempt, blob_files)
        if marker is not None:
            registry.end(marker)
        summary.counts[outcome.status] = summary.counts.get(outcome.status, 0) + 1
        summary.interrupted = summary.interrupted or outcome.status == "interrupted"
        progress.finished(attempt)
