"""What docs/kernels.md says in figures: `python -m tests.benchmarks.kernels [--registry FOLDER] [--write PAGE]`.

In: the kernel records and machine checks of a registry. Out: goals and whether they are met, the machine, every table. What
stands above MARK in the page is written by hand and stays.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from harness.cli.kernels import board_cells, board_title, footnotes, markdown_table, seconds
from harness.cli.options import short
from harness.kernelboard import Figure, KernelBoard, KernelRow, make_kernel_boards
from harness.kernels.ceilings import MachineCheck, latest_checks, noise_floor
from harness.records import short_count
from harness.registry import Registry

REFERENCE = Path(__file__).parents[2] / "registry/reference"
MARK = "<!-- below: written by `make docs/kernels.md` from registry/reference -->"
LARGE, SMALL = "16Mi", "10k"
STEP = "forward_backward"
GOAL = 1.3  # of the memory floor, forward and backward at LARGE, for `ours`
WITH_GOAL = ("crrelu", "polyrelu", "selu", "polynorm")
PEER = "gelu"  # at SMALL, `ours` shall be no slower than torch's own
# forward + backward in multiples of the floor, measured when the goals were set: eager, compiled
BEFORE = {"silu": "0.95", "gelu": "1.6", "crrelu": "8.8, 1.07", "polyrelu": "12.3, 1.16", "polynorm": "21, 1.6"}
Row = Sequence[str]


def render_figures(registry: Registry) -> str:
    """All that stands below MARK."""
    machines = [row["machine"] for row in registry.query("SELECT DISTINCT machine FROM v_kernels ORDER BY machine").to_pylist()]
    parts = []
    for machine in machines:
        boards = make_kernel_boards(registry, machine)
        checks = latest_checks(registry.facts(), machine)
        parts += [*goals(boards), *machine_lines(machine, checks, boards, registry), *tables(boards)]
    return "\n\n".join(parts) + "\n"


# Goals ------------------------------------------------------------------------------------------------------------------


def goals(boards: Iterable[KernelBoard]) -> list[str]:
    """Nothing for a machine on which no CPU was timed."""
    on_cpu = {short(b.kernel): b for b in boards if (b.shared["device"], b.shared["threads"]) == ("cpu", 1)}
    at_large, at_small = ({name: timed(board, case) for name, board in on_cpu.items()} for case in (LARGE, SMALL))
    peer = at_small.get(PEER, {}).get("eager")
    if peer is None:
        return []
    large = [large_row(name, rows) for name, rows in at_large.items() if rows]
    small = [small_row(name, at_small[name]["ours"], peer) for name in WITH_GOAL if "ours" in at_small.get(name, {})]
    met = [row[-1] == "yes" for row in (*large, *small) if row[-1] != "-"]
    return [
        "## Goals",
        f"{sum(met)} of {len(met)} are met. `!` marks a doubtful reading.",
        f"**{LARGE} floats, one thread, forward and backward, in multiples of the floor.** *Before*: eager, compiled, when the"
        f" goals were set, on another day and machine. *Beyond*: bytes that `ours` takes beyond inputs, outputs and gradients.",
        markdown_table([["kernel", "before", "eager", "compiled", "ours", "beyond", "goal", "met"], *sorted(large)], 1),
        f"**{SMALL} floats: `ours` against torch's own `{PEER}`**, which takes {times(peer)} (forward, forward and backward).",
        markdown_table([["kernel", "forward", "forward+backward", f"of {PEER}", "goal", "met"], *small], 1),
    ]


def timed(board: KernelBoard, case: str) -> dict[str, KernelRow]:
    """Both passes, by implementation; a wrong one and a fallback are no result of anybody's."""
    return {
        r.implementation: r for r in board.rows if r.case == case and STEP in r.figures and not r.n_failed and not r.fallback
    }


def large_row(name: str, rows: Mapping[str, KernelRow]) -> Row:
    multiples = [multiple(rows[who].figures[STEP]) if who in rows else "-" for who in ("eager", "compiled", "ours")]
    beyond = f"{most_extra(rows['ours']):,.0f}" if "ours" in rows else "-"
    ours = rows["ours"].figures[STEP].floor_multiple if "ours" in rows else None
    if name not in WITH_GOAL:
        return (name, BEFORE.get(name, "-"), *multiples, beyond, "-", "-")
    return (name, BEFORE.get(name, "-"), *multiples, beyond, f"<= {GOAL}", verdict(ours is not None and ours <= GOAL))


def small_row(name: str, ours: KernelRow, peer: KernelRow) -> Row:
    regions = ("forward", STEP)
    shares = [ours.figures[region].time_s / peer.figures[region].time_s for region in regions]
    told = ", ".join(f"{share:.2f}" for share in shares)
    return (name, *(time(ours.figures[region]) for region in regions), told, "<= 1", verdict(max(shares) <= 1))


