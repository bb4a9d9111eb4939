"""Out: the latest timing and kernel attempts of one commit as pytest-benchmark's JSON, which its `compare` reads.

One benchmark for each region of each attempt, grouped so that methods (or a kernel's implementations) stand side by side. The
samples are the wall's; process time stands beside them in `extra_info`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from harness.errors import NothingSelected
from harness.exporting.pytest_benchmark.session import is_seconds
from harness.records import case_text
from harness.registry import Registry
from harness.showing import finite, one_line
from harness.strangers import read_json

FORMAT_VERSION = "5.3.1"  # of pytest-benchmark, whose files these are like


@dataclass(frozen=True)
class Exported:
    """content: the file as JSON. left_out: attempts that are not in it, by reason."""

    content: Mapping[str, Any]
    machine: str
    commit: str
    left_out: Mapping[str, int]

    @property
    def benchmarks(self) -> int:
        return len(self.content["benchmarks"])


COMMITS = """
    SELECT git_commit, count(*) AS n, max(coalesce(started_at, '-infinity')) AS last FROM attempts
    WHERE machine = $machine AND kind IN ('timing', 'kernel') AND status = 'ok' AND annotation IS DISTINCT FROM 'invalid'
    GROUP BY git_commit ORDER BY last DESC, git_commit
"""
ATTEMPTS = """
    SELECT attempt_id, trial_id, series_key, suite, environment, host, git_commit, git_dirty, kind, method,
           method_params, role, task, task_params, net, device, dtype, threads, seed, torch_version, started_at, timings,
           measurements
    FROM attempts
    WHERE machine = $machine AND kind IN ('timing', 'kernel') AND status = 'ok' AND annotation IS DISTINCT FROM 'invalid'
          AND coalesce(git_commit, '') = $commit
    QUALIFY row_number() OVER (PARTITION BY series_key ORDER BY started_at DESC NULLS LAST, attempt_id DESC) = 1
    ORDER BY task, method, task_params, method_params, seed, attempt_id
"""


def export_session(registry: Registry, machine: str, commit: str | None = None) -> Exported:
    """The latest attempts of one commit (the beginning of its id; None: of the newest attempt) on one machine.

    Raises NothingSelected where there is none: a file holds one machine and one commit.
    """
    found = registry.query(COMMITS, {"machine": machine}).to_pylist()
    chosen = choose_commit([(row["git_commit"] or "", row["n"]) for row in found], machine, commit)
    rows = registry.query(ATTEMPTS, {"machine": machine, "commit": chosen}).to_pylist()
    benchmarks = [b for row in rows for b in benchmarks_of(row)]
    if not benchmarks:
        raise NothingSelected(f"the {len(rows)} attempts of commit {chosen or '(none)'} hold no samples of time")
    of_commit = sum(row["n"] for row in found if (row["git_commit"] or "") == chosen)
    left_out = {
        "of other commits (--commit chooses one)": sum(row["n"] for row in found) - of_commit,
        "earlier of the same trial": of_commit - len(rows),
        "without samples": sum(not benchmarks_of(row) for row in rows),
    }
    facts = {(f["kind"], f["name"]): f["facts"] for f in registry.facts()}
    newest = max(rows, key=lambda row: (row["started_at"] is not None, row["started_at"], row["attempt_id"]))
    content = {
        "machine_info": machine_info(machine, newest, facts),
        "commit_info": {
            "id": chosen or "unversioned", "time": None, "author_time": None, "dirty": any(row["git_dirty"] for row in rows),
            "project": "harness", "branch": "(unknown)",
        },
        "benchmarks": benchmarks,
        "datetime": newest["started_at"].isoformat() if newest["started_at"] else datetime.fromtimestamp(0, UTC).isoformat(),
        "version": FORMAT_VERSION,
    }  # fmt: skip
    return Exported(content, machine, chosen, {why: n for why, n in left_out.items() if n})


def choose_commit(known: Sequence[tuple[str, int]], machine: str, wanted: str | None) -> str:
    """known: (commit, attempts), the newest first."""
    if not known:
        raise NothingSelected(
            f"no timing or kernel attempts of machine {one_line(machine)}; run a suite with kernels or `measure.timing`, or "
            "choose another --machine"
        )
    if wanted is None:
        return known[0][0]
    fitting = [commit for commit, _ in known if commit.startswith(wanted)]
    if len(fitting) != 1 or not wanted:
        listed = ", ".join(f"{one_line(commit)[:12] or '(none)'} ({n})" for commit, n in known[:5])
        raise NothingSelected(f"--commit {wanted!r}: {len(fitting)} commits begin so; newest first there are {listed}")
    return fitting[0]


def machine_info(machine: str, row: Mapping[str, Any], facts: Mapping[tuple[str, str], Mapping[str, Any]]) -> dict[str, Any]:
    """pytest-benchmark's keys, as far as the registry knows them; `harness_machine` is the name in records."""
    hardware = facts.get(("machine", machine), {})
    software = facts.get(("environment", row["environment"]), {})
    return {
        "node": row["host"], "processor": hardware.get("cpu", ""), "machine": hardware.get("arch", ""),
        "python_compiler": "", "python_implementation": software.get("implementation", ""),
        "python_implementation_version": software.get("python", ""), "python_version": software.get("python", ""),
        "python_build": ["", ""], "release": software.get("os", ""), "system": "Linux",
        "cpu": {"brand_raw": hardware.get("cpu", ""), "count": hardware.get("cores"),
                "arch_string_raw": hardware.get("arch", "")},
        "memory_gib": hardware.get("memory_gib"), "gpu": hardware.get("gpu", ""), "harness_machine": machine,
    }  # fmt: skip


