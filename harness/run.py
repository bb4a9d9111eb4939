"""Running a plan: trials in, attempts in the registry out. Quality trials side by side, timing trials last and alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from harness.errors import HarnessError, RegistryError
from harness.provenance import new_id
from harness.records import Attempt, Measurement, Outcome, Provenance, Trial
from harness.registry import Registry

if TYPE_CHECKING:
    from harness.executors import Job

ID_TIME = 12  # hex digits of an id that hold its time


class Executor(Protocol):
    """Whatever can run trials somewhere: the fork server here, a cluster elsewhere. Closing the iteration kills what runs."""

    def run(
        self, jobs: Sequence[Job], *, parallel: int, on_start: Callable[[Job], None]
    ) -> Generator[tuple[Job, Outcome], None, None]: ...


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
    """How many attempts ended how, and whether the user stopped the run.

    again: the trials whose records were gone or damaged when the run ended, and that were recorded once more.
    lost: the same, where the record was not at hand any more: these have to run anew.
    """

    counts: dict[str, int] = field(default_factory=dict)
    interrupted: bool = False
    again: list[Trial] = field(default_factory=list)
    lost: list[Trial] = field(default_factory=list)

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
    Raises RegistryError where an attempt cannot be recorded: nothing runs then any more, and what was recorded stays.
    """
    from harness.executors import Job  # here: it brings the worker, which those who only draw progress or boards can do without

    summary, recorded = Summary(), dict[str, Trial]()
    if not trials:
        return summary
    earlier = find_earlier(registry, provenance.machine, {t.series_key for t in trials})
    try:
        for kind, at_once in (("tuning", parallel), ("quality", parallel), ("timing", 1), ("kernel", 1)):
            jobs = [Job(t, limits.timeout_s, limits.memory_bytes) for t in trials if t.kind == kind]
            if jobs and not summary.interrupted:
                run_jobs(jobs, executor, registry, provenance, declared, at_once, progress, summary, recorded, earlier)
    except BaseException:
        # What stopped the run is what has to be told; that its disk refuses this too adds nothing.
        with contextlib.suppress(HarnessError):
            settle(registry, provenance, recorded, summary)
        raise
    settle(registry, provenance, recorded, summary)
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
    recorded: dict[str, Trial],
    earlier: Mapping[str, Earlier],
) -> None:
    begun: dict[str, Path | None] = {}  # trial -> its marker: what has started and is not recorded

    def started(job: Job) -> None:
        if begun.setdefault(job.trial.trial_id, None) is None:  # else the server died, and the trial starts once more
            attempt_id = later_id(new_id(), earlier.get(job.trial.series_key))
            begun[job.trial.trial_id] = registry.begin(job.trial, provenance, attempt_id)
        progress.started(job.trial)

    try:
        with contextlib.closing(executor.run(jobs, parallel=parallel, on_start=started)) as ended:
            for job, outcome in ended:
                marker = begun.get(job.trial.trial_id)
                # Marker and record share an id: a sweep after a crash between the two then sees that nothing is missing.
                attempt_id = marker.stem if marker is not None else new_id()
                outcome = later(outcome, earlier.get(job.trial.series_key))
                attempt = Attempt(attempt_id, job.trial, outcome, provenance, declared=declared(job.trial))
                blob_files = {str(b["name"]): Path(str(b["path"])) for b in outcome.blobs}
                attempt = registry.append(attempt, blob_files)
                begun.pop(job.trial.trial_id, None)
                recorded[attempt_id] = job.trial
                if marker is not None:
                    registry.end(marker)
                summary.counts[outcome.status] = summary.counts.get(outcome.status, 0) + 1
                summary.interrupted = summary.interrupted or outcome.status == "interrupted"
                progress.finished(attempt)
    except RegistryError as exc:
        raise RegistryError(
            f"{exc}\nthe run was stopped: {len(begun)} of {len(jobs)} trials had started and could not be recorded; "
            "what was recorded before stays, and the same command goes on from there"
        ) from exc


# A clock that was set back ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Earlier:
    """What the attempts of one series on this machine came to before this run: their greatest id, their latest start."""

    attempt_id: str
    started_at: datetime | None


def find_earlier(registry: Registry, machine: str, series: set[str]) -> dict[str, Earlier]:
    """By series_key. "Latest" goes by start, so an attempt must not be dated before one that had ended when it began."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = registry.table({"series_key", "machine", "attempt_id", "started_at"})
    mine = pc.and_(pc.equal(table["machine"], machine), pc.is_in(table["series_key"], pa.array(sorted(series), pa.string())))
    found: dict[str, Earlier] = {}
    for row in table.filter(mine).to_pylist():
        before = found.get(row["series_key"], Earlier("", None))
        starts = [t for t in (before.started_at, row["started_at"]) if t is not None]
        found[row["series_key"]] = Earlier(max(before.attempt_id, row["attempt_id"]), max(starts, default=None))
    return found


def later_id(attempt_id: str, earlier: Earlier | None) -> str:
    """The id, or where the clock was set back one that still sorts after the earlier ones."""
    if earlier is None or attempt_id > earlier.attempt_id:
        return attempt_id
    head = earlier.attempt_id[:ID_TIME]
    try:
        return f"{int(head, 16) + 1:0{ID_TIME}x}"[-ID_TIME:] + attempt_id[ID_TIME:]
    except ValueError:  # an id that another program made up: no order to keep
        return attempt_id


def later(outcome: Outcome, earlier: Earlier | None) -> Outcome:
    """The outcome, dated after the earlier attempts of its series; by how much it was moved stands in its environment."""
    if earlier is None or earlier.started_at is None or not outcome.started_at:
        return outcome
    said = datetime.fromisoformat(outcome.started_at)
    said = said.replace(tzinfo=UTC) if said.tzinfo is None else said
    if said > earlier.started_at:
        return outcome
    moved = earlier.started_at + timedelta(microseconds=1)
    environment = {**outcome.environment, "clock_set_back_s": (moved - said).total_seconds()}
    return replace(outcome, started_at=moved.isoformat(timespec="microseconds"), environment=environment)


# Afterwards -------------------------------------------------------------------------------------------------------------


def settle(registry: Registry, provenance: Provenance, recorded: Mapping[str, Trial], summary: Summary) -> None:
    """Fold what the run wrote, then look whether all of it can be read. Raises RegistryError.

    A plugin is code with its user's rights and may write into the registry, by a mistaken path say.
    """
    registry.fold(provenance.invocation)
    if not recorded:
        return
    there = set(registry.table({"attempt_id"})["attempt_id"].to_pylist())
    summary.again += [recorded[attempt_id] for attempt_id in registry.restored if attempt_id in recorded]
    summary.lost += [trial for attempt_id, trial in recorded.items() if attempt_id not in there]
