"""What one more trial costs: `harness run` with few and with many trials, through the command line, and the difference.

Isolated and recorded, as every trial is. The empty trial is a learner that returns at once, from a plugin in a temporary
folder; beside it benchopt's empty run, which has no process of its own. A reading is (many - few) / (difference in number) of
one round; where the machine is busy, CPU time says more than the wall clock.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.registry import Registry
from tests.benchmarks.figures import Figure, Readings, interleave
from tests.benchmarks.peers import run_benchopt
from tests.benchmarks.usage import Usage, clean_environment, run_measured
from tests.helpers import PluginSite

EMPTY_CPU_GOAL_MS = 20.0
EMPTY_WALL_GOAL_MS = 40.0
DIGITS_CPU_GOAL_MS = 80.0
SMOKE_WALL_GOAL_S = 20.0

EMPTY_DECLARED = '''
    """A track, a task and a learner in which nothing happens; imports no torch."""
    import harness

    TRACK = harness.Track("nothing", "1", problem="NAME_code:Problem", solution="NAME_code:Answer", clocks=("steps",))
    TASK = harness.Task("trivial", "nothing", (harness.Metric("error", "1", "lower", worst=1.0),), load="NAME_code:load",
                        score="NAME_code:score", shape=lambda params: {"inputs": 1, "outputs": 1, "train_items": 1})

    @harness.hookimpl
    def harness_tracks():
        return [TRACK]

    @harness.hookimpl
    def harness_tasks():
        return [TASK]

    @harness.hookimpl
    def harness_methods():
        return [harness.Learner("at-once", "nothing", solve="NAME_code:solve")]
'''
EMPTY_CODE = '''
    """A problem with a number, which is also the answer."""
    import dataclasses, typing
    from harness import Instance

    @dataclasses.dataclass(frozen=True)
    class Problem:
        number: float

    @typing.runtime_checkable
    class Answer(typing.Protocol):
        number: float

    def load(params, ctx):
        return Instance(Problem(1.0), {"test": 1.0})

    def score(held, solution, params, ctx):
        return {"error": abs(solution.number - held)}

    def solve(problem, ctx, params):
        return problem
'''
EMPTY_SUITE = """\
schema: harness/suite/1
name: empty
tasks: [trivial]
methods: [at-once]
seeds: {seeds}
"""
DIGITS_SUITE = """\
schema: harness/suite/1
name: digits3
tasks: [digits]
methods: [relu]
net: {{arch: mlp, width: 128, depth: 2}}
train: {{optimizer: adamw}}
budget: {{steps: 3}}
seeds: {seeds}
"""


@dataclass(frozen=True)
class Subject:
    """Something that runs a number of trials in one command. run: number -> what the command cost."""

    run: Callable[[int], Usage]
    few: int
    many: int


def measure_trials(folder: Path, rounds: int, few: int, many: int, benchopt: Path | None, reason: str) -> list[Figure]:
    """benchopt: its command, or None for the given reason."""
    site = folder / "site"
    site.mkdir()
    PluginSite(site).write("emptyplug", EMPTY_DECLARED, EMPTY_CODE)
    subjects = {
        "empty": Subject(partial(run_suite, folder / "empty", EMPTY_SUITE, site), few, many),
        # A trial that trains costs several empty ones: fewer tell as much.
        "digits": Subject(partial(run_suite, folder / "digits", DIGITS_SUITE, site), few, half_way(few, many)),
    }
    if benchopt is not None:
        subjects["benchopt"] = Subject(partial(run_benchopt, benchopt, folder / "benchopt"), few, many)
    calls = {(name, n): partial(s.run, n) for name, s in subjects.items() for n in (s.few, s.many)}
    for name, subject in subjects.items():
        calls[name, subject.few]()  # unread: bytecode, page cache
    usages = interleave({f"{name} {n}": call for (name, n), call in calls.items()}, rounds)
    found = {name: marginal(s, usages[f"{name} {s.few}"], usages[f"{name} {s.many}"]) for name, s in subjects.items()}
    missing = () if benchopt is not None else (reason,)

    def figure(what: str, name: str, clock: str, goal: float | None, peers: bool = False) -> Figure:
        peer = "benchopt, before and after" if clock == "fixed" else "benchopt, one empty run"
        others = (Readings(peer, *found["benchopt"][clock]),) if peers and "benchopt" in found else ()
        return Figure(what, Readings(name, *found[name][clock]), goal, peers=others, missing=missing if peers else ())

    return [
        figure("CPU of one empty trial, isolated and recorded", "empty", "cpu", EMPTY_CPU_GOAL_MS, peers=True),
        figure("Wall time of one empty trial, one at a time", "empty", "wall", EMPTY_WALL_GOAL_MS, peers=True),
        figure("CPU of one trial of digits with 3 AdamW steps", "digits", "cpu", DIGITS_CPU_GOAL_MS),
        figure("Wall time of one trial of digits with 3 AdamW steps", "digits", "wall", None),
        figure("CPU of `harness run` before and after all trials", "empty", "fixed", None, peers=True),
    ]


def half_way(few: int, many: int) -> int:
    return (few + many) // 2


def measure_smoke(folder: Path, rounds: int) -> list[Figure]:
    """The shipped suite with one small trial of each kind of method, as a newcomer runs it: default number of workers."""
    harness = Path(sys.executable).parent / "harness"
    usages = []
    for number in range(rounds + 1):
        command = [harness, "run", "smoke", "--registry", folder / f"smoke-{number}"]
        usages.append(run_measured(command, folder, clean_environment(HARNESS_CACHE_DIR=str(folder / "cache"))))
    read = usages[1:]
    return [
        Figure("CPU of `harness run smoke`", Readings("smoke", "s", tuple(u.cpu_s for u in read))),
        Figure("Wall time of `harness run smoke`", Readings("smoke", "s", tuple(u.wall_s for u in read)), SMOKE_WALL_GOAL_S),
    ]


def marginal(subject: Subject, few: list[Usage], many: list[Usage]) -> dict[str, tuple[str, tuple[float, ...]]]:
    """Unit and readings by clock; "fixed" is what is left of the CPU time of a command without its trials."""
    extra = subject.many - subject.few
    cpu_s = [(b.cpu_s - a.cpu_s) / extra for a, b in zip(few, many, strict=True)]
    wall_s = [(b.wall_s - a.wall_s) / extra for a, b in zip(few, many, strict=True)]
    return {
        "cpu": ("ms", tuple(1e3 * s for s in cpu_s)),
        "wall": ("ms", tuple(1e3 * s for s in wall_s)),
        "fixed": ("s", tuple(a.cpu_s - subject.few * s for a, s in zip(few, cpu_s, strict=True))),
    }


def run_suite(folder: Path, suite: str, site: Path, trials: int) -> Usage:
    """`harness run` of so many seeds, one at a time, into a fresh registry. Raises RuntimeError unless all were recorded ok."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "suite.yaml").write_text(suite.format(seeds=trials))
    environment = clean_environment(PYTHONPATH=str(site), HARNESS_CACHE_DIR=str(folder / "cache"))
    harness = Path(sys.executable).parent / "harness"
    usage = run_measured([harness, "run", "suite.yaml", "-j", "1", "--registry", "records"], folder, environment)
    recorded = Registry.open(folder / "records", create=False).table({"attempt_id", "status"})["status"].to_pylist()
    if recorded != ["ok"] * trials:
        raise RuntimeError(f"{recorded.count('ok')} of {trials} trials were recorded as ok")
    return usage
