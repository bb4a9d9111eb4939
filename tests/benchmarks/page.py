"""From figures to Markdown: the table that `make bench` prints, and the whole of docs/performance.md."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from harness.provenance import cpu_model, describe_machine
from tests.benchmarks.figures import Figure, Readings

HEAD = ("What", "Median (range)", "Goal", "Met", "Peers, same run")
PROSE = """\
# What the harness itself costs

This page is written by the command at its end; no figure here is typed by hand. It answers one question: how much of a run's
time is the harness, and not the method?

- CPU time is user and system time of the command with all its processes (fork server, workers), as the kernel counts it. On a
  machine shared with others it is steadier than the wall clock, which also counts waiting.
- What is compared runs in turns (A B B A), after one unread round. A figure is the median of {rounds} rounds, with the lowest
  and the highest; a training ratio is that of the medians of all steps, with the quartiles of neighbouring blocks' ratios.
- The cost of one trial is a difference: `harness run -j 1` with {many} trials (digits: {half}) less the same with {few},
  divided by the trials between. Each trial has a process of its own, and its record is flushed to the disk before it counts
  as done. benchopt's runs share one process; it stands there as the peer that people know, in an environment of its own.
- A goal that is missed is said to be missed.
"""


@dataclass(frozen=True)
class Conditions:
    """Where and how the figures were found. few, many, half: trials of a command. load: of 1 minute, before and after."""

    command: str
    rounds: int
    few: int
    many: int
    half: int
    load: tuple[float, float]


def render_table(figures: list[Figure]) -> str:
    """A Markdown table, one row a figure, columns padded so that it reads as text too."""
    rows = [HEAD, *(row_of(f) for f in figures)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def row_of(figure: Figure) -> tuple[str, ...]:
    unit = figure.readings.unit
    goal = "-" if figure.goal is None else f"<= {amount(figure.goal, unit)}"
    met = {None: "-", True: "yes", False: "**no**"}[figure.met]
    peers = [f"{p.name}: {with_range(p.median, p)}" for p in figure.peers] + [f"not measured: {why}" for why in figure.missing]
    return figure.what, with_range(figure.value, figure.readings, figure.center is not None), goal, met, "; ".join(peers) or "-"


def with_range(value: float, readings: Readings, quartiles: bool = False) -> str:
    low, high = min(readings.values), max(readings.values)
    if quartiles:
        low, _, high = statistics.quantiles(readings.values, n=4)
    return f"{amount(value, readings.unit)} ({number(low, readings.unit)} to {number(high, readings.unit)})"


def number(value: float, unit: str) -> str:
    return f"{value:.3f}" if unit in ("s", "ratio") else f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def amount(value: float, unit: str) -> str:
    return number(value, unit) + ("" if unit == "ratio" else f" {unit}")


def render_page(figures: list[Figure], conditions: Conditions) -> str:
    prose = PROSE.format(rounds=conditions.rounds, few=conditions.few, many=conditions.many, half=conditions.half)
    facts = "\n".join(f"- {line}" for line in describe(conditions))
    missed = [f.what for f in figures if f.met is False]
    verdict = (
        f"{sum(f.met is True for f in figures)} of {sum(f.met is not None for f in figures)} goals are met."
        + (f" Missed: {'; '.join(missed)}." if missed else "")
    )  # fmt: skip
    return f"{prose}\n{render_table(figures)}\n\n{verdict}\n\n## Where this was measured\n\n{facts}\n"


def describe(conditions: Conditions) -> list[str]:
    machine = describe_machine(None)
    before, after = conditions.load
    return [
        f"{cpu_model()}, {machine['cores']} cores, {machine['memory_gib']} GiB, {platform.system()} {platform.release()}",
        f"Python {platform.python_version()}, torch {version('torch')}, paper-harness {version('paper-harness')}, {commit()}",
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC; load average {before:.1f} before, {after:.1f} after"
        f" ({'busy: ' if max(before, after) > (os.cpu_count() or 1) else ''}trust the ratios more than the wall times)",
        f"`{conditions.command}`",
    ]


def commit() -> str:
    """The commit of this checkout, and whether there are changes beside it."""
    root = Path(__file__).parents[2]
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "no git checkout"
    return f"commit {head}{' with changes' if changed else ''}"
