"""All instruments that need no new measurement over all histories of a machine: `judge` reads a registry, gives `Verdicts`.

A regression is *confirmed* where the history shows a step that still holds, *suspected* where only the last night is worse,
*broken* where what ended well before now fails. What is suspected names the command that would settle it.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from harness.exporting.points import NIGHT_NOISE
from harness.identity import canonical
from harness.provenance import machine_id
from harness.regress.history import LEAST_POINTS, THRESHOLD, available, find_step, lower_is_better
from harness.regress.nightly import LEAST_NIGHTS, LEVEL, WINDOW_NIGHTS, Night, holm, judge_night, seeds_p
from harness.regress.points import Aspect, History, Point, paired_by_seed, read_histories
from harness.showing import finite, one_line, visible

if TYPE_CHECKING:
    from harness.registry import Registry

State = Literal["broken", "confirmed", "suspected"]
STATES: tuple[State, ...] = ("broken", "confirmed", "suspected")
COMMIT = re.compile(r"[0-9a-f]{7,64}")
MAX_ERROR = 200  # characters


@dataclass(frozen=True)
class Practice:
    """effect: the least relative change for the worse that anybody should be woken for. noise_floor: relative standard
    deviation of one night that is assumed where the machine's own has not been measured."""

    effect: float
    noise_floor: float


PRACTICES: Mapping[Aspect, Practice] = {
    "time": Practice(effect=0.02, noise_floor=NIGHT_NOISE),
    "memory": Practice(effect=0.02, noise_floor=0.005),
    "quality": Practice(effect=0.005, noise_floor=0.0025),
    "error": Practice(effect=1.0, noise_floor=0.1),  # a kernel's rounding errors: twice as large
}


@dataclass(frozen=True)
class Rules:
    """level: of all series together, see nightly.LEVEL. current: a history that ends longer before the newest night is no
    longer measured, and is not judged. floors: the machine's own noise of times, by (device, threads); PRACTICES where there
    is none."""

    level: float = LEVEL
    window: int = WINDOW_NIGHTS
    threshold: float = THRESHOLD
    current: timedelta = timedelta(days=2)
    practices: Mapping[Aspect, Practice] = field(default_factory=lambda: dict(PRACTICES))
    floors: Mapping[tuple[str, int], float] = field(default_factory=dict)

    def noise_floor(self, history: History) -> float:
        aspect = history.reading.aspect
        measured = self.floors.get((history.alike["device"], history.alike["threads"])) if aspect == "time" else None
        return self.practices[aspect].noise_floor if measured is None else measured

    def effect(self, history: History) -> float:
        return self.practices[history.reading.aspect].effect


@dataclass(frozen=True)
class Regression:
    """One series that became worse. before, after: in the reading's unit; at, last_good: the nights on each side of it.

    instruments: which say so: "history", "night", "status". p: adjusted for all series, of the night's rule; None without it.
    settle, accept: commands, "" where there is none.
    """

    state: State
    history: History
    instruments: tuple[str, ...]
    before: float
    after: float
    at: Point
    last_good: Point
    p: float | None
    error: str = ""
    settle: str = ""
    accept: str = ""

    @property
    def ratio(self) -> float | None:
        return self.after / self.before if self.before else None


