"""`run_trials` over an executor that runs nothing: the order of things, what is recorded, what a Ctrl-C leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from registry_samples import ACCURACY, WHERE, make_trial

from harness.executors import Job
from harness.records import Attempt, Measurement, Outcome, Trial
from harness.registry import Registry
from harness.run import Limits, Progress, Summary, run_trials

OWED = (Measurement("accuracy", "test", "1", "higher", None, 0.0),)
STARTED = "2026-09-01T12:00:00.000000+00:00"


@dataclass
class FakeExecutor:
    """Starts each job and ends it at once, with what `outcome` says. calls: parallel and trials of each `run`."""

    outcome: Callable[[Trial], Outcome] = lambda trial: Outcome("ok", measurements=(ACCURACY,), started_at=STARTED)
    calls: list[tuple[int, list[Trial]]] = field(default_factory=list)
    while_running: Callable[[Job], None] = lambda job: None

    def run(self, jobs: Sequence[Job], *, parallel: int, on_start: Callable[[Job], None]) -> Iterator[tuple[Job, Outcome]]:
        self.calls.append((parallel, [job.trial for job in jobs]))
        for job in jobs:
            on_start(job)
            self.while_running(job)
            outcome = self.outcome(job.trial)
            yield job, outcome
            if outcome.status == "interrupted":
                return


@dataclass
class Seen(Progress):
    """What progress is told, in order."""

    told: list[tuple[str, str]] = field(default_factory=list)

    def started(self, trial: Trial) -> None:
        self.told.append(("started", trial.trial_id))

    def finished(self, attempt: Attempt) -> None:
        self.told.append((attempt.outcome.status, attempt.trial.trial_id))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(tmp_path / "registry")


TRIALS = [
    make_trial("relu", 0, kind="timing"),
    make_trial("relu", 0),
    make_trial("silu", 0),
    make_trial("silu", 0, kind="timing"),
]


def run(
    registry: Registry, executor: FakeExecutor, progress: Progress | None = None, trials: Sequence[Trial] = TRIALS
) -> Summary:
    limits = Limits(timeout_s=60.0, memory_bytes=1 << 30)
    return run_trials(trials, executor, registry, WHERE, lambda trial: OWED, limits, 8, progress or Progress())


def recorded(registry: Registry) -> list[dict]:
    return Registry.open(registry.path, create=False).attempts()


def folded(registry: Registry) -> int:
    return len(list((registry.path / "folded").glob("*.parquet")))


def test_quality_trials_run_side_by_side_and_timing_trials_last_and_alone(registry):
    """A timing beside other work measures that work."""
    executor = FakeExecutor()

    run(registry, executor)

    assert [(parallel, [t.kind for t in trials]) for parallel, trials in executor.calls] == [
        (8, ["quality", "quality"]), (1, ["timing", "timing"]),
    ]  # fmt: skip


def test_each_job_has_the_limits_of_the_run(registry):
    """They are no part of a trial's identity, so they travel beside it."""
    jobs = []

    run(registry, FakeExecutor(while_running=jobs.append))

    assert {(job.timeout_s, job.memory_bytes) for job in jobs} == {(60.0, 1 << 30)}


def test_every_attempt_is_recorded_with_what_it_owes(registry):
    """A failed attempt must still say which metrics it failed to give, so that it can count as their worst."""
    ends = {"relu": Outcome("ok", measurements=(ACCURACY,), started_at=STARTED), "silu": Outcome("oom", started_at=STARTED)}

    summary = run(registry, FakeExecutor(lambda trial: ends[trial.method.split("/")[1]]))

    rows = recorded(registry)
    assert {(r["trial_id"], r["status"]) for r in rows} == {
        (t.trial_id, ends[t.method.split("/")[1]].status) for t in TRIALS
    }  # fmt: skip
    assert [[d["quantity"] for d in r["declared"]] for r in rows] == [["accuracy"]] * 4
    assert len({r["attempt_id"] for r in rows}) == 4
    assert {(r["invocation"], r["suite"], r["machine"]) for r in rows} == {("inv-1", "vision", "m-1")}
    assert (summary.counts, summary.failed, summary.interrupted) == ({"ok": 2, "oom": 2}, 2, False)


def test_an_attempt_is_on_disk_before_progress_hears_of_it(registry):
    """What the screen calls done survives a power cut."""

    class Checking(Seen):
        def finished(self, attempt: Attempt) -> None:
            assert attempt.attempt_id in {r["attempt_id"] for r in recorded(registry)}
            super().finished(attempt)

    progress = Checking()
    run(registry, FakeExecutor(), progress, TRIALS[1:3])

    assert progress.told == [(word, t.trial_id) for t in TRIALS[1:3] for word in ("started", "ok")]


def test_what_runs_is_marked_and_what_ended_is_not(registry):
    """The marker is what a later run finds where this process was killed."""
    marked = []
    folder = registry.path / "started"

    run(registry, FakeExecutor(while_running=lambda job: marked.append(len(list(folder.iterdir())))))

    assert marked == [1, 1, 1, 1]
    assert list(folder.iterdir()) == []


def test_a_run_folds_what_it_wrote(registry):
    """Small files are the main cost of a query; one run leaves one."""
    run(registry, FakeExecutor())

    assert len(recorded(registry)) == 4
    assert folded(registry) == 1


def test_an_interrupted_run_starts_no_timing_and_keeps_what_is_finished(registry):
    """Ctrl-C in the quality part: its trial is recorded as cut, nothing after it runs, the files are folded."""
    ends = {
        "relu": Outcome("ok", measurements=(ACCURACY,), started_at=STARTED),
        "silu": Outcome("interrupted", started_at=STARTED),
    }
    executor = FakeExecutor(lambda trial: ends[trial.method.split("/")[1]])

    summary = run(registry, executor)

    assert len(executor.calls) == 1
    assert summary.interrupted
    assert summary.failed == 0, "being stopped is no failure"
    assert sorted(r["status"] for r in recorded(registry)) == ["interrupted", "ok"]
    assert folded(registry) == 1


def test_an_error_of_the_executor_keeps_what_is_finished(registry):
    """A fault of ours costs the rest of the run, not what was measured before it."""

    def fails_at_silu(trial: Trial) -> Outcome:
        if trial.method.endswith("silu"):
            raise RuntimeError("the executor broke")
        return Outcome("ok", measurements=(ACCURACY,), started_at=STARTED)

    with pytest.raises(RuntimeError, match="the executor broke"):
        run(registry, FakeExecutor(fails_at_silu))

    assert [r["status"] for r in recorded(registry)] == ["ok"]


def test_artefacts_go_into_the_registry(registry, tmp_path):
    """The files that a trial saved are gone with its scratch folder; the registry keeps them by content."""
    (tmp_path / "blob").write_bytes(b"a circuit")
    saved = Outcome("ok", measurements=(ACCURACY,), started_at=STARTED,
                    blobs=({"name": "circuit", "media_type": "text/plain", "path": str(tmp_path / "blob")},))  # fmt: skip

    run(registry, FakeExecutor(lambda trial: saved), trials=TRIALS[1:2])

    [row] = recorded(registry)
    assert registry.read_blob(row["blobs"][0]["sha256"]) == b"a circuit"


def test_nothing_to_run_is_a_run(registry):
    """The same command again: no executor is called, nothing is written."""
    executor = FakeExecutor()

    summary = run(registry, executor, trials=[])

    assert executor.calls == []
    assert (summary.counts, summary.failed, summary.interrupted) == ({}, 0, False)
