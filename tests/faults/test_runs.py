"""Faults in a real `harness run`: all that fit into one run in the quick half, each by itself and often in the slow half."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from registry_samples import ACCURACY, WHERE, make_trial

from harness.errors import RegistryError
from harness.executors import Job
from harness.executors.forkserver import STOPPING, interrupts_held
from harness.records import Outcome, Trial
from harness.registry import Registry, io
from harness.run import Earlier, Limits, Progress, Summary, later_id, run_trials

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # `tests` is a folder of files to pytest, a package to `python -m tests.faults`

from tests.faults import long_run, runs  # noqa: E402
from tests.faults.stage import Running, Stage, open_stage  # noqa: E402

SEED = 3
SERVER_DIES, STOPPED = 15, 48  # trials that have begun by then


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One for all tests: its plugin is written once."""
    with open_stage(tmp_path_factory.mktemp("runs"), runs.TRIALS) as made:
        yield made


@pytest.fixture(scope="module")
def clean(stage: Stage) -> runs.Values:
    """What the suite gives when nothing happens."""
    return runs.clean_values(stage)


# One run with everything ------------------------------------------------------------------------------------------------


def storm(running: Running, rng: random.Random) -> int:
    """The server is killed, the clock goes back, and at last someone stops the command."""
    runs.wait_for(running, rng, SERVER_DIES)
    server = running.server()
    assert server is not None
    os.kill(server, signal.SIGKILL)
    if running.stage.environment:
        runs.set_back(running.stage)
    assert runs.wait_for(running, rng, STOPPED)
    os.kill(running.process.pid, signal.SIGTERM)
    return 1


STORM = replace(
    runs.SIGTERM, inject=storm, misdeeds=tuple(runs.MISDEEDS),
    around=runs.own_clock if shutil.which("cc") else runs.SIGTERM.around,
)  # fmt: skip


def test_a_run_survives_all_that_its_plugins_do_a_dead_server_a_clock_gone_back_and_sigterm(stage, clean):
    """Nothing that ended is lost, nothing is recorded that did not happen, no process is left, and the same command goes on."""
    assert len(set(clean.values())) == runs.TRIALS, "numbers that do not tell trials apart would agree with anything"
    rng = random.Random(SEED)

    found = runs.play(stage, STORM, rng, clean, runs.draw_misdeeds(STORM, rng, last=STOPPED - 8))

    assert (found.tried, found.lost, found.wrong, found.left_over) == (1, [], [], 0)
    assert {e["misdeed"] for e in stage.seen() if e["event"] == "begins"} == {None, *runs.MISDEEDS}


def test_many_trials_with_faults_leave_a_record_each_and_no_memory_or_handle_behind(tmp_path):
    """Every trial is accounted for; the long run of the page is this one with 2,000."""
    trials, watched = long_run.campaign(tmp_path, 60, SEED, tmp_path)

    assert (trials.tried, trials.lost, trials.wrong, trials.left_over) == (60, 0, 0, 0), trials
    assert watched.tried >= 4
    assert watched.wrong == 0, watched
    picture = (tmp_path / long_run.PICTURE).read_text()
    assert picture.startswith("<svg")
    assert "memory of its own (MB)" in picture


# The judges -------------------------------------------------------------------------------------------------------------


def row(seed: int, nonce: str, **changes: object) -> dict[str, object]:
    """A record as the registry gives it, as far as the judges look."""
    return {
        "attempt_id": f"a{seed}", "seed": seed, "status": "ok", "limit_fired": "", "signal": None, "error": "",
        "wall_s": 0.3, "solve_s": 0.1, "diagnostics": [{"name": "nonce", "value": None, "text": nonce}], **changes,
    }  # fmt: skip


def seen(seed: int, nonce: str, *events: str) -> list[dict[str, object]]:
    return [{"event": event, "seed": seed, "nonce": nonce, "at_s": 0.2 * at} for at, event in enumerate(events)]


@pytest.mark.parametrize(
    ("rows", "lines", "told"),
    [
        ([row(1, "n")], seen(1, "n", "begins", "ends"), ""),
        ([row(1, "n")], seen(1, "n", "begins"), "never ran to its end"),
        ([row(1, "n")], seen(2, "n", "begins", "ends"), "never ran to its end"),
        ([row(1, "n"), row(1, "n")], seen(1, "n", "begins", "ends"), "one execution recorded twice"),
        ([row(1, "n", wall_s=-3599.8)], seen(1, "n", "begins", "ends"), "it took 0.200 s, not -3599.8"),
        ([row(1, "n", wall_s=3600.2)], seen(1, "n", "begins", "ends"), "it took 0.200 s, not 3600.2"),
    ],
)
def test_the_judge_sees_a_record_of_what_never_ran_a_doubled_one_and_wrong_seconds(rows, lines, told):
    """A judge that finds nothing wrong must be one that could."""
    found = runs.Found()

    runs.check_rows(found, rows, lines)

    assert [what for _, what in found.wrong if told in what] == [what for _, what in found.wrong]
    assert bool(found.wrong) == bool(told)


