"""In: each benchmark of a session as one attempt of kind "timing", with its raw samples.

Where a file has statistics only, they become measurements. Ids come from the content, so a file taken in twice is in once.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.errors import NothingSelected
from harness.exporting.pytest_benchmark.session import Benchmark, Session, is_seconds
from harness.identity import canonical, digest, pair_key, series_key, trial_id
from harness.records import Attempt, Measurement, Outcome, Provenance, Timing, Trial
from harness.registry import Registry

SUITE = "pytest-benchmark"
TRACK = "paper-harness/pytest-benchmark"
REGION = "call"
QUANTITIES = {
    "median": "time",
    "mean": "time_mean",
    "min": "time_min",
    "max": "time_max",
    "stddev": "time_sd",
    "iqr": "time_iqr",
}
COMMIT = re.compile(r"[0-9a-f]{7,64}")
CPU_CLOCKS = re.compile(r"process_time|thread_time")


def attempts_of(session: Session, machine: str | None = None) -> list[Attempt]:
    """One attempt for each benchmark, in order. machine: what its machine is called here; None: a digest of what it says.

    What the file does not say is not made up: no data set, no torch, no threads (0), no dtype (""). The device is the CPU,
    whose clock it is.
    """
    where = provenance_of(session, machine)
    seen: Counter[str] = Counter()
    made = []
    for benchmark in session.benchmarks:
        trial = trial_of(benchmark, where.git_commit, 0)
        number = seen[trial.series_key]
        seen[trial.series_key] += 1
        trial = trial_of(benchmark, where.git_commit, number) if number else trial
        outcome = outcome_of(benchmark, session)
        made.append(Attempt(attempt_id_of(session, where, trial, outcome), trial, outcome, where))
    return made


def provenance_of(session: Session, machine: str | None) -> Provenance:
    """Of the session, not of the process that takes it in."""
    said, commit = session.machine_info, session.commit_info
    cpu = said.get("cpu")
    cpu = cpu if isinstance(cpu, dict) else {}
    machine_facts = {
        "source": SUITE, "node": said.get("node", ""), "cpu": cpu.get("brand_raw") or cpu.get("brand") or said.get("processor"),
        "cores": cpu.get("count"), "memory_gib": said.get("memory_gib"), "gpu": said.get("gpu", ""),
        "arch": said.get("machine", ""),
    }  # fmt: skip
    environment_facts = {
        "python": said.get("python_version", ""), "implementation": said.get("python_implementation", ""),
        "os": f"{said.get('system', '')}-{said.get('release', '')}", "packages": {SUITE: session.version},
    }  # fmt: skip
    commit_id = str(commit.get("id", "")).lower()
    dirty = commit.get("dirty")
    found = Provenance(
        invocation="", suite=SUITE, machine=machine or digest(machine_facts)[:16], environment=digest(environment_facts),
        host=str(said.get("node", "")), boot_id="", git_commit=commit_id if COMMIT.fullmatch(commit_id) else "",
        git_dirty=dirty if isinstance(dirty, bool) else None, machine_facts={} if machine else machine_facts,
        environment_facts=environment_facts, data_facts={},
    )  # fmt: skip
    whole = [found.machine, session.began_at.isoformat(), dict(said), dict(commit), [b.fullname for b in session.benchmarks]]
    return replace(found, invocation=digest(whole))


def trial_of(benchmark: Benchmark, commit: str, number: int) -> Trial:
    """The method is the test function, the task its group (its file where it is in none). number: of equal benchmarks.

    Its code is known by the commit only.
    """
    function = benchmark.fullname.removesuffix(f"[{benchmark.param}]")
    file = benchmark.fullname.partition("::")[0]
    fields: dict[str, Any] = {
        "kind": "timing", "track": TRACK, "method": f"{SUITE}/{function}", "method_params": dict(benchmark.params),
        "role": "method", "paper": "", "task": f"{SUITE}/{benchmark.group or file}", "task_params": {}, "net": None,
        "train": None, "budget": {}, "tuning": None, "device": "cpu", "dtype": "", "threads": 0, "seed": number, "root_seed": 0,
        "measure": (REGION,), "matched": None, "code_digest": commit, "data_digest": "", "torch_version": "",
    }  # fmt: skip
    return Trial(**fields, series_key=series_key(fields), trial_id=trial_id(fields), pair_key=pair_key(fields))


def outcome_of(benchmark: Benchmark, session: Session) -> Outcome:
    """Samples as a timing; statistics as measurements only where there are no samples: a mean cannot be taken apart again."""
    calls = Measurement("calls_per_sample", REGION, "1", "neither", float(benchmark.iterations))
    told = () if benchmark.data else tuple(statistics_measured(benchmark.statistics))
    return Outcome(
        "ok",
        measurements=(*told, calls),
        timings=(timing_of(benchmark),) if benchmark.data else (),
        diagnostics=diagnostics_of(benchmark, session),
        started_at=session.began_at.isoformat(timespec="microseconds"),
        environment={"source": SUITE, "version": session.version},
    )


def statistics_measured(statistics: Mapping[str, float]) -> Iterable[Measurement]:
    for name, quantity in QUANTITIES.items():
        if name in statistics:
            yield Measurement(quantity, REGION, "s", "lower", float(statistics[name]))


def timing_of(benchmark: Benchmark) -> Timing:
    """The clock decides the column. A file of ours holds process time beside the wall's, and how it warmed up."""
    extra = benchmark.extra if "harness_attempt" in benchmark.extra else {}
    beside, warmup = extra.get("cpu_s"), extra.get("warmup_calls")
    wall, cpu = benchmark.data, tuple[float, ...]()
    if CPU_CLOCKS.search(benchmark.timer):
        wall, cpu = (), benchmark.data
    elif isinstance(beside, list) and len(beside) == len(wall) and all(map(is_seconds, beside)):
        cpu = tuple(map(float, beside))
    calls = warmup if isinstance(warmup, int) and 0 <= warmup < 1 << 53 else 0
    return Timing(REGION, wall, cpu, calls, str(extra.get("stop_reason", "pytest-benchmark")))


