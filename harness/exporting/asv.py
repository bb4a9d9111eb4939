"""The registry as result files of asv, so that `asv publish`, `asv show` and `asv compare` work without running anything.

Per (machine, commit, python, torch) one file of results; beside them what the benchmarks are and what the machines are.
asv reads lower as better, holds one point a commit and environment, drops in silence a file that it cannot read, and eats all
memory on one infinity: so numbers are turned and summed up (`harness.exporting.points`), and what asv reads back is counted.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.exporting.points import COLUMNS, Benchmark, Point, Where, make_benchmarks, product_of
from harness.identity import digest

if TYPE_CHECKING:
    import pyarrow as pa

    from harness.registry import Registry

RESULT_API, BENCHMARKS_API, MACHINE_API = 2, 2, 1
COLUMN_NAMES = (
    "result", "params", "version", "started_at", "duration", "stats_ci_99_a", "stats_ci_99_b", "stats_q_25", "stats_q_75",
    "stats_number", "stats_repeat", "samples",
)  # fmt: skip
DIGITS = 5
OURS = re.compile(r"[0-9a-f]{8,40}-harness-[\w.+-]+\.json")
PREFIX = "registry."  # of the names of benchmarks; asv's own start with a module of its benchmark_dir
ROWS_AT_ONCE = 500
GIT_TIMEOUT_S = 60.0
MENDS = {
    "dirty tree": "a commit does not say what ran; commit, then run again",
    "no commit recorded": "run from inside a git checkout",
    "unknown commit": "the repository has no such branch or tag: `git fetch --all --tags` (a shallow clone: `--unshallow`)",
    "annotated as invalid": "",
    "interrupted": "",
    "unsupported": "",
    "other machine": "",
}


@dataclass(frozen=True)
class Exported:
    """What was written. points: finite numbers; failed: null ones.

    drawn: points at commits of the branches that asv publishes; the others are there for `asv show` and `asv compare`.
    loaded: points that asv itself read back; None where asv is not installed.   skipped: reason -> attempts left out.
    """

    out: Path
    files: tuple[Path, ...]
    benchmarks: int
    points: int
    drawn: int
    failed: int
    loaded: int | None
    skipped: Mapping[str, int]

    def lines(self) -> list[str]:
        """For people."""
        told = [
            f"{self.out}: {len(self.files)} result files, {self.benchmarks} benchmarks, {self.points} points, "
            f"{self.failed} failed ones (null)",
            "asv is not installed, so nobody read them back; pip install asv"
            if self.loaded is None
            else f"asv reads {self.loaded} points back",
        ]
        if self.drawn < self.points:
            told.append(f"{self.points - self.drawn} points are at commits beside the published branches: in no graph")
        for reason, count in sorted(self.skipped.items()):
            mend = f"; {MENDS[reason]}" if MENDS.get(reason) else ""
            told.append(f"left out: {count} attempts, {reason}{mend}")
        return told


def export_asv(
    registry: Registry, out: Path, repository: Path, machine: str | None = None, branches: Sequence[str] | None = None
) -> Exported:
    """Write the registry into `out`, a results_dir of asv. What an earlier export left there is replaced; asv's own stays.

    repository: the git checkout whose commits the attempts name.   machine: only its attempts.   branches: those that asv
    publishes; None: those of the repository's asv.conf.json, or HEAD.
    Raises HarnessError: no git repository, or asv does not read back what was written.
    """
    commits = known_commits(repository)
    shown = commits_of(repository, branches or configured_branches(repository))
    table, skipped = usable(registry, commits, machine)
    shared = registry.facts()
    pythons = {f["name"]: python_of(f["facts"]) for f in shared if f["kind"] == "environment"}
    machines = {f["name"]: f["facts"] for f in shared if f["kind"] == "machine"}
    benchmarks = make_benchmarks(rows_of(table), pythons)
    contents = result_files(benchmarks, commits)
    for name, content in contents.items():
        facts = machines.get(content["harness"]["machine"], {})
        write_json(out / name, content)
        write_json((out / name).with_name("machine.json"), machine_file(content["params"]["machine"], facts))
    write_json(out / "benchmarks.json", benchmarks_file(benchmarks, out / "benchmarks.json"))
    remove_stale(out, set(contents))
    values = [(where.commit, p.value) for b in benchmarks for where, cells in b.points.items() for p in cells.values()]
    points = sum(value is not None for _, value in values)
    made = Exported(
        out=out,
        files=tuple(out / name for name in sorted(contents)),
        benchmarks=len(benchmarks),
        points=points,
        drawn=sum(value is not None and commit in shown for commit, value in values),
        failed=len(values) - points,
        loaded=count_loaded(out),
        skipped=skipped,
    )
    if made.loaded is not None and made.loaded != points:
        raise HarnessError(f"{out}: {points} points were written and asv reads {made.loaded}; give an empty folder with -o")
    return made


# What is exported ------------------------------------------------------------------------------------------------------


def usable(registry: Registry, commits: Mapping[str, int], machine: str | None) -> tuple[pa.Table, dict[str, int]]:
    """The attempts that asv can hold, and how many were left out for which reason."""
    looked_at = ("attempt_id", "machine", "status", "git_commit", "git_dirty")
    invalid = {row["attempt_id"] for row in registry.annotations().to_pylist() if row["annotation"] == "invalid"}
    table = registry.table(COLUMNS)
    table = table.filter(
        [kind != "tuning" for kind in table["kind"].to_pylist()]
    )  # a trial of it is no result, and has no history
    reasons = [why_not(row, commits, machine, invalid) for row in table.select(looked_at).to_pylist()]
    skipped = Counter(reason for reason in reasons if reason)
    return table.filter([not reason for reason in reasons]), dict(skipped)


def why_not(row: Mapping[str, Any], commits: Mapping[str, int], machine: str | None, invalid: set[str]) -> str:
    """The first reason against an attempt, a key of MENDS; "" for none."""
    if machine is not None and row["machine"] != machine:
        return "other machine"
    if row["attempt_id"] in invalid:
        return "annotated as invalid"
    if row["status"] in ("interrupted", "unsupported"):
        return str(row["status"])
    if not row["git_commit"]:
        return "no commit recorded"
    if row["git_dirty"] is not False:
        return "dirty tree"
    return "" if row["git_commit"] in commits else "unknown commit"


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Row by row, few of them as Python objects at a time."""
    for batch in table.to_batches(max_chunksize=ROWS_AT_ONCE):
        yield from batch.to_pylist()