@pytest.mark.parametrize(
    ("changes", "misdeed", "true"),
    [
        ({}, None, True),
        ({"status": "interrupted"}, None, False),
        ({"status": "failed", "signal": 9}, None, False),
        ({"status": "failed", "signal": 9}, "kills_itself", True),
        ({}, "kills_itself", False),
        ({"status": "oom", "limit_fired": "rlimit_data"}, "asks_for_too_much", True),
        ({"status": "oom", "limit_fired": "polled_rss"}, "asks_for_too_much", False),
    ],
)
def test_the_judge_sees_a_status_that_lies(changes, misdeed, true):
    """What a trial did is known, so what its record may say is too."""
    misdeeds = {1: misdeed} if misdeed else {}

    assert (runs.lies(row(1, "n", **changes), runs.MISBEHAVIOUR, misdeeds) == []) == true


def sample(recorded: int, **changes: int) -> long_run.Sample:
    steady = dict.fromkeys(long_run.Sample.__dataclass_fields__, 5) | {"recorded": recorded, "at_s": 0.1 * recorded}
    return long_run.Sample(**{**steady, **changes})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda at: {}, []),
        (lambda at: {"parent_bytes": at * (12 << 10)}, ["the parent grows by 12.3 MB a run"]),
        (lambda at: {"parent_bytes": at * (8 << 10)}, []),
        (lambda at: {"zombies": at // 100}, ["zombies: 2, then 9"]),
        (lambda at: {"parent_descriptors": at}, ["parent descriptors: 200, then 910"]),
    ],
)
def test_the_judge_of_long_runs_sees_what_grows(change, told):
    """12 kB a trial are 12 MB in 1,000: that is a leak. A zombie of each hundredth is one too."""
    looks = [sample(at, **change(at)) for at in range(0, 1001, 10)]

    assert [b.broken for b in long_run.bounds(looks) if b.broken] == told


# The mends, without a process -------------------------------------------------------------------------------------------


@dataclass
class OneByOne:
    """An executor that runs nothing: each job starts, `while_running` looks, and it ends with what `outcome` says."""

    outcome: Callable[[Trial], Outcome] = lambda trial: Outcome("ok", measurements=(ACCURACY,), started_at=STARTED)
    while_running: Callable[[Job], None] = lambda job: None
    closed: bool = False

    def run(
        self, jobs: Sequence[Job], *, parallel: int, on_start: Callable[[Job], None]
    ) -> Generator[tuple[Job, Outcome], None, None]:
        try:
            for first, second in zip(jobs[::2], jobs[1::2], strict=True):
                on_start(first)
                on_start(second)
                self.while_running(first)
                yield first, self.outcome(first.trial)
                yield second, self.outcome(second.trial)
        finally:
            self.closed = True


STARTED = "2026-09-01T12:00:00.000000+00:00"
EARLIER = "2026-09-01T11:00:00.000000+00:00"
TRIALS = [make_trial("relu", seed) for seed in range(6)]


def run_all(registry: Registry, executor: OneByOne, trials: Sequence[Trial] = TRIALS) -> Summary:
    return run_trials(trials, executor, registry, WHERE, lambda trial: (), Limits(60.0, None), 2, Progress())


def recorded(registry: Registry) -> list[dict[str, object]]:
    return Registry.open(registry.path, create=False).attempts()


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_that_comes_while_a_result_is_in_hand_is_heard_afterwards(number):
    """A result between two hands would be lost. Also where the system gives the signal to another thread, as it may."""
    heard = []
    before = signal.signal(number, lambda *_: heard.append(number))
    try:
        with interrupts_held():
            os.kill(os.getpid(), number)
            time.sleep(0.01)
            assert heard == []
        assert heard == [number]
        assert signal.getsignal(number) is not before
    finally:
        signal.signal(number, before)


def test_held_signals_are_heard_also_where_the_hold_ends_by_an_error():
    """A full disk must not make a Ctrl-C vanish."""

    @interrupts_held()
    def refused() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        raise OSError("no space")

    with pytest.raises(KeyboardInterrupt):
        refused()


