"""The nights: what became worse, with the step marked, and every watched history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from harness.regress import History, Point
from harness.regress.judging import Regression
from harness.regress.nightly import LEAST_NIGHTS
from harness.report import charts
from harness.report.blocks import Cell, Column, Figure, Page, Row, Section, Spark, Table
from harness.report.collecting import Collected, Machine
from harness.report.words import anchor, command, conditions, in_units, number, signed_word
from harness.showing import one_line

MOST_CHARTS = 24  # of regressions, the worst first; the table has all
MOST_SPARKS = 60  # nights in a small picture


def make_page(found: Collected) -> Page:
    machines = [m for m in found.machines if m.histories]
    lead = tuple(f"{one_line(m.name)}: {one_line(m.verdicts.verdict)}." for m in machines)
    if not machines:
        lead = (
            "No history yet. `harness nightly SUITE`, run each night, makes one; two commits can be compared at once with "
            "`harness regress --interleaved A..B --kernel NAME`.",
        )
    sections = [section for machine in machines for section in machine_sections(machine)]
    return Page(
        "nightly.html", "nightly", "Nightly", lead, tuple(sections), filters=("machine", "aspect", "state") if machines else ()
    )


def machine_sections(machine: Machine) -> Iterator[Section]:
    if machine.verdicts.regressions:
        yield worse_section(machine)
    yield watched_section(machine)


def regress_command(machine: Machine) -> str:
    return command("harness", "regress", "--machine", machine.name)


def worse_section(machine: Machine) -> Section:
    columns = (
        Column("verdict", "short"), Column("series", "short"), Column("quantity", "short"),
        Column("before", "right"), Column("after", "right"),
        Column("ratio", "right"), Column("first bad night"), Column("said by"), Column("p", "right", "adjusted for all series"),
        Column("to settle or accept it"),
    )  # fmt: skip
    worse, name = machine.verdicts.regressions, anchor("nights", machine.name)
    rows = tuple(regression_row(machine, r) for r in worse)
    figures = tuple(f for at, r in enumerate(worse[:MOST_CHARTS]) if (f := step_figure(f"{name}-{at}", r)))
    notes = list(map(one_line, machine.verdicts.notes))
    if len(worse) > MOST_CHARTS:
        notes.append(f"Drawn are the worst {MOST_CHARTS} of {len(worse)}.")
    table = Table(
        f"worse-{name}",
        columns,
        rows,
        "What became worse",
        tuple(notes),
        histories_sql(machine),
        regress_command(machine),
        figures,
    )
    return Section(f"worse-{name}", f"Worse on {one_line(machine.name)}", tables=(table,))


def watched_section(machine: Machine) -> Section:
    """Every history with its state; closed where there is something more urgent to look at."""
    columns = (
        Column("series", "short"), Column("state", "short"), Column("quantity", "short"),
        Column("aspect", "short"), Column("nights", "right"), Column("history"),
        Column("last", "right"), Column("against the median before", "right"),
        Column("last night's commit", "short"),
    )  # fmt: skip
    worse, name = machine.verdicts.regressions, anchor("nights", machine.name)
    states = {id(r.history): r.state for r in worse}
    rows = tuple(history_row(machine, h, states.get(id(h), "")) for h in machine.histories)
    longest = max((len(h.points) for h in machine.histories), default=0)
    nights = f"{longest} night{'s' if longest != 1 else ''}"
    text = (
        ()
        if longest > LEAST_NIGHTS
        else (f"Nothing is judged before {LEAST_NIGHTS + 1} nights; the longest history has {longest}.",)
    )
    folded = f"{len(rows)} series, up to {nights}" if longest < 2 or worse else ""
    table = Table(
        f"all-{name}", columns, rows, "Histories", sql=histories_sql(machine), command=regress_command(machine), folded=folded
    )
    return Section(f"all-{name}", f"All that is watched on {one_line(machine.name)}", text=text, tables=(table,))


def histories_sql(machine: Machine) -> str:
    return (
        "SELECT invocation, min(started_at) AS night, kind, method, task, quantity, part, avg(value) AS mean FROM measurements "
        f"WHERE {conditions(machine=machine.name, status='ok')} "
        "GROUP BY invocation, kind, method, task, quantity, part ORDER BY night"
    )


def regression_row(machine: Machine, r: Regression) -> Row:
    unit = r.history.reading.unit
    ratio = r.ratio
    settle = r.settle or r.accept
    cells = (
        signed_word(r.state),
        series_cell(r.history),
        Cell(one_line(r.history.reading.quantity)),
        amount(r.before, unit),
        amount(r.after, unit),
        Cell("" if ratio is None else f"×{ratio:.3f}", ratio),
        Cell(night(r.at)),
        Cell(", ".join(r.instruments)),
        Cell("" if r.p is None else f"{r.p:.1e}", r.p),
        Cell(settle, copy=settle) if settle else Cell(one_line(r.error)),
    )
    return Row(cells, tags_of(machine, r.history, r.state))


def tags_of(machine: Machine, history: History, state: str) -> dict[str, str]:
    return {"machine": one_line(machine.name), "aspect": history.reading.aspect, "state": state or "unchanged"}


def history_row(machine: Machine, history: History, state: str) -> Row:
    values = history.values
    before = median(values[:-1]) if len(values) > 1 else None
    change = (values[-1] - before) / abs(before) if before else None
    last = history.points[-1]
    cells = (
        series_cell(history),
        signed_word(state) if state else Cell("unchanged" if len(values) > LEAST_NIGHTS else "not judged yet"),
        Cell(one_line(history.reading.quantity)),
        Cell(history.reading.aspect),
        Cell(str(len(values)), len(values)),
        Cell("", None, spark=spark(values)),
        amount(values[-1], history.reading.unit),
        Cell("", None) if change is None else Cell(f"{100 * change:+.2f} %", change),
        Cell(commit(last)),
    )
    return Row(cells, tags_of(machine, history, state))


def series_cell(history: History) -> Cell:
    """Without its quantity, which has a column of its own."""
    label = one_line(history.label)
    return Cell(label.removesuffix(f" {one_line(history.reading.quantity)}"), label)


def amount(value: float, unit: str) -> Cell:
    from harness.report.words import BYTES, SECONDS

    if not charts.drawable(value):
        return Cell("", None)
    if unit in ("s", "B"):
        return Cell(in_units(value, SECONDS if unit == "s" else BYTES), value)
    return number(value)


def night(point: Point) -> str:
    return f"{point.at:%Y-%m-%d} {commit(point)}".strip()


def commit(point: Point) -> str:
    return one_line(point.commit[:8] + ("+" if point.dirty else "")) if point.commit else ""


def spark(values: Sequence[float]) -> Spark | None:
    """The last nights, scaled to their own range."""
    shown = values[-MOST_SPARKS:]
    if len(shown) < 2 or not all(map(charts.drawable, shown)):
        return None
    low, high = min(shown), max(shown)
    wide = high - low or 1.0
    return Spark(
        tuple((round(100 * i / (len(shown) - 1), 1), round(100 - 100 * (v - low) / wide, 1)) for i, v in enumerate(shown))
    )


def step_figure(name: str, r: Regression) -> Figure | None:
    points = r.history.points
    if len(points) < 2 or r.state == "broken":
        return None
    at = next((i for i, p in enumerate(points) if p.attempt_id == r.at.attempt_id), None)
    drawn = [(night(p), p.value) for p in points]
    unit = r.history.reading.unit
    title = one_line(r.history.label)
    says = (
        f"{len(points)} nights; {r.state}: from {amount(r.before, unit).text} to {amount(r.after, unit).text} at {night(r.at)}."
    )
    return Figure(
        f"step-{name}",
        title,
        says,
        charts.history(drawn, f"{one_line(r.history.reading.quantity)}, {one_line(unit)}", at, (r.before, r.after)),
    )
