"""Certified bounds, our solver and general ones: `python -m tests.benchmarks.bench_certify [--only PART] [--write PAGE]`.

Nets of random weights N(0, 1/inputs) from default_rng(0), 64 inputs, LxW = L affine layers with hidden layers of W units, 10
outputs. A reading is CPU time on one thread, from the weights to a proved bound: assembly, solver, repair and proof. Each is
made in a process of its own, which may use --limit CPU seconds; one that is ended there is censored, and its ratio a lower
bound. Ours is read before and after the peers, in the same run, and its smaller reading counts.

The gap is that of the proved bound over our proved lower bound of the same program, relative. Ours is asked for 1e-6 of rho.
Clarabel and SCS get the tolerance 1e-8, which they need to come near 1e-6; what they reach stands beside.
peers: ReLU (Neuron) and MaxMin (NSR chain) from width 32 up.   large: what only ours solves, with its memory.
Goals: 20 times faster from width 32 up; ReLU 8x128 under 30 s; NSR 18x128 under 180 s and 2 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from harness_papers.lipsdp import SdpParams, method
from harness_papers.lipsdp.problems import Network, NormProduct, network
from harness_papers.lipsdp.verify import prove

from harness.worker.environment import worker_environment
from harness.worker.measuring import resident_bytes

PEERS = {"clarabel": 1e-8, "scs": 1e-8}
CASES = (("relu", 2, 32), ("groupsort", 4, 32), ("relu", 4, 32), ("relu", 2, 64), ("relu", 8, 32))
LARGE = (("groupsort", 18, 128), ("relu", 8, 128), ("relu", 18, 128))
GOAL = 20.0
START_S = 6  # CPU seconds of imports and of the first small net
GOALS_S = {("groupsort", 18, 128): 180.0, ("relu", 8, 128): 30.0}
GOAL_BYTES = {("groupsort", 18, 128): 2 << 30}
BEGIN, END = "<!-- {part}: begin -->", "<!-- {part}: end -->"

Case = tuple[str, int, int]


@dataclass(frozen=True)
class Reading:
    """One solver on one net. cpu_s, bound: None where it was ended at the limit or failed, as status says."""

    case: Case
    solver: str
    cpu_s: float | None
    bound: float | None
    lower: float
    peak_bytes: int
    steps: float
    status: str


class Context:
    """As much of `ctx` as the methods use; nothing is limited."""

    def __init__(self) -> None:
        self.logged: dict[str, Any] = {}
        self.spent = 0.0

    def left(self, unit: str) -> float:
        return float("inf")

    def spend(self, **units: float) -> None:
        self.spent += sum(units.values())

    def log(self, **facts: Any) -> None:
        self.logged |= facts

    def offer(self, solution: Any) -> None:
        pass

    def save(self, name: str, content: bytes, media_type: str) -> None:
        pass

    def region(self, name: str) -> Any:
        return tempfile.TemporaryDirectory()  # any context


def make_net(case: Case) -> Network:
    activation, layers, width = case
    rng = np.random.default_rng(0)
    sizes = [64, *[width] * (layers - 1), 10]
    weights = [rng.standard_normal((after, before)) / np.sqrt(before) for before, after in pairwise(sizes)]
    return network(weights, activation=activation)


# One reading, in its process --------------------------------------------------------------------------------------------


def read_here(case: Case, solver: str) -> Reading:
    """A small net goes first: what is loaded on first use is no cost of the method."""
    solve = method.solve_neuron if case[0] == "relu" else method.solve_nsr
    params = SdpParams(solver=solver, eps=PEERS.get(solver, 1e-6))
    solve(make_net((case[0], 2, 4)), Context(), params)
    net, ctx = make_net(case), Context()
    method.margin = lambda *_: 0.0  # the smallest eigenvalue is for the record, no part of the proof
    Path("/proc/self/clear_refs").write_text("5")
    before, began = resident_bytes("VmRSS"), time.process_time()
    solution = solve(net, ctx, params)
    took = time.process_time() - began
    proved = None if isinstance(solution.evidence, NormProduct) else prove(net, solution).bound
    lower, status = float(ctx.logged["program_lower_bound"]), str(ctx.logged["solver_status"])
    return Reading(case, solver, took, proved, lower, resident_bytes("VmHWM") - before, ctx.spent, status)


def read_apart(case: Case, solver: str, limit_s: float) -> Reading:
    """In a fresh process that may use limit_s CPU seconds and START_S for its start."""
    seconds = int(limit_s) + START_S
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.bench_certify", "--read", solver, *map(str, case)],
        env=worker_environment(1), stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds)),
    )  # fmt: skip
    if done.returncode == 0:
        made = json.loads(done.stdout)
        return Reading(**{**made, "case": case})
    return Reading(case, solver, None, None, 0.0, 0, 0, "censored" if done.returncode < 0 else "failed")


# Tables -----------------------------------------------------------------------------------------------------------------


def compare(cases: tuple[Case, ...], limit_s: float) -> list[list[Reading]]:
    """Per case: ours (the faster of two readings), Clarabel and SCS, which are read between them."""
    found = []
    for case in cases:
        print(f"measuring: {name_of(case)}", file=sys.stderr)
        before = read_apart(case, "ours", limit_s)
        peers = [read_apart(case, peer, limit_s) for peer in PEERS]
        ours = [before, read_apart(case, "ours", limit_s)]
        found.append([min(ours, key=lambda r: r.cpu_s or np.inf), *peers])
    return found


def name_of(case: Case) -> str:
    return f"{'MaxMin, NSR chain' if case[0] == 'groupsort' else 'ReLU, Neuron'} {case[1]}x{case[2]}"


def gap_of(reading: Reading, lower: float) -> str:
    return "-" if reading.bound is None else f"{(reading.bound / lower) ** 2 - 1.0:.1e}"


def render_peers(found: list[list[Reading]], limit_s: float) -> str:
    lines = [
        "| net | bound | ours | gap | Clarabel | gap | times ours | SCS | gap | times ours | goal |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for ours, *peers in found:
        cells, met = [], True
        for peer in peers:
            known = peer.cpu_s if peer.cpu_s is not None else limit_s
            mark = "" if peer.cpu_s is not None else "> "
            ratio = known / (ours.cpu_s or np.inf)
            met &= ratio >= GOAL
            cells += [f"{mark}{known:.3g} s", gap_of(peer, ours.lower), f"{mark}{ratio:.0f}"]
        verdict = "met" if met else "MISSED"
        first = [name_of(ours.case), f"{ours.bound:.6f}", f"{ours.cpu_s:.3g} s", gap_of(ours, ours.lower)]
        lines.append("| " + " | ".join([*first, *cells, f">= {GOAL:g}: {verdict}"]) + " |")
    return "\n".join(lines)


def render_large(found: list[Reading]) -> str:
    lines = ["| net | norm product | bound | gap | Newton steps | CPU | memory | goal |", "|---|---|---|---|---|---|---|---|"]
    for r in found:
        product = method.solve_norm_product(make_net(r.case), None, None).bound
        goal = "-"
        if r.case in GOALS_S and r.cpu_s is not None:
            met = r.cpu_s <= GOALS_S[r.case] and r.peak_bytes <= GOAL_BYTES.get(r.case, 1 << 60)
            limit = f"{GOALS_S[r.case]:g} s" + (", 2 GB" if r.case in GOAL_BYTES else "")
            goal = f"<= {limit}: {'met' if met else 'MISSED'}"
        if r.bound is None:
            lines.append(f"| {name_of(r.case)} | {product:.2f} | {r.status} | - | - | - | - | {goal} |")
            continue
        gap = gap_of(r, r.lower) if r.lower > 0 else r.status
        lines.append(
            f"| {name_of(r.case)} | {product:.2f} | {r.bound:.5f} | {gap} | {r.steps:.0f} | {r.cpu_s:.3g} s | "
            f"{r.peak_bytes / 2**20:.0f} MiB | {goal} |"
        )
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_certify", description=__doc__)
    parser.add_argument("--only", choices=("peers", "large"), help="one part")
    parser.add_argument("--limit", type=float, default=60.0, metavar="SECONDS", help="CPU seconds of a peer (default: 60)")
    parser.add_argument("--large-limit", type=float, default=1200.0, metavar="SECONDS", help="of ours on a large net (1200)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of the tables")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put each table between the part's two marks of a page")
    parser.add_argument("--read", nargs=4, metavar=("SOLVER", "ACTIVATION", "LAYERS", "WIDTH"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.read:
        solver, activation, layers, width = args.read
        print(json.dumps(asdict(read_here((activation, int(layers), int(width)), solver))))
        return
    load, tables, readings = os.getloadavg()[0], {}, []
    if args.only in (None, "peers"):
        compared = compare(CASES, args.limit)
        tables["peers"] = render_peers(compared, args.limit)
        readings += [reading for row in compared for reading in row]
    if args.only in (None, "large"):
        large = []
        for case in LARGE:
            print(f"measuring: {name_of(case)}", file=sys.stderr)
            large.append(read_apart(case, "ours", args.large_limit))
        tables["large"] = render_large(large)
        readings += large
    for line in [json.dumps(asdict(r)) for r in readings] if args.json else ["\n\n".join(tables.values())]:
        print(line)
    for part, table in tables.items() if args.write else ():
        write_page(args.write, "python -m tests.benchmarks.bench_certify " + " ".join(argv), load, part, table)


def write_page(page: Path, command: str, load: float, part: str, table: str) -> None:
    """Put the table between the part's BEGIN and END, under what made it."""
    conditions = (
        f"By `{command}`; NumPy {np.__version__}, {platform.machine()}, {os.cpu_count()} cores, load average {load:.1f} at the "
        "start. CPU seconds, one thread."
    )
    begin, end = BEGIN.format(part=part), END.format(part=part)
    before, _, rest = page.read_text().partition(begin)
    page.write_text(before + "\n\n".join((begin, conditions, table, end)) + rest.partition(end)[2])


if __name__ == "__main__":
    main(sys.argv[1:])