def verdict(met: bool) -> str:
    """A goal that is missed stands out."""
    return "yes" if met else "**no**"


def most_extra(row: KernelRow) -> float:
    return max(figure.extra_bytes or 0.0 for figure in row.figures.values())


def multiple(figure: Figure) -> str:
    return "-" if figure.floor_multiple is None else f"{figure.floor_multiple:.2f}{doubt(figure)}"


def time(figure: Figure) -> str:
    return f"{seconds(figure.time_s)}{doubt(figure)}"


def times(row: KernelRow) -> str:
    return f"{time(row.figures['forward'])} and {time(row.figures[STEP])}"


def doubt(figure: Figure) -> str:
    return " !" if figure.doubtful else ""


# Where, and everything --------------------------------------------------------------------------------------------------

CONDITIONS = """
SELECT count(*) AS attempts, count(*) FILTER (status <> 'ok') AS failed, min(started_at) AS first, max(started_at) AS last,
       string_agg(DISTINCT left(git_commit, 7), ', ' ORDER BY left(git_commit, 7)) AS commits, bool_or(git_dirty) AS dirty
FROM attempts WHERE kind = 'kernel' AND machine = ? AND status <> 'interrupted'
"""
CONTENDED = """
SELECT CAST(json_extract_string(task_params, '$.elements') AS BIGINT) AS elements,
       count(*) FILTER (value > 0) AS contended, count(*) AS readings
FROM measurements WHERE kind = 'kernel' AND machine = ? AND quantity = 'contended' GROUP BY 1 ORDER BY 1
"""


def machine_lines(machine: str, checks: Sequence[MachineCheck], boards: Sequence[KernelBoard], registry: Registry) -> list[str]:
    (ran,) = registry.query(CONDITIONS, [machine]).to_pylist()
    waited = [
        f"{row['contended']} of {row['readings']} at {short_count(row['elements'])}"
        for row in registry.query(CONTENDED, [machine]).to_pylist()
    ]
    facts = next((f["facts"] for f in registry.facts() if (f["kind"], f["name"]) == ("machine", machine)), {})
    changed = " with changes" if ran["dirty"] else ""
    lines = [
        f"Machine `{machine}`: {facts.get('cpu', '?')}, {facts.get('cores', '?')} cores, {facts.get('memory_gib', '?')} GiB; "
        f"torch {', '.join(sorted({b.shared['torch_version'] for b in boards}))}",
        f"{ran['attempts']} attempts, {ran['failed']} of them not ok, of commit {ran['commits'] or '(none)'}{changed}; "
        f"{ran['first']:%Y-%m-%d %H:%M} to {ran['last']:%H:%M} UTC",
        f"readings that waited for a core (`contended`): {', '.join(waited)}",
        *map(check_line, checks),
    ]
    return ["## Where this was measured", "\n".join(f"- {line}" for line in lines)]


def check_line(check: MachineCheck) -> str:
    """The ceilings and the noise floor, as `harness machine show --machine NAME` prints them in full."""
    copies = ", ".join(f"{c.bytes_per_s / 1e9:.1f} GB/s at {c.elements:,} elements" for c in check.copies)
    product = max(m.flops_per_s for m in check.matmuls)
    noise, doubtful = noise_floor(check), "; doubtful: other work wanted the same cores" if check.contended else ""
    told = "not measured" if noise is None else f"{100 * noise:.2g} %"
    return (
        f"ceilings ({check.device} {check.dtype}, {check.threads} thread, {check.checked_at[:16].replace('T', ' ')} UTC): copy "
        f"{copies}; matrix product {product / 1e9:.0f} GFLOP/s; noise floor {told}{doubtful}"
    )


def tables(boards: Sequence[KernelBoard]) -> list[str]:
    parts = ["## Tables", "As `harness compare --kernels --registry registry/reference --markdown` prints them."]
    for board in boards:
        notes = [f"- {line}" for line in footnotes(board)]
        parts += [f"**{board_title(board)}**", markdown_table(board_cells(board), 2), *(["\n".join(notes)] if notes else [])]
    return parts


def write_page(page: Path, figures: str) -> None:
    """Raises ValueError where the page has no MARK."""
    above, mark, _ = page.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise ValueError(f"{page} has no line {MARK!r}: what is below it is to be written, so put it where that begins")
    page.write_text(f"{above}{MARK}\n\n{figures}", encoding="utf-8")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.kernels", description=__doc__)
    parser.add_argument("--registry", type=Path, default=REFERENCE, help="the records; registry/reference unless named")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write what stands below the mark of this page")
    args = parser.parse_args(argv)
    figures = render_figures(Registry.open(args.registry, create=False))
    if args.write:
        write_page(args.write, figures)
    else:
        sys.stdout.write(figures)


if __name__ == "__main__":
    main(sys.argv[1:])
