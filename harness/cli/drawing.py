"""What people see: plans, progress, leaderboards, drawn with rich. Tables go to stdout, progress to stderr."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from harness.cli.options import short
from harness.leaderboard import Board, Row
from harness.records import case_text
from harness.run import Progress
from harness.showing import finite, interval_text, visible
from harness.stats import Interval

if TYPE_CHECKING:  # a plan brings the models of the suite with it: a tenth of a second that a leaderboard does not need
    from harness.plan import Plan
    from harness.records import Attempt, Trial

BAR_CELLS = 17
PLAIN_EVERY_S = 10.0
UNLIMITED = 10_000  # columns: to ask a table how wide it would like to be
MATCHES_SHOWN = 6
FURTHER_SHOWN = 3  # further metrics beside the ranking one; --json has all


class Output(Console):
    """A console for names and texts of others: what a terminal would obey is shown.

    rich ends the process where stdout's reader goes away; the command line decides that here.
    """

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        if isinstance(renderable, Text) and (shown := visible(renderable.plain)) != renderable.plain:
            renderable = Text(shown, style=renderable.style, justify=renderable.justify, overflow=renderable.overflow)
        return super().render(renderable, options)


def console(*, err: bool = False) -> Console:
    """Stdout or stderr; 118 columns where it is no terminal, so that a log or a README holds whole rows."""
    made = Output(stderr=err, highlight=False, emoji=False)
    return made if made.is_terminal else Output(stderr=err, highlight=False, emoji=False, width=118)


# The plan -------------------------------------------------------------------------------------------------------------


def draw_plan(plan: Plan, to_run: Sequence[Trial]) -> None:
    """Trials by method, task and net with their states, then what is skipped, what would run and the predicted time."""
    table = Table(title=Text(f"{plan.suite}: {len(plan.planned)} trials"), title_justify="left")
    for name in ("kind", "task", "net or case", "method", "role", "device"):
        table.add_column(name)
    for name in ("done", "missing", "failed"):
        table.add_column(name, justify="right")
    groups: dict[tuple[str, ...], dict[str, int]] = {}
    for p in plan.planned:
        states = groups.setdefault(plan_row(p.trial), {})
        states[p.state] = states.get(p.state, 0) + 1
    for key, states in sorted(groups.items()):
        counts = [states.get("done", 0), states.get("missing", 0), states.get("failed", 0) + states.get("unsupported", 0)]
        table.add_row(*(Text(cell) for cell in key), *(str(n) if n else "" for n in counts))
    out = console()
    out.print(table)
    for note in plan.notes:
        out.print(f"skipped: {note.trials} trials: {note.what}; {note.mend}", markup=False)
    predicted = plan.predict(to_run)
    when = (
        "unknown: no earlier records of these trials here" if predicted is None else f"{predicted:.0f} s, one trial at a time"
    )
    out.print(f"{len(to_run)} to run, {plan.count('done')} done; predicted time {when}", markup=False)


def plan_row(trial: Trial) -> tuple[str, ...]:
    net = f"{trial.net['arch']} w{trial.net['width']} d{trial.net['depth']}" if trial.net else ""
    net = case_text(trial.task_params) if trial.kind == "kernel" else net
    if trial.matched:
        share = trial.matched.get("counted", 1.0)
        counted = f", {share:.1%} counted" if share < 1 else ""
        net += f" ({trial.matched['mismatch']:+.1%} {trial.matched['unit']}{counted})"
    return trial.kind, short(trial.task), net, short(trial.method), trial.role, trial.device


# Progress -------------------------------------------------------------------------------------------------------------


@contextmanager
def draw_progress(suite: str, plan: Plan, trials: Sequence[Trial], parallel: int) -> Iterator[Progress]:
    """A live bar where stderr is a terminal, plain lines where it is a file."""
    err = console(err=True)
    if not trials:
        yield Progress()
    elif err.is_terminal:
        with Bar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                 TextColumn("{task.fields[state]}"), console=err) as bar:  # fmt: skip
            yield LiveProgress(bar, suite, plan, trials, parallel)
    else:
        yield PlainProgress(suite, plan, trials, parallel)


class Tally(Progress):
    """Counts, what is running, and the time left from predictions, or from the pace so far."""

    def __init__(self, suite: str, plan: Plan, trials: Sequence[Trial], parallel: int) -> None:
        self.suite, self.total, self.parallel = suite, len(trials), parallel
        self.predicted = {p.trial.trial_id: p.predicted_s for p in plan.planned}
        self.running: dict[str, Trial] = {}
        self.waiting = {t.trial_id for t in trials}
        self.done = self.failed = 0
        self.began = time.monotonic()

    def started(self, trial: Trial) -> None:
        self.running[trial.trial_id] = trial

    def finished(self, attempt: Attempt) -> None:
        self.running.pop(attempt.trial.trial_id, None)
        self.waiting.discard(attempt.trial.trial_id)
        self.done += 1
        self.failed += attempt.outcome.status not in ("ok", "unsupported")

    def left_s(self) -> float | None:
        known = [p for key in self.waiting if (p := self.predicted.get(key)) is not None]
        if self.done >= self.parallel:
            return (time.monotonic() - self.began) / self.done * len(self.waiting)
        return sum(known) / self.parallel if len(known) == len(self.waiting) else None

    def state(self) -> str:
        left = self.left_s()
        ends = f", {left:.0f} s left" if left is not None else ""
        return f"{self.done - self.failed} done, {self.failed} failed, {len(self.running)} running{ends}"


class LiveProgress(Tally):
    def __init__(self, bar: Bar, suite: str, plan: Plan, trials: Sequence[Trial], parallel: int) -> None:
        super().__init__(suite, plan, trials, parallel)
        self.bar = bar
        self.row = bar.add_task(suite, total=self.total, state=self.state())

    def started(self, trial: Trial) -> None:
        super().started(trial)
        self.bar.update(self.row, state=self.state())

    def finished(self, attempt: Attempt) -> None:
        super().finished(attempt)
        if attempt.outcome.status not in ("ok", "unsupported"):
            self.bar.console.print(failure_line(attempt), markup=False)
        self.bar.update(self.row, completed=self.done, state=self.state())


class PlainProgress(Tally):
    def __init__(self, suite: str, plan: Plan, trials: Sequence[Trial], parallel: int) -> None:
        super().__init__(suite, plan, trials, parallel)
        self.said = time.monotonic()
        click.echo(f"{suite}: {self.total} trials, {parallel} at once", err=True)

    def finished(self, attempt: Attempt) -> None:
        super().finished(attempt)
        if attempt.outcome.status not in ("ok", "unsupported"):
            click.echo(failure_line(attempt), err=True)
        if self.done == self.total or time.monotonic() - self.said >= PLAIN_EVERY_S:
            self.said = time.monotonic()
            click.echo(f"{self.suite}: {self.done}/{self.total}: {self.state()}", err=True)


def failure_line(attempt: Attempt) -> str:
    first = attempt.outcome.error.strip().splitlines()[-1] if attempt.outcome.error.strip() else ""
    return f"{attempt.outcome.status}: {attempt.trial.label}: {first} (harness logs {attempt.attempt_id[:16]})"


MARKS = {"baseline": "*", "ablation": "†", "control": "‡", "oracle": "§"}
ARROWS = {"higher": " ↑", "lower": " ↓", "neither": ""}

# Leaderboards ---------------------------------------------------------------------------------------------------------


def draw_leaderboards(boards: Sequence[Board], *, as_json: bool) -> None:
    """One table a board, best first."""
    if as_json:
        click.echo(json.dumps(finite([dataclasses.asdict(b) for b in boards])))
        return
    out = console()
    if not boards:
        out.print("no attempts to rank yet")
    for board in boards:
        table, shown = fitting(board, out)
        out.print(table)
        for line in footnotes(board, shown):
            out.print(line, markup=False)
        out.print()


def fitting(board: Board, out: Console) -> tuple[Table, int]:
    """The table with as many further metrics as fit the width, and how many those are: a cut number is worse than none.

    Where not even the first metric fits, the bars go too: they say in cells what the interval says in digits.
    """
    for shown in range(min(FURTHER_SHOWN, len(board.further)), -1, -1):
        table = draw_board(board, shown)
        if Measurement.get(out, out.options.update(max_width=UNLIMITED), table).maximum <= out.width:
            return table, shown
    return draw_board(board, 0, bars=False), 0


def draw_board(board: Board, shown: int, *, bars: bool = True) -> Table:
    """shown: how many of the further metrics have a column; bars: intervals as a picture, too."""
    table = Table(
        title=board_title(board),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    sized = any(row.params is not None for row in board.rows)
    regions = sorted({region for row in board.rows for region in row.timings})
    further = board.further[:shown]
    headings = [f"{board.metric.name}{ARROWS[board.metric.better]}"]
    headings += [f"- {board.baseline}"] if board.baseline else []
    headings += [m.name + ARROWS[m.better] for m in further] + [f"{r} ms" for r in regions]
    headings += (["params"] if sized else []) + ["solve s", "ok/fail"]
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("method", no_wrap=True)
    if bars:
        table.add_column("95 % interval", no_wrap=True)
    for heading in headings:
        table.add_column(Text(heading), justify="right", no_wrap=True)  # Text: a name is not rich's markup
    low, high = scale(board)
    for rank, row in enumerate(board.rows, 1):
        cells: list[str | Text] = [str(rank) if row.ranked else "", method_cell(row)]
        if bars:
            cells.append(bar(row.interval, low, high))
        cells.append(interval_cell(row.interval))
        if board.baseline:
            cells.append(interval_cell(row.difference, signed=True))
        cells += [number(row.others.get(m.name)) for m in further]
        cells += [timing_cell(row.timings.get(region)) for region in regions]
        if sized:
            cells.append("" if row.params is None else f"{row.params:,}")
        cells += [number(row.solve_s), f"{row.n_ok}/{row.n_failed}"]
        table.add_row(*(Text(c) if isinstance(c, str) else c for c in cells))
    return table


def board_title(board: Board) -> Text:
    shared = board.shared
    net = shared["net"]
    parts = [board.task]
    if net:
        parts.append(" ".join([net["arch"], *(f"{k} {net[k]}" for k in ("width", "depth", "norm") if k in net)]))
    train = shared.get("train") or {}  # a suite may list several, whose boards differ in nothing else
    settings = [word + str(train[k]) for word, k in (("", "optimizer"), ("lr ", "lr"), ("batch ", "batch")) if k in train]
    parts += [" ".join(settings)] if settings else []
    parts.append(", ".join(f"{k} {v:g}" for k, v in (shared["budget"] or {}).items()) or "no budget")
    parts.append(f"{shared['device']} {shared['dtype']} {shared['threads']} thread{'s' if shared['threads'] > 1 else ''}")
    return Text(" | ".join(parts))


def footnotes(board: Board, shown: int) -> list[str]:
    """What a reader must know beside the numbers."""
    lines = (
        [f"± is half the 95 % t interval over seeds; the difference to {board.baseline} is taken seed by seed"]
        if board.baseline
        else []
    )
    roles = [f"{MARKS[role]} {role}" for role in MARKS if any(r.role == role for r in board.rows)]
    if roles:
        lines.append(", ".join(roles) + (" (scored, not ranked)" if any(r.role == "oracle" for r in board.rows) else ""))
    if len(board.further) > shown:
        lines.append(f"not shown: {', '.join(m.name for m in board.further[shown:])} (--json has all)")
    if any(r.n_failed for r in board.rows):
        lines.append("failed attempts count as the metric's declared worst; where none is declared they are left out")
    if any(r.n_unsupported for r in board.rows):
        names = ", ".join(r.method for r in board.rows if r.n_unsupported)
        lines.append(f"unsupported here: {names} (`harness logs` says why)")
    lines += match_lines(board)
    few = max((r.n_ok + r.n_failed for r in board.rows), default=0)
    if few < 5:
        lines.append(f"{few} seed{'s' if few > 1 else ''}: intervals are indicative; --seeds 10 gives better ones")
    return lines


def match_lines(board: Board) -> list[str]:
    """To what, by what and how nearly methods were matched, the farthest first; of FLOPs, how much of the work was counted."""
    alike: dict[str, list[tuple[Row, Mapping[str, Any]]]] = {}
    for row in board.rows:
        if row.match:
            alike.setdefault(f"{short(str(row.match.get('to')))} by {row.match.get('unit')}", []).append((row, row.match))
    lines = []
    for what, found in alike.items():
        found.sort(key=lambda each: -abs(each[0].mismatch or 0.0))
        each = [f"{row.method} {row.mismatch:+.2%}" for row, _ in found if row.mismatch]
        exact = len(found) - len(each)
        each = [*each[:MATCHES_SHOWN], f"{len(each) - MATCHES_SHOWN} nearer"] if len(each) > MATCHES_SHOWN else each
        each += [f"{exact} exactly"] if exact else []
        shares = [match[name] for _, match in found for name in ("counted", "target_counted") if name in match]
        counted = f" ({min(shares):.1%} of the work counted by formulas)" if shares else ""
        lines.append(f"matched to {what}{counted}: {', '.join(each)}")
    return lines


def method_cell(row: Row) -> str:
    return row.method + MARKS.get(row.role, "")


def scale(board: Board) -> tuple[float, float]:
    """The range of a board's interval bars; rows far off (a diverged method) do not squeeze the others."""
    shown = [r.interval for r in board.rows if r.interval and r.n_ok]
    ends = sorted(v for i in shown for v in (i.low if i.low is not None else i.mean, i.high if i.high is not None else i.mean))
    return (ends[0], ends[-1]) if ends else (0.0, 1.0)


