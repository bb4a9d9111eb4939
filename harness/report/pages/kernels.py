"""The kernels: every implementation by case, under the roof that was measured beside it, with what makes a time doubtful."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median

from harness.kernelboard import Figure as Reading
from harness.kernelboard import KernelBoard, KernelRow, payoffs
from harness.records import case_text, short_count
from harness.report import charts, linking
from harness.report.blocks import Cell, Column, Figure, Page, Row, Section, Table
from harness.report.collecting import Collected
from harness.report.words import (
    RATES,
    SECONDS,
    command,
    conditions,
    count,
    in_units,
    number,
    plural,
    seconds,
    share,
    short,
    where,
)
from harness.showing import one_line

COLD = "_cold"
LEAST_ELEMENTS = 10_000  # of a smaller case the call is measured, not the work
ALIKE = 1.25  # times: copies that ran as nearly as this share a roof


def make_page(found: Collected) -> Page:
    boards = found.kernels
    lead = (
        f"{plural(len(boards), 'kernel')}. Each implementation was checked against float64 before and after it was timed; "
        "one whose result is wrong has no time. × is the multiple of the time of a copy of as many bytes on the same machine.",
    )
    if not boards:
        lead = ("No kernel is timed yet; `harness run kernels` does it.",)
    sections = tuple(section_of(found, at, board) for at, board in enumerate(boards))
    filters = ("kernel", "device", "machine", "implementation") if boards else ()
    return Page("kernels.html", "kernels", "Kernels", lead, sections, filters=filters, contents=len(boards) > 3)


def tags_of(board: KernelBoard) -> dict[str, str]:
    return {"kernel": short(board.kernel), "device": str(board.shared["device"]), "machine": one_line(board.shared["machine"])}


def section_of(found: Collected, at: int, board: KernelBoard) -> Section:
    name = linking.kernel_anchor(board)
    fixed = one_line(case_text(board.case)) if board.case else ""
    text = [
        " · ".join(part for part in (fixed, where(board.shared), f"machine {one_line(board.shared['machine'])}") if part),
        *notes(board),
    ]
    return Section(
        name,
        f"{short(board.kernel)}, {board.shared['device']}",
        text=tuple(text),
        tables=(table_of(found, at, board),),
        tags=tags_of(board),
    )


def notes(board: KernelBoard) -> Iterator[str]:
    if board.copy_rates:
        rates = ", ".join(f"{one_line(case)} {rate / 1e9:.1f} GB/s" for case, rate in board.copy_rates.items())
        yield f"Copies of as many bytes ran at {rates}."
    if paid := payoffs(board):
        each = [
            f"{one_line(p.case)} {'never' if p.steps is None else f'{p.steps:,}'} (first call {p.first_call_s:.1f} s)"
            for p in paid
        ]
        yield f"Compiling pays after so many steps: {', '.join(each)}."
    if any(figure.doubtful for row in board.rows for figure in row.figures.values()):
        again = command("harness", "run", "kernels", "--force", "--task", short(board.kernel))
        yield f"? is doubtful: the machine was busy or the samples spread widely. `{again}` on a quiet machine settles it."
    if any(row.fallback for row in board.rows):
        yield "Fallback: our code cannot run here, eager code ran instead; it is not ranked."
    if any(row.n_failed for row in board.rows):
        yield "A result that is wrong is not timed: the attempts say which check caught it."


def table_of(found: Collected, at: int, board: KernelBoard) -> Table:
    columns = [Column("case", "short"), Column("implementation", "short"), Column("role", "short")]
    for region in board.regions:
        named = one_line(region).replace("_", "+").replace("+cold", ", cold")
        columns += [
            Column(named, "right", "median of the fresh processes"),
            Column("×", "right", "multiples of the copy's time"),
            Column("of roof", "right", "share of what the device can do for this work"),
        ]
    columns += [
        Column("extra memory", "right"),
        Column("error", "right", "largest, over the largest value of the reference"),
        Column("ok/failed", "right"),
    ]
    rows = tuple(row_of(board, row) for row in board.rows)
    name = linking.kernel_anchor(board)
    wanted = conditions(
        kernel=board.kernel,
        device=board.shared["device"],
        dtype=board.shared["dtype"],
        threads=board.shared["threads"],
        torch_version=board.shared["torch_version"],
        machine=board.shared["machine"],
    )
    told = '"case", implementation, region, time_s, lowest_s, highest_s, floor_multiple, roofline_share, error'
    sql = f"SELECT {told} FROM v_kernels WHERE {wanted}"
    again = command("harness", "run", "kernels", "--force", "--task", short(board.kernel))
    return Table(
        f"kernel-{name}",
        tuple(columns),
        rows,
        f"{short(board.kernel)}: implementations by case",
        sql=sql,
        command=again,
        figures=tuple(figures_of(found, at, board, name)),
    )


def row_of(board: KernelBoard, row: KernelRow) -> Row:
    href = linking.kernel_attempts_href(board, row.case, row.implementation)
    cells = [
        Cell(one_line(row.case) or "–"),
        Cell(short(row.implementation) + (" (fallback)" if row.fallback else "")),
        Cell(row.role),
    ]
    for region in board.regions:
        figure = row.figures.get(region)
        cells += [
            time_cell(figure, href),
            number(figure.floor_multiple if figure else None),
            share(figure.roofline_share if figure and figure.floor_multiple else None),
        ]
    extra = [f.extra_bytes for f in row.figures.values() if f.extra_bytes is not None]
    failed = Cell(f"{row.n_ok}/{row.n_failed}", row.n_ok, href, mark="bad" if row.n_failed else "")
    error = Cell("" if row.error is None else f"{row.error:.1e}", row.error)
    cells += [count(max(extra) if extra else None), error, failed]
    return Row(
        tuple(cells), {**tags_of(board), "implementation": short(row.implementation)}, faint=row.fallback or row.n_failed > 0
    )


def time_cell(figure: Reading | None, href: str) -> Cell:
    if figure is None:
        return Cell("", None)
    title = f"{in_units(figure.lowest_s, SECONDS)} to {in_units(figure.highest_s, SECONDS)} over fresh processes"
    if figure.doubtful:
        why = "other work wanted the same core" if figure.contended else "the samples spread widely"
        return Cell(seconds(figure.time_s).text, figure.time_s, href, mark="doubt", title=f"doubtful: {why}; {title}")
    return Cell(seconds(figure.time_s).text, figure.time_s, href, title=title)


def figures_of(found: Collected, at: int, board: KernelBoard, name: str) -> Iterator[Figure]:
    if figure := size_figure(board, name):
        yield figure
    if figure := roofline_figure(found, at, board, name):
        yield figure


def size_figure(board: KernelBoard, name: str) -> Figure | None:
    """Multiples of the copy's time by size, of the last region that there is."""
    if not board.regions:
        return None
    region = next((r for r in reversed(board.regions) if not r.endswith(COLD)), board.regions[-1])
    lines: dict[str, list[tuple[float, float, float, float]]] = {}
    for row in board.rows:
        figure, elements = row.figures.get(region), elements_of(row.case)
        if figure is None or not elements or not figure.floor_multiple or row.case != short_count(int(elements)):
            continue
        factor = figure.floor_multiple / figure.time_s
        lines.setdefault(row.implementation, []).append(
            (elements, figure.floor_multiple, figure.lowest_s * factor, figure.highest_s * factor)
        )
    lines = {k: sorted(v) for k, v in sorted(lines.items()) if len(v) > 1}
    if not lines:
        return None
    shown = one_line(region).replace("_", "+")
    says = "Time over the time of a copy of as many bytes, by number of elements: " + "; ".join(
        f"{one_line(k)} {v[0][1]:.3g} to {v[-1][1]:.3g}" for k, v in lines.items()
    )
    spec = charts.curves(lines, "elements (log)", f"{shown}: multiples of a copy", log=True, log_y=True)
    return Figure(f"size-{name}", f"{short(board.kernel)}: time in copies, by size", says, spec)