def diagnostics_of(benchmark: Benchmark, session: Session) -> dict[str, float | str]:
    """What else the file says, by name; never ranked."""
    made: dict[str, float | str] = {"name": benchmark.name, "timer": benchmark.timer, "rounds": float(benchmark.rounds)}
    made |= {name: str(session.commit_info[name]) for name in ("branch", "project", "time") if session.commit_info.get(name)}
    for name, value in benchmark.extra.items():
        if name == "cpu_s" and "harness_attempt" in benchmark.extra:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
        made[f"extra_info.{name}"] = float(value) if number else value if isinstance(value, str) else canonical(value)
    return made


def attempt_id_of(session: Session, where: Provenance, trial: Trial, outcome: Outcome) -> str:
    """32 hex digits like those of a run: the session's time first, so that they sort, then a digest of all that is recorded."""
    milliseconds = max(0, int(session.began_at.timestamp() * 1000))
    said = canonical([where.invocation, where.git_commit, trial.trial_id, outcome.to_json()])
    return f"{milliseconds:012x}{hashlib.sha256(said.encode()).hexdigest()[:20]}"


@dataclass(frozen=True)
class Imported:
    """new: benchmarks that are recorded now. known: those that were here. own: exports of attempts that are here themselves."""

    new: int
    known: int
    own: int
    machine: str
    commit: str

    def lines(self) -> list[str]:
        line = f"{self.new} benchmarks recorded as attempts of machine {self.machine}"
        line += f" at commit {self.commit[:12]}" if self.commit else "; the file names no commit"
        lines = [line + (f"; {self.known} were here already" if self.known else "")]
        if self.own:
            lines.append(f"{self.own} are exports of attempts that are here themselves, and were left out")
        return lines


def import_session(registry: Registry, session: Session, machine: str | None = None) -> Imported:
    """Record what is not here yet. Stopped in the middle, the same call finishes. Raises RegistryError, NothingSelected."""
    attempts = attempts_of(session, machine)
    if not attempts:
        raise NothingSelected("the file holds no benchmarks")
    here = set(registry.table({"attempt_id"})["attempt_id"].to_pylist())
    foreign = [a for a, b in zip(attempts, session.benchmarks, strict=True) if origin_of(b) not in here]
    new = [attempt for attempt in foreign if attempt.attempt_id not in here]
    for attempt in new:
        registry.append(attempt)
    where = attempts[0].provenance
    if new:
        registry.fold(where.invocation)
    return Imported(len(new), len(foreign) - len(new), len(attempts) - len(foreign), where.machine, where.git_commit)


def origin_of(benchmark: Benchmark) -> str:
    """The attempt that a benchmark was exported from, "" for one of pytest's."""
    return str(benchmark.extra.get("harness_attempt", ""))
