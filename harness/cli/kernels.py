"""How kernels are drawn: after a run, side by side, and for a document."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from harness.cli.options import short
from harness.records import KERNEL_REGIONS, case_text
from harness.showing import finite, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.comparing import Comparison, Ratio
    from harness.kernelboard import Figure, KernelBoard, KernelRow

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))


# Side by side -----------------------------------------------------------------------------------------------------------


def draw_kernel_boards(boards: Sequence[KernelBoard], *, as_json: bool, markdown: bool = False) -> None:
    """One table a kernel and device: implementations by case, times with multiples of the memory floor."""
    if as_json:
        click.echo(json.dumps(finite([dataclasses.asdict(b) for b in boards])))
    elif not boards:
        click.echo("no kernels timed here yet; run `harness run kernels`")
    for board in boards if not as_json else ():
        (print_markdown if markdown else print_table)(board_title(board), board_cells(board), right_from=2)
        for line in footnotes(board):
            click.echo(f"- {line}" if markdown else line)
        click.echo()


def board_title(board: KernelBoard) -> str:
    threads = board.shared["threads"]
    what = f"{board.shared['device']} {board.shared['dtype']}, {threads} thread{'s' if threads != 1 else ''}"
    case = [case_text(board.case)] if board.case else []
    parts = [short(board.kernel), *case, what, f"torch {board.shared['torch_version']}", f"machine {board.shared['machine']}"]
    return " | ".join(map(one_line, parts))


def board_cells(board: KernelBoard) -> list[list[str]]:
    """The heading, then one line an implementation; a case is named on its first."""
    regions = [region.replace("_", "+") for region in board.regions]
    shown = [["case", "implementation", *regions, "roofline", "extra B", "error", "ok/fail"]]
    last = None
    for row in board.rows:
        case = "" if row.case == last else row.case
        last = row.case
        cells = [time_cell(row.figures.get(region)) for region in board.regions]
        error = "" if row.error is None else f"{row.error:.1e}"
        shown.append([case, name_cell(row), *cells, roofline_cell(row), extra_cell(row), error, f"{row.n_ok}/{row.n_failed}"])
    return shown


def name_cell(row: KernelRow) -> str:
    marks = " (fallback, not ranked)" if row.fallback else ""
    return one_line(row.implementation) + marks


def time_cell(figure: Figure | None) -> str:
    """`7.21 ms 1.04x`: the median, and multiples of the memory floor; `!` where the reading is doubtful."""
    if figure is None:
        return "-"
    floor = "" if figure.floor_multiple is None else f" {figure.floor_multiple:.2f}x"
    return f"{seconds(figure.time_s)}{floor}{' !' if figure.doubtful else ''}"


def roofline_cell(row: KernelRow) -> str:
    """What the last region reaches of the most that this machine could do; nothing where no element is worked on."""
    last = next((row.figures[region] for region in reversed(KERNEL_REGIONS) if region in row.figures), None)
    if last is None or last.roofline_share is None or last.floor_multiple is None:
        return ""
    return f"{100 * last.roofline_share:.0f} %"


def extra_cell(row: KernelRow) -> str:
    """The most memory beyond inputs, outputs and gradients, of any region."""
    known = [f.extra_bytes for f in row.figures.values() if f.extra_bytes is not None]
    return f"{max(known):,.0f}" if known else ""


def seconds(value: float) -> str:
    scale, unit = next(((s, u) for s, u in UNITS if value >= s), UNITS[-1])
    return f"{value / scale:.3g} {unit}"


def footnotes(board: KernelBoard) -> list[str]:
    from harness.kernelboard import payoffs

    rates = ", ".join(f"{case} {rate / 1e9:.1f} GB/s" for case, rate in board.copy_rates.items())
    lines = [f"x: multiples of the time in which the same bytes are copied here ({rates})"] if rates else []
    if paid := payoffs(board):
        each = [f"{p.case} {'never' if p.steps is None else f'{p.steps:,}'} (first call {p.first_call_s:.1f} s)" for p in paid]
        lines.append(f"compiling pays after so many steps: {', '.join(each)}")
    if any(figure.doubtful for row in board.rows for figure in row.figures.values()):
        again = f"harness run kernels --force -t {short(board.kernel)}"
        lines.append(f"!: doubtful, the machine was busy or the samples spread widely; `{again}` on a quiet machine settles it")
    if any(row.fallback for row in board.rows):
        lines.append("fallback: our code cannot run here, eager code ran instead; not ranked (`harness logs` says why)")
    if any(row.n_failed for row in board.rows):
        lines.append("a result that is wrong is not timed: `harness status --failed` says which check caught it")
    return lines


# A against B ------------------------------------------------------------------------------------------------------------


def draw_comparison(found: Comparison, as_json: bool, markdown: bool) -> None:
    from harness.comparing import by_kernel

    if as_json:
        click.echo(json.dumps(finite(dataclasses.asdict(found))))
        return
    for kernel, ratios in by_kernel(found.ratios):
        heading = ["case", "region", one_line(found.a), one_line(found.b), "ratio", "95 %", "processes", "verdict"]
        title = f"{short(kernel)}: time of {one_line(found.b)} over time of {one_line(found.a)}"
        (print_markdown if markdown else print_table)(title, [heading, *map(ratio_cells, ratios)], right_from=2)
        click.echo()
    for difference in found.differs:
        click.echo(f"note: the two sides differ in {one_line(difference)}; times of different machines or torches say little")


def ratio_cells(ratio: Ratio) -> list[str]:
    from harness.kernelboard import label_of

    where = ratio.where
    case = " ".join(
        [label_of(where), where["device"], where["dtype"], *([where["implementation"]] if "implementation" in where else [])]
    )
    interval = "-" if ratio.low is None or ratio.high is None else f"{ratio.low:.3f} to {ratio.high:.3f}"
    cells = [case, where["region"].replace("_", "+"), seconds(ratio.a_s), seconds(ratio.b_s), f"{ratio.ratio:.3f}", interval]
    return [one_line(cell) for cell in (*cells, f"{ratio.n_a} / {ratio.n_b}", ratio.verdict)]


# Tables -----------------------------------------------------------------------------------------------------------------


def print_table(title: str, cells: Sequence[Sequence[str]], right_from: int) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from harness.cli.tables import console

    table = Table(
        title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for i, name in enumerate(cells[0]):
        table.add_column(Text(name), justify="right" if i >= right_from else "left", no_wrap=True)
    for row in cells[1:]:
        table.add_row(*map(Text, row))
    console().print(table)


def print_markdown(title: str, cells: Sequence[Sequence[str]], right_from: int) -> None:
    click.echo(f"**{title}**\n")
    click.echo(markdown_table(cells, right_from))
    click.echo()


def markdown_table(cells: Sequence[Sequence[str]], right_from: int) -> str:
    """A GitHub table; a bar in a name would end its cell."""
    lines = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    rule = ["---" if i < right_from else "--:" for i in range(len(cells[0]))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (lines[0], rule, *lines[1:]))
