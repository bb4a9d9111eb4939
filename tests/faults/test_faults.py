"""Everything a method may do to its process, in real processes: it costs its own trial and nothing else."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from helpers import marked_processes, open_plugin_site, trial

from harness.executors import ForkServer, Job, SubprocessExecutor, WorkerOptions
from harness.records import Outcome

MARK = "HARNESS_TEST_MARK"
MiB = 1 << 20

FAULTY = """
import ctypes, os, signal, subprocess, sys, time, threading
import numpy as np

def raises(problem, ctx, params):
    raise ValueError("boom")

def sleeps(problem, ctx, params):
    ctx.offer(Threshold(0.0))
    time.sleep(1000)

def ignores_signals(problem, ctx, params):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        pass

def exits_7(problem, ctx, params):
    os._exit(7)

def exits_0(problem, ctx, params):
    print("last words")
    os._exit(0)

def sys_exits(problem, ctx, params):
    sys.exit(0)

def kills_itself(problem, ctx, params):
    os.kill(os.getpid(), signal.SIGKILL)

def segfaults(problem, ctx, params):
    ctypes.string_at(0)

def aborts(problem, ctx, params):
    os.abort()

def asks_for_too_much(problem, ctx, params):
    return torch.ones(2 << 30)

def asks_numpy_for_too_much(problem, ctx, params):
    return np.ones(2 << 30)

def fills_memory_in_children(problem, ctx, params):
    for _ in range(8):
        if os.fork() == 0:
            block = bytearray(100 << 20)
            block[::4096] = b"x" * len(block[::4096])
            time.sleep(1000)
    time.sleep(1000)

def leaves_a_grandchild(problem, ctx, params):
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            for number in range(1, 32):
                if number not in (signal.SIGKILL, signal.SIGSTOP):
                    signal.signal(number, signal.SIG_IGN)
            time.sleep(1000)
        os._exit(0)
    return good(problem, ctx, params)

def prints_100_MB(problem, ctx, params):
    print("the beginning")
    for _ in range(1000):
        sys.stdout.write("x" * 100_000)
    print("the end")
    return good(problem, ctx, params)

def closes_its_streams(problem, ctx, params):
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.close()
    for descriptor in (0, 1, 2):
        try:
            os.close(descriptor)
        except OSError:
            pass
    return good(problem, ctx, params)

def forks_and_falls_through(problem, ctx, params):
    pid = os.fork()
    if pid == 0:
        return Threshold(-100.0)
    os.waitpid(pid, 0)
    return good(problem, ctx, params)

def forks_and_offers(problem, ctx, params):
    pid = os.fork()
    if pid == 0:
        ctx.offer(Threshold(-100.0))
        return Threshold(-100.0)
    os.waitpid(pid, 0)
    return good(problem, ctx, params)

def changes_everything(problem, ctx, params):
    os.chdir("/")
    os.environ.clear()
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    return good(problem, ctx, params)

def returns_nan(problem, ctx, params):
    class Nan:
        def guess(self, x):
            return torch.full_like(x, float("nan"))
    class Wrong:
        def guess(self, x):
            return Wrong()
    return Nan()

def returns_no_solution(problem, ctx, params):
    return 42

def returns_what_cannot_be_pickled(problem, ctx, params):
    solution = Threshold(0.0)
    solution.lock = threading.Lock()
    return solution

def writes_to_every_descriptor(problem, ctx, params):
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b"\\xff" * 64)
        except OSError:
            pass
    time.sleep(1000)

def swallows_the_end(problem, ctx, params):
    ctx.offer(Threshold(0.0))
    while True:
        try:
            ctx.spend(steps=7)
        except Exception:
            pass
"""
NAN_SCORE = """
def score(held, solution, params, ctx):
    x, y = held
    guess = solution.guess(x)
    if guess.is_floating_point():
        return {"accuracy": guess.mean(), "first": float(x[0])}
    return {"accuracy": (guess == y).double().mean(), "first": float(x[0])}