@pytest.mark.parametrize("call", ["write", "fsync", "link"])
def test_a_disk_that_refuses_stops_the_run_and_says_how_many_trials_it_cost(tmp_path, monkeypatch, call):
    """The executor is closed, so nothing runs on; what was recorded is there; a retry has four trials to run."""
    registry, executor = Registry.open(tmp_path / "registry"), OneByOne()

    def refuse(job: Job) -> None:
        if job.trial is TRIALS[2]:
            monkeypatch.setattr(io, call, full_disk)

    def full_disk(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    executor.while_running = refuse

    with pytest.raises(RegistryError) as refused:
        run_all(registry, executor)

    monkeypatch.undo()
    assert "No space left on device; free some space" in str(refused.value)
    assert "2 of 6 trials had started and could not be recorded" in str(refused.value)
    assert executor.closed
    assert sorted(row["seed"] for row in recorded(registry)) == [0, 1]


def test_an_attempt_after_a_clock_was_set_back_is_still_the_latest(tmp_path):
    """A retry that is dated before the failure which it mends would be hidden by it for ever; the record says it was moved."""
    registry = Registry.open(tmp_path / "registry")
    run_all(registry, OneByOne(lambda trial: Outcome("failed", "boom", started_at=STARTED)), TRIALS[:2])

    run_all(registry, OneByOne(lambda trial: Outcome("ok", measurements=(ACCURACY,), started_at=EARLIER)), TRIALS[:2])

    states = Registry.open(registry.path, create=False).states(WHERE.machine)
    assert [states[trial.trial_id].status for trial in TRIALS[:2]] == ["ok", "ok"]
    retried = [row for row in recorded(registry) if row["status"] == "ok"]
    assert {row["started_at"] for row in retried} == {"2026-09-01T12:00:00.000001+00:00"}
    assert {row["worker_environment"]["clock_set_back_s"] for row in retried} == {3600.000001}


def test_ids_sort_after_those_of_the_same_series_whatever_the_clock_says():
    """Some commands tell the latest by its id."""
    ids = ["0199f0000000" + "a" * 20, "0199f0000000" + "b" * 20, "0199effffff0" + "c" * 20]

    assert later_id(ids[1], Earlier(ids[0], None)) == ids[1]
    assert later_id(ids[2], Earlier(ids[0], None)) == "0199f0000001" + "c" * 20
    assert later_id(ids[2], None) == ids[2]
    assert later_id(ids[2], Earlier("made-by-hand", None)) == ids[2]


def test_a_record_that_a_plugin_deletes_is_recorded_again_or_named(tmp_path):
    """What this very run acknowledged must be readable when it ends, or be said to be lost."""
    registry = Registry.open(tmp_path / "registry")
    gone = []

    def delete(job: Job) -> None:
        gone.extend([path.unlink() for path in (registry.path / "attempts").glob("*.parquet")])

    summary = run_all(registry, OneByOne(while_running=delete))

    assert len(gone) == 4, "what was recorded before the last two started"
    assert [trial.seed for trial in summary.again] == [0, 1, 2, 3]
    assert summary.lost == []
    assert sorted(row["seed"] for row in recorded(registry)) == [0, 1, 2, 3, 4, 5]


# Each by itself ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("fault", runs.ALONE, ids=lambda fault: fault.name)
def test_each_fault_by_itself_loses_nothing(stage, clean, fault):
    """Disk full, read-only, kill -9, signals, the clock, a plugin that writes into the registry: each at random moments."""
    tally = runs.tally_of(stage, fault, 2, random.Random(f"{SEED}/{fault.name}"), clean)

    if tally.skipped:
        pytest.skip(tally.skipped)
    assert tally.clean, tally
    assert tally.tried >= 2


@pytest.mark.slow
def test_misbehaving_trials_cost_themselves_only(stage, clean):
    """A row for each kind of misbehaviour, and one for the trials beside them."""
    tallies = runs.tally_misdeeds(stage, 2, random.Random(f"{SEED}/misdeeds"), clean)

    assert all(tally.clean for tally in tallies), [t for t in tallies if not t.clean]
    assert [tally.tried for tally in tallies] == [2] * len(runs.MISDEEDS) + [2 * (runs.TRIALS - len(runs.MISDEEDS))]


@pytest.mark.slow
def test_memory_is_flat_over_600_trials(tmp_path):
    """Enough of them for a slope that is more than noise."""
    tallies = long_run.campaign(tmp_path, 600, SEED, None)

    assert all(tally.clean for tally in tallies), tallies