def python_of(facts: Mapping[str, Any]) -> str:
    """ "3.11" of "3.11.7": what asv calls a version of Python."""
    return ".".join(str(facts.get("python", "")).split(".")[:2])


# The repository --------------------------------------------------------------------------------------------------------


def known_commits(repository: Path) -> dict[str, int]:
    """Commit -> author's time (seconds since 1970), of all that a branch, a tag or HEAD leads to; no others exist for asv."""
    lines = git(repository, "log", "--all", "HEAD", "--format=%H %at").splitlines()
    return {commit: int(at) for commit, _, at in (line.partition(" ") for line in lines)}


def commits_of(repository: Path, branches: Sequence[str]) -> set[str]:
    """What asv draws: first parents only."""
    return set(git(repository, "rev-list", "--first-parent", *branches, "--").splitlines())


def configured_branches(repository: Path) -> list[str]:
    """Of the repository's asv.conf.json. asv allows comments in it; where there are any, or it is absent: HEAD."""
    try:
        branches = json.loads((repository / "asv.conf.json").read_text()).get("branches")
    except (OSError, ValueError, AttributeError):
        return ["HEAD"]
    return [str(branch) for branch in branches] if isinstance(branches, list) and branches else ["HEAD"]


def git(repository: Path, *arguments: str) -> str:
    """What git prints. Raises HarnessError."""
    try:
        ran = subprocess.run(
            ["git", "-C", str(repository), *arguments], capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True
        )
    except subprocess.CalledProcessError as exc:
        why = (exc.stderr.strip().splitlines() or [f"exit code {exc.returncode}"])[0]
        raise HarnessError(f"repository {repository}: git says {why!r}; name the checkout whose commits were measured") from exc
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise HarnessError(f"repository {repository}: git cannot be asked ({exc}); asv needs git too") from exc
    return ran.stdout


# The files -------------------------------------------------------------------------------------------------------------