@dataclass(frozen=True)
class Verdicts:
    """What is worse on one machine. judged: series that any instrument could judge; young: those with too few nights yet;
    stopped: those that the newest nights no longer measure. nights: of the longest history. notes: what was not looked at."""

    regressions: tuple[Regression, ...]
    machine: str
    judged: int
    young: int
    stopped: int
    nights: int
    notes: tuple[str, ...] = ()

    @property
    def regressed(self) -> bool:
        return bool(self.regressions)

    def lines(self) -> list[str]:
        """For people, the verdict first."""
        return [self.verdict, *table_of(self.regressions), *advice_of(self.regressions), *self.notes]

    @property
    def verdict(self) -> str:
        counts = [(sum(r.state == state for r in self.regressions), state) for state in STATES]
        told = ", ".join(f"{n} {state}" for n, state in counts if n)
        verdict = f"{len(self.regressions)} of {self.judged} series regressed ({told})" if told else "nothing regressed"
        rest = [] if told else [f"{self.judged} series judged"]
        rest += [f"{self.young} with fewer than {LEAST_NIGHTS + 1} nights not judged"] if self.young else []
        rest += [f"{self.stopped} no longer measured"] if self.stopped else []
        return one_line(f"{verdict}: " + "; ".join([*rest, f"up to {self.nights} nights of machine {self.machine}"]))

    def to_json(self) -> dict[str, Any]:
        """Strict JSON, one object."""
        rows = [row_of(r) for r in self.regressions]
        counts = {name: getattr(self, name) for name in ("machine", "judged", "young", "stopped", "nights")}
        made: dict[str, Any] = finite({"regressed": self.regressed, **counts, "notes": list(self.notes), "regressions": rows})
        return made


def judge(
    registry: Registry, suites: Sequence[str] = (), machine: str | None = None, since: datetime | None = None,
    rules: Rules | None = None,
) -> Verdicts:  # fmt: skip
    """Every current history of these suites (of all, where none is named) on one machine: this one, unless named.

    rules: the standard ones unless given, with the noise floors that `harness machine check` measured on that machine.
    """
    machine = machine or machine_id()
    rules = rules or Rules(floors=measured_floors(registry, machine))
    return judge_histories(read_histories(registry, suites, machine, since), machine, rules, str(registry.path))


def measured_floors(registry: Registry, machine: str) -> dict[tuple[str, int], float]:
    """(device, threads) -> relative standard deviation of a median that nothing has changed, by the latest check."""
    from harness.kernels.ceilings import latest_checks, noise_floor

    oldest_first = reversed(latest_checks(registry.facts(), machine))
    return {(check.device, check.threads): floor for check in oldest_first if (floor := noise_floor(check)) is not None}


def judge_histories(histories: Sequence[History], machine: str, rules: Rules, registry: str = "") -> Verdicts:
    """registry: its path, for the commands that are named."""
    newest = max((h.points[-1].at for h in histories), default=None)
    # The night in which something breaks adds no point to its history.
    current = [h for h in histories if h.broken or (newest and h.points[-1].at >= newest - rules.current)]
    broken = {series_of(h): h for h in reversed(current) if h.broken}  # one a series, whatever is watched of it
    judged = [h for h in current if series_of(h) not in broken and len(h.points) > LEAST_NIGHTS]
    nights = [night_of(h, rules) for h in judged]
    adjusted = holm([night.p for night in nights])
    found = [
        made(h, "broken", ("status",), h.values[-1], math.nan, h.points[-1], h.points[-1], registry) for h in broken.values()
    ]
    for history, night, p in zip(judged, nights, adjusted, strict=True):
        regression = regression_of(history, night, p, len(judged), rules, registry)
        found += [regression] if regression else []
    found.sort(key=lambda r: (STATES.index(r.state), -severity(r)))
    young = sum(series_of(h) not in broken for h in current) - len(judged)
    longest = max((len(h.points) for h in current), default=0)
    stopped = len(histories) - len(current)
    return Verdicts(tuple(found), machine, len(judged) + len(broken), young, stopped, longest, notes_of(judged))


def series_of(history: History) -> str:
    return canonical(dict(history.alike))


def severity(regression: Regression) -> float:
    ratio = regression.ratio
    return abs(math.log(ratio)) if ratio and ratio > 0 and math.isfinite(ratio) else math.inf


def notes_of(judged: Sequence[History]) -> tuple[str, ...]:
    if judged and not available():
        return ("the long history was not judged: asv is not installed (pip install 'asv>=0.6.4')",)
    return ()


