"""Plans and progress, drawn with rich. Plans go to stdout, progress to stderr."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from harness.cli.options import short
from harness.cli.tables import console
from harness.records import case_text
from harness.run import Progress

if TYPE_CHECKING:  # a plan brings the models of the suite with it: a tenth of a second that a leaderboard does not need
    from harness.plan import Plan
    from harness.records import Attempt, Trial

PLAIN_EVERY_S = 10.0


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
    if plan.waiting:
        out.print(f"{len(plan.waiting)} more trials wait for what tuning chooses; `harness run` makes both", markup=False)
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