"""
NAMES = tuple(line.split("(")[0].removeprefix("def ") for line in FAULTY.splitlines() if line.startswith("def "))


@dataclass
class Seen:
    """What one executor made of all faulty methods, with healthy trials between them."""

    isolation: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    healthy: list[Outcome] = field(default_factory=list)
    left: list[int] = field(default_factory=list)


@pytest.fixture(scope="module", params=["fork", pytest.param("exec", marks=pytest.mark.slow)])
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """All faulty methods once, two at a time, a healthy trial after each."""
    folder, mark = tmp_path_factory.mktemp("faults"), uuid.uuid4().hex
    found = Seen(request.param)
    make = ForkServer if request.param == "fork" else SubprocessExecutor
    with open_plugin_site(folder / "site") as site, pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, mark)
        site.write_toy(FAULTY + NAN_SCORE, NAMES)
        # A fresh interpreter needs seconds only to import torch, and holds more memory by its libraries.
        timeout_s = 4.0 if request.param == "fork" else 25.0
        jobs = []
        for number, name in enumerate(NAMES):
            jobs.append(Job(trial(name), timeout_s, 400 * MiB))
            jobs.append(Job(trial("good", seed=number), 60.0, 400 * MiB))
        with make(2, WorkerOptions(scratch=folder), preload=["toyplug_code"]) as executor:
            for job, outcome in executor.run(jobs):
                name = job.trial.method.rpartition("/")[2]
                if name == "good":
                    found.healthy.append(outcome)
                else:
                    found.outcomes[name] = outcome
            found.left = [pid for pid in marked_processes(MARK, mark) if not is_server(pid)]
        found.left += marked_processes(MARK, mark)
        assert not [p for p in folder.iterdir() if p.name != "site"], "scratch folders are left"
    return found


def is_server(pid: int) -> bool:
    return b"harness.executors.server" in Path(f"/proc/{pid}/cmdline").read_bytes() and os.getpgid(pid) == pid == os.getsid(pid)


@dataclass(frozen=True)
class Expected:
    """How a trial ends. text: what its error holds."""

    status: str
    text: str = ""
    limit: str = ""
    exit_code: int | None = 0
    signal: int | None = None


ENDS = {
    "raises": Expected("failed", "ValueError: boom (toyplug_code.py:"),
    "sleeps": Expected("timeout", "no result after", limit="timeout", exit_code=None, signal=9),
    "ignores_signals": Expected("timeout", "no result after", limit="timeout", exit_code=None, signal=9),
    "exits_7": Expected("failed", "ended without a result (exit code 7)", exit_code=7),
    "exits_0": Expected("failed", "ended without a result (exit code 0)"),
    "sys_exits": Expected("failed", "SystemExit"),
    "kills_itself": Expected("failed", "killed by SIGKILL", exit_code=None, signal=9),
    "segfaults": Expected("failed", "segfault", exit_code=None, signal=11),
    "aborts": Expected("failed", "killed by SIGABRT", exit_code=None, signal=6),
    "asks_for_too_much": Expected("oom", "", limit="rlimit_data"),
    "asks_numpy_for_too_much": Expected("oom", "", limit="rlimit_data"),
    "fills_memory_in_children": Expected("oom", "and its children held more", limit="polled_rss", exit_code=None, signal=9),
    "leaves_a_grandchild": Expected("ok"),
    "prints_100_MB": Expected("ok"),
    "closes_its_streams": Expected("ok"),
    "forks_and_falls_through": Expected("ok"),
    "forks_and_offers": Expected("ok"),
    "changes_everything": Expected("ok"),
    "returns_nan": Expected("diverged", "accuracy on test"),
    "returns_no_solution": Expected("failed", "solve gave 'int' as its solution, which is no Guesser: it lacks guess"),
    "returns_what_cannot_be_pickled": Expected("ok"),
    "writes_to_every_descriptor": Expected("failed", "", exit_code=None, signal=9),
    "swallows_the_end": Expected("ok"),
}


# A fresh interpreter has no channel to the server, so there is none to break: it sleeps on until its time is over.
ENDS_OF_EXEC = {"writes_to_every_descriptor": ENDS["sleeps"]}


@pytest.mark.parametrize("name", NAMES)
def test_each_fault_ends_as_its_own_status_and_says_why(seen, name):
    """The record tells a hang from a crash from a leak, so that the plugin's author knows where to look."""
    outcome, expected = seen.outcomes[name], (ENDS_OF_EXEC if seen.isolation == "exec" else {}).get(name, ENDS[name])

    assert (outcome.status, outcome.limit) == (expected.status, expected.limit), outcome
    assert expected.text in outcome.error
    assert (outcome.exit_code, outcome.signal) == (expected.exit_code, expected.signal)
    assert outcome.started_at
    assert outcome.resources.wall_s > 0
    assert outcome.resources.cpu_s is not None