# One history ----------------------------------------------------------------------------------------------------------


def night_of(history: History, rules: Rules) -> Night:
    """What the rule of the night says of more than LEAST_NIGHTS points; quality seed by seed."""
    reading, floor = history.reading, rules.noise_floor(history)
    if reading.aspect != "quality":
        return judge_night(history.values, reading.better, floor, rules.window)
    points, seeds = paired_by_seed(history.points[-rules.window - 1 :])
    by_seed = [[point.by_seed[seed] for seed in seeds] for point in points]
    means = [sum(row) / len(row) for row in by_seed]
    return judge_night(means, reading.better, 0.0 if len(seeds) > 1 else floor, rules.window, by_seed)


def regression_of(history: History, night: Night, p: float, family: int, rules: Rules, registry: str) -> Regression | None:
    """The history's word first: it names the commit; the night adds its p."""
    by_night = p <= rules.level and night.change >= rules.effect(history)
    step = step_of(history, family, rules)
    if step is not None:
        last_good, at, old, new = step
        instruments = ("history", "night") if by_night else ("history",)
        return made(history, "confirmed", instruments, old, new, at, last_good, registry, p if by_night else None)
    if not by_night:
        return None
    last_good, at = history.points[-2:]
    return made(history, "suspected", ("night",), night.before, at.value, at, last_good, registry, p)


def step_of(history: History, family: int, rules: Rules) -> tuple[Point, Point, float, float] | None:
    """The last good night, the first bad one, the levels; None where no step is large enough, or the seeds do not say it."""
    points = history.points
    seeds: list[int] = []
    if history.reading.aspect == "quality":
        kept, seeds = paired_by_seed(points)
        points = tuple(kept)
        values = lower_is_better([sum(p.by_seed[s] for s in seeds) / len(seeds) for p in points], history.reading.better)
    else:
        values = lower_is_better(history.values, history.reading.better)
    if values is None or len(values) < LEAST_POINTS or not available():
        return None
    step = find_step(values, rules.threshold)
    if step is None:
        return None
    before, after = (points[start:end] for start, end in step.levels)
    old, new = median(p.value for p in before), median(p.value for p in after)
    worse = -1.0 if history.reading.better == "higher" else 1.0
    if old and worse * (new - old) / abs(old) < rules.effect(history):
        return None
    differences = [worse * (median(p.by_seed[s] for p in after) - median(p.by_seed[s] for p in before)) for s in seeds]
    if seeds and seeds_p(differences) > rules.level / max(1, family):
        return None
    return points[step.before], points[step.at], old, new


def made(
    history: History, state: State, instruments: tuple[str, ...], before: float, after: float, at: Point, last_good: Point,
    registry: str, p: float | None = None,
) -> Regression:  # fmt: skip
    """With its commands."""
    settle = settling_command(history, last_good, at, registry) if state == "suspected" else ""
    accept = accepting_command(at, registry) if state != "broken" else ""
    return Regression(state, history, instruments, before, after, at, last_good, p, history.broken[:MAX_ERROR], settle, accept)


# What to do about it --------------------------------------------------------------------------------------------------


def settling_command(history: History, good: Point, bad: Point, registry: str) -> str:
    """Kernels: the interleaved instrument on the two commits. Else, or within one commit: another night."""
    alike = history.alike
    two = COMMIT.fullmatch(good.commit) and COMMIT.fullmatch(bad.commit) and good.commit != bad.commit
    if alike["kind"] != "kernel" or not two or history.reading.aspect != "time":
        method = str(alike["method"]).split("/", 1)[-1]
        return joined(["harness", "run", history.suite, "--force", "--method", method, *at_registry(registry)])
    kernel, _, implementation = str(alike["method"]).rpartition("/")
    words = ["harness", "regress", "--interleaved", f"{good.commit[:12]}..{bad.commit[:12]}",
             "--kernel", kernel.rpartition("/")[2], "--implementation", implementation]  # fmt: skip
    case = alike["task_params"] if isinstance(alike["task_params"], Mapping) else {}
    for name, value in case.items():
        words += [f"--{name}", str(value)] if name in ("elements", "layout") else ["--param", f"{name}={value}"]
    region = history.reading.quantity.removesuffix("_cold")
    defaults = {"dtype": "float32", "device": "cpu", "threads": 1}
    for name, default in defaults.items():
        words += [] if alike[name] == default else [f"--{name}", str(alike[name])]
    return joined([*words, "--region", region])