def result_files(benchmarks: Sequence[Benchmark], commits: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Path below `out` -> content."""
    by_where: dict[Where, list[Benchmark]] = defaultdict(list)
    for benchmark in benchmarks:
        for where in benchmark.points:
            by_where[where].append(benchmark)
    folders = file_names({where.machine for where in by_where})
    short = Counter(commit[:8] for commit in {where.commit for where in by_where})
    files = {}
    for where, measured in by_where.items():
        env = f"harness-py{where.python}-torch{where.torch}"
        env = env if OURS.fullmatch(f"00000000-{env}.json") and len(env) < 64 else f"harness-{digest(env)[:12]}"
        stem = where.commit[:8] if short[where.commit[:8]] == 1 else where.commit
        files[f"{folders[where.machine]}/{stem}-{env}.json"] = {
            "version": RESULT_API,
            "commit_hash": where.commit,
            "env_name": env,
            "date": commits[where.commit] * 1000,
            "params": {"machine": folders[where.machine], "python": where.python, "torch": where.torch},
            "python": where.python,
            "requirements": {"torch": where.torch},
            "env_vars": {},
            "result_columns": list(COLUMN_NAMES),
            "results": {benchmark.name: result_row(benchmark, where) for benchmark in measured},
            "durations": {},
            "harness": {"machine": where.machine},
        }
    return files


def result_row(benchmark: Benchmark, where: Where) -> list[Any]:
    """The values of COLUMN_NAMES. null: failed. NaN: never measured there, or unsupported."""
    at = benchmark.points[where]
    cells = [at.get(cell) for cell in product_of(benchmark)]
    done = [cell for cell in cells if cell is not None]
    return [
        [math.nan if cell is None else rounded(cell.value) for cell in cells],
        params_of(benchmark),
        benchmark.version,
        round(max(cell.started_s for cell in done) * 1000),
        rounded(sum(cell.wall_s for cell in done)),
        [rounded(low) for low, _ in pairs(cells, "interval")],
        [rounded(high) for _, high in pairs(cells, "interval")],
        [rounded(low) for low, _ in pairs(cells, "quartiles")],
        [rounded(high) for _, high in pairs(cells, "quartiles")],
        [cell.calls if cell is not None and cell.value is not None else None for cell in cells],
        [cell.taken if cell is not None and cell.value is not None else None for cell in cells],
        [[rounded(s) for s in cell.samples] if cell is not None and cell.value is not None else None for cell in cells],
    ]


def pairs(cells: Sequence[Point | None], name: str) -> list[tuple[float | None, float | None]]:
    return [(getattr(cell, name) if cell is not None else None) or (None, None) for cell in cells]


def params_of(benchmark: Benchmark) -> list[list[str]]:
    return [[repr(value) for value in axis] for axis in benchmark.params]


def rounded(value: float | None) -> float | None:
    """To 5 digits, as asv does; no infinity ever."""
    return float(f"{value:.{DIGITS}g}") if value is not None and math.isfinite(value) else None


def benchmarks_file(benchmarks: Sequence[Benchmark], path: Path) -> dict[str, Any]:
    """Ours, and those that `asv run` put there."""
    try:
        old = json.loads(path.read_text())
    except (OSError, ValueError):
        old = {}
    found = old.items() if isinstance(old, dict) else ()
    others = {name: of for name, of in found if not name.startswith(PREFIX) and isinstance(of, dict) and "params" in of}
    made = {
        b.name: {
            "name": b.name,
            "pretty_name": b.pretty_name,
            "type": "track",
            "unit": b.unit,
            "params": params_of(b),
            "param_names": list(b.param_names),
            "version": b.version,
            "code": "",
        }
        for b in benchmarks
    }
    return {**others, **made, "version": BENCHMARKS_API}


def machine_file(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    cores, memory = facts.get("cores", ""), facts.get("memory_gib", "")
    return {
        "version": MACHINE_API, "machine": name, "os": "", "arch": str(facts.get("arch", "")), "cpu": str(facts.get("cpu", "")),
        "num_cpu": str(cores), "ram": f"{memory} GiB" if memory else "", "gpu": str(facts.get("gpu", "")),
    }  # fmt: skip


def file_names(machines: set[str]) -> dict[str, str]:
    """Machine -> folder; a name that could be read as a path, or that two machines would share, gets a digest."""
    plain = {name: re.sub(r"[^A-Za-z0-9_.-]+", "_", name).lstrip(".")[:64] for name in machines}
    taken = Counter(plain.values())
    return {n: p if p == n and taken[p] == 1 else f"{p or 'machine'}_{digest(n)[:8]}" for n, p in plain.items()}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Whole or not at all: readers meet the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fresh.write_text(json.dumps(content, separators=(",", ":")))
    fresh.replace(path)


def remove_stale(out: Path, written: set[str]) -> None:
    """Result files of an earlier export that this one did not write: annotated since, or of another machine."""
    for path in out.glob("*/*.json"):
        if OURS.fullmatch(path.name) and path.relative_to(out).as_posix() not in written:
            path.unlink()


def count_loaded(out: Path) -> int | None:
    """How many finite points of ours asv itself reads from the folder; None where asv is not installed."""
    if importlib.util.find_spec("asv") is None:
        return None
    results, config = importlib.import_module("asv.results"), importlib.import_module("asv.config")
    of_asv = importlib.import_module("asv.benchmarks")
    conf = config.Config()
    conf.results_dir = str(out)
    benchmarks = of_asv.Benchmarks.load(conf)
    found = 0
    for result in results.iter_results(str(out)):
        for name in result.get_result_keys(benchmarks):
            if name.startswith(PREFIX):
                values = result.get_result_value(name, benchmarks[name]["params"])
                found += sum(isinstance(value, int | float) and math.isfinite(value) for value in values)
    return found