def bar(interval: Interval | None, low: float, high: float) -> Text:
    """An interval as ├──●──┤ on the board's common scale."""
    if interval is None or not low < high or not math.isfinite(high - low):
        return Text("")
    if not all(math.isfinite(end) for end in (interval.low, interval.mean, interval.high) if end is not None):
        return Text("")
    cells = [" "] * BAR_CELLS

    def place(value: float) -> int:
        return min(BAR_CELLS - 1, max(0, round((value - low) / (high - low) * (BAR_CELLS - 1))))

    left = place(interval.low if interval.low is not None else interval.mean)
    right = place(interval.high if interval.high is not None else interval.mean)
    for i in range(left, right + 1):
        cells[i] = "─"
    cells[left], cells[right] = "├", "┤"
    cells[place(interval.mean)] = "●"
    return Text("".join(cells))


def interval_cell(interval: Interval | None, *, signed: bool = False) -> str:
    """mean ± half-width, to the digits that the half-width leaves meaning."""
    if interval is None:
        return ""
    return interval_text(interval.mean, interval.low, interval.high, signed=signed)


def timing_cell(medians: tuple[float, ...] | None) -> str:
    """Median of the processes' medians, with their range: what varies between processes is the doubt."""
    if not medians:
        return ""
    middle = sorted(medians)[len(medians) // 2]
    return f"{middle * 1e3:.3g} ({min(medians) * 1e3:.3g}-{max(medians) * 1e3:.3g})"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