def accepting_command(bad: Point, registry: str) -> str:
    return joined(["harness", "annotate", bad.attempt_id, "--expected", "WHY", *at_registry(registry)])


def at_registry(path: str) -> list[str]:
    return ["--registry", path] if path else []


def joined(words: Sequence[str]) -> str:
    return one_line(" ".join(shlex.quote(word) for word in words))


# For people and for machines ------------------------------------------------------------------------------------------


def table_of(regressions: Sequence[Regression]) -> list[str]:
    rows = [cells_of(r) for r in regressions]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def cells_of(r: Regression) -> list[str]:
    unit = r.history.reading.unit
    if r.state == "broken":
        return [r.state, one_line(label_of(r)), "", "", one_line(f"after {place_of(r.at)}"), one_line(r.error)]
    ratio = f"x{r.ratio:.3f}" if r.ratio is not None else ""
    said = f"by {' and '.join(r.instruments)}" + (f", p {r.p:.1e}" if r.p is not None else "")
    levels = f"{amount(r.before, unit)} -> {amount(r.after, unit)}"
    return [r.state, one_line(label_of(r)), levels, ratio, one_line(f"at {place_of(r.at)}"), said]


def label_of(r: Regression) -> str:
    return r.history.label.rsplit(" ", 1)[0] if r.state == "broken" else r.history.label


def place_of(point: Point) -> str:
    """The commit and the night: "3f2a19b0 (2026-09-01)"."""
    commit = point.commit[:8] + ("+" if point.dirty else "") if point.commit else "no commit"
    return f"{commit} ({point.at:%Y-%m-%d})"


def amount(value: float, unit: str) -> str:
    """Three digits with the unit that suits them: 1.15 ms, 24.1 MB, 0.97."""
    if unit == "s" and value > 0:
        rounded = float(f"{value:.3g}")
        factor, name = next(((f, n) for f, n in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")) if rounded >= f), (1e-9, "ns"))
        return f"{value / factor:.3g} {name}"
    if unit == "B" and abs(value) >= 1e6:
        return f"{value / 1e6:.4g} MB"
    return f"{value:.4g}" + (f" {one_line(unit)}" if unit not in ("1", "share", "") else "")


def advice_of(regressions: Sequence[Regression]) -> list[str]:
    """The commands: each once, those that settle first."""
    settle = dict.fromkeys(r.settle for r in regressions if r.settle)
    accept = dict.fromkeys(r.accept for r in regressions if r.accept)
    lines = [f"to settle: {command}" for command in settle]
    return lines + [f"if it was meant: {command}" for command in accept]


def row_of(r: Regression) -> dict[str, Any]:
    def point(p: Point) -> dict[str, Any]:
        return {"commit": p.commit, "dirty": p.dirty, "at": p.at.isoformat(), "attempt": p.attempt_id}

    return {
        "state": r.state, "instruments": list(r.instruments), "label": visible(r.history.label), "suite": r.history.suite,
        **asdict(r.history.reading), **{k: v for k, v in r.history.alike.items() if k not in ("track", "tuning", "root_seed")},
        "before": r.before, "after": r.after, "ratio": r.ratio, "p": r.p, "at": point(r.at), "last_good": point(r.last_good),
        "error": r.error, "settle": r.settle, "accept": r.accept,
    }  # fmt: skip