def test_every_other_trial_finishes_with_the_same_bits(seen):
    """A healthy trial beside faulty ones gives what it gives alone: measured here by 23 of them, each after a fault."""
    assert len(seen.healthy) == len(NAMES)
    assert {o.status for o in seen.healthy} == {"ok"}
    assert all(m.value == 1.0 for o in seen.healthy for m in o.measurements if m.quantity == "accuracy")


def test_no_process_is_left(seen):
    """Grandchildren with a session of their own survive killpg; none may survive its trial."""
    assert seen.left == []


def test_a_hung_worker_says_where_it_hangs(seen):
    """The traceback that faulthandler writes before the kill is what makes a timeout mendable."""
    assert "in sleeps" in seen.outcomes["sleeps"].log


def test_a_segfault_leaves_its_stack_in_the_log(seen):
    """A native crash has no Python exception: the stack is all there is."""
    assert "in segfaults" in seen.outcomes["segfaults"].log


def test_the_traceback_of_an_exception_is_in_the_log(seen):
    """The error is one line; the log has all of it."""
    assert "Traceback" in seen.outcomes["raises"].log
    assert "in raises" in seen.outcomes["raises"].log


def test_words_before_an_exit_are_kept(seen):
    """os._exit flushes nothing: lines must leave the process as they are printed."""
    assert "last words" in seen.outcomes["exits_0"].log


def test_of_a_flood_the_beginning_and_the_end_are_kept_and_the_rest_is_counted(seen):
    """100 MB of output must neither fill the registry nor hide the last error."""
    outcome = seen.outcomes["prints_100_MB"]

    assert outcome.log.startswith("the beginning")
    assert outcome.log.rstrip().endswith("the end")
    assert len(outcome.log) <= 300_000
    assert outcome.log_dropped_bytes > 99_000_000


def test_an_overrun_is_short(seen):
    """The limit is a limit: the kill follows within 2 s, also where signals are ignored."""
    for name in ("sleeps", "ignores_signals"):
        limit = float(seen.outcomes[name].error.removeprefix("no result after ").removesuffix(" s"))
        assert seen.outcomes[name].resources.wall_s < limit + 2.0


def test_a_fork_of_the_method_sends_no_second_result(seen):
    """The fork would be scored as -100, which guesses half: only the trial's own process counts."""
    for name in ("forks_and_falls_through", "forks_and_offers"):
        accuracy = {m.part: m.value for m in seen.outcomes[name].measurements if m.quantity == "accuracy"}
        assert accuracy == {"validation": 1.0, "test": 1.0}


def test_an_offer_before_a_hang_is_no_result(seen):
    """A trial that times out counts as its metrics' worst, whatever it had offered."""
    assert seen.outcomes["sleeps"].measurements == ()


def test_a_budget_that_is_swallowed_still_ends_what_it_can_buy(seen):
    """`except Exception` does not catch the end of the budget: the last offer is the result, after two spends of seven."""
    assert seen.outcomes["swallows_the_end"].spent["steps"] == 14.0