def elements_of(case: str) -> float:
    """Of "1M", "16Mi strided": how many; 0 where it does not say."""
    word = case.split(" ")[0] if case else ""
    for unit, size in (("Mi", 1 << 20), ("Ki", 1 << 10), ("M", 10**6), ("k", 1000), ("", 1)):
        digits = word.removesuffix(unit) if unit else word
        if (not unit or word.endswith(unit)) and digits.isdigit():
            return float(int(digits) * size)
    return 0.0


def roofline_figure(found: Collected, at: int, board: KernelBoard, name: str) -> Figure | None:
    """Each reading under the ceilings that were measured beside its own size."""
    roofs = roofs_of(found.roofs.get(at, {}))
    dots = []
    for row in sorted(board.rows, key=lambda r: r.implementation):
        roof = next((label for label, (cases, _, _) in roofs.items() if row.case in cases), None)
        for region, figure in row.figures.items():
            if roof and figure.flop_rate and figure.bytes_rate and region in board.regions:
                reached = in_units(figure.flop_rate, RATES, "FLOP/s")
                part = f", {share(figure.roofline_share).text} of its roof" if figure.roofline_share else ""
                tip = f"{one_line(row.implementation)}, {one_line(row.case)}, {region}: {reached}{part}"
                kind = "cold" if region.endswith(COLD) else "hot"
                x = figure.flop_rate / figure.bytes_rate
                dots.append(charts.Dot(roof, x, 0.0, 0.0, row.implementation, tip, y=figure.flop_rate, text=kind))
    if not dots:
        return None
    cold = any(d.text == "cold" for d in dots)
    under = {label: (copy, matmul) for label, (_, copy, matmul) in roofs.items() if any(d.label == label for d in dots)}
    says = (
        f"{len(dots)} readings of 10k elements and more, each in the colour of its own roof: {'; '.join(under)}, up to "
        f"{in_units(max(m for _, m in under.values()), RATES, 'FLOP/s')}, all measured on this machine; "
        + ("hollow: with a cold cache." if cold else "all with a warm cache.")
    )
    return Figure(f"roof-{name}", f"{short(board.kernel)}: roofline", says, charts.roofline(dots, under, "cold"))


def roofs_of(ceilings: Mapping[str, tuple[float, float]]) -> dict[str, tuple[frozenset[str], float, float]]:
    """label -> (cases, bytes/s, FLOP/s): sizes whose copies ran alike share a roof; small ones measure the call."""
    ordered = sorted((copy, matmul, case) for case, (copy, matmul) in ceilings.items() if elements_of(case) >= LEAST_ELEMENTS)
    alike: list[list[tuple[float, float, str]]] = []
    for each in ordered:
        if alike and each[0] < ALIKE * alike[-1][0][0]:
            alike[-1].append(each)
        else:
            alike.append([each])
    found = {}
    for group in sorted(alike, key=lambda group: min(elements_of(case) for _, _, case in group)):
        copy, matmul = median(c for c, _, _ in group), median(m for _, m, _ in group)
        sizes = sorted({one_line(case).split(" ")[0] for _, _, case in group}, key=elements_of)
        found[f"{', '.join(sizes)}: {in_units(copy, RATES, 'B/s')}"] = (frozenset(c for _, _, c in group), copy, matmul)
    return found