def benchmarks_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One for each region of an attempt that has samples, all of them seconds; a stranger's record may hold anything."""
    made = []
    for timing in row["timings"]:
        data = timing["wall_s"]
        if data and all(map(is_seconds, data)):
            made.append(benchmark_of(row, timing, data))
    return made


def benchmark_of(row: Mapping[str, Any], timing: Mapping[str, Any], data: Sequence[float]) -> dict[str, Any]:
    params = params_of(row, timing["region"])
    task, method = (str(row[name]).rpartition("/")[2] for name in ("task", "method"))
    words = [task, case_of(row) if row["kind"] == "kernel" else "", *(params[name] for name in ("region", "device", "dtype"))]
    param = "-".join(str(value) for value in params.values())
    name = f"{method}[{param}]"
    calls = [m["value"] for m in row["measurements"]
             if (m["quantity"], m["part"]) == ("calls_per_sample", timing["region"]) and is_count(m["value"])]  # fmt: skip
    return {
        "group": " ".join(str(word) for word in words if word),
        "name": name,
        "fullname": f"{row['task']}::{row['method']}[{param}]",
        "params": params,
        "param": param,
        "extra_info": {
            "harness_attempt": row["attempt_id"], "harness_trial": row["trial_id"], "harness_series": row["series_key"],
            "suite": row["suite"], "role": row["role"], "torch": row["torch_version"], "stop_reason": timing["stop_reason"],
            "warmup_calls": timing["warmup"], "cpu_s": list(finite(timing["cpu_s"])),
        },
        "options": {"disable_gc": False, "timer": "perf_counter", "min_rounds": None, "max_time": None, "min_time": None,
                    "precision": None, "confidence": None, "warmup": bool(timing["warmup"])},
        "stats": {**statistics_of(data), "data": list(data), "iterations": int(calls[0]) if calls else 1},
    }  # fmt: skip


def is_count(value: float | None) -> bool:
    return value is not None and 1 <= value < 1 << 53


def params_of(row: Mapping[str, Any], region: str) -> dict[str, Any]:
    """What tells this benchmark from the others of its method and task, flat."""
    made: dict[str, Any] = {"region": region, "device": row["device"], "dtype": row["dtype"], "threads": row["threads"]}
    for owner, column in (("task", "task_params"), ("method", "method_params"), ("net", "net")):
        known = read_json(row[column] or "null")
        for name, value in (known if isinstance(known, dict) else {}).items():
            made[f"{owner}.{name}"] = value
    return {**made, "process": row["seed"]}


def case_of(row: Mapping[str, Any]) -> str:
    case = read_json(row["task_params"] or "null")
    try:
        return case_text(case) if isinstance(case, dict) else ""
    except (ValueError, TypeError, OverflowError):  # a stranger's record: `elements` that is no number
        return ""


def statistics_of(data: Sequence[float]) -> dict[str, Any]:
    """What pytest-benchmark says of samples: sample deviation, quartiles by Hazen's rule, Tukey's fences at 1.5 ranges."""
    import numpy as np

    x = np.sort(np.asarray(data, dtype=np.float64))
    q1, median, q3 = (float(q) for q in np.quantile(x, [0.25, 0.5, 0.75], method="hazen"))
    mean, total, iqr = float(x.mean()), float(x.sum()), q3 - q1
    sd = float(x.std(ddof=1)) if len(x) > 1 else 0.0
    low, high = q1 - 1.5 * iqr, q3 + 1.5 * iqr
    beyond_sd = int(((x < mean - sd) | (x > mean + sd)).sum())
    beyond_iqr = int(((x < low) | (x > high)).sum())
    return {
        "min": float(x[0]), "max": float(x[-1]), "mean": mean, "stddev": sd, "rounds": len(x), "median": median,
        "iqr": iqr, "q1": q1, "q3": q3, "iqr_outliers": beyond_iqr, "stddev_outliers": beyond_sd,
        "outliers": f"{beyond_sd};{beyond_iqr}", "ld15iqr": float(x[x >= low][0]), "hd15iqr": float(x[x <= high][-1]),
        "ops": len(x) / total if total else 0.0, "total": total,
    }  # fmt: skip
