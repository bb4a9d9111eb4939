"""One night: parts that run one after another, their exit codes as one, and a summary in Markdown. Prints nothing.

A part that fails does not stop the others; Ctrl-C does, and what is finished stays. What a record or an error says is shown
in code spans, so that no name of a plugin is a link, a heading or an @mention in somebody's chat.
"""

from __future__ import annotations

import re
import shlex
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from harness.errors import HarnessError
from harness.exporting.pytest_benchmark.outgoing import case_of
from harness.records import FAILURES, Provenance
from harness.registry import Registry
from harness.showing import one_line

# The worst first: a fault of ours, an interrupt, something missing, a gate, a mistake, nothing selected, failed trials.
WORST_FIRST = (70, 130, 5, 3, 2, 4, 1, 0)
FAULT, INTERRUPTED, GATE = 70, 130, 3
SIGNALLED = 128  # codes above it: ended by a signal, as good as interrupted
MAX_FAILURES = 20
MAX_LINES = 60  # of a part
MAX_SHOWN = 200  # characters of an error


@dataclass(frozen=True)
class Ended:
    """How a part ended: exit code, what it says to people, the traceback of a fault."""

    code: int
    lines: tuple[str, ...] = ()
    trace: str = ""


@dataclass(frozen=True)
class Part:
    """One part of the night. ended None: not run, because the night was stopped before."""

    name: str
    ended: Ended | None
    seconds: float


@dataclass(frozen=True)
class Failure:
    """A trial whose attempt of this night did not end well. error: its last line."""

    label: str
    status: str
    error: str
    attempt_id: str


@dataclass(frozen=True)
class SuiteNight:
    """What a suite's attempts of this night came to. counts: by status. seconds: of the trials, one after another."""

    suite: str
    counts: Mapping[str, int]
    failures: tuple[Failure, ...]
    seconds: float
    torch_version: str

    @property
    def failed(self) -> int:
        return sum(self.counts.get(status, 0) for status in FAILURES)


@dataclass(frozen=True)
class Night:
    """All that the summary says. where: of the first suite that ran; None where none did. command: what makes it again."""

    began_at: datetime
    seconds: float
    parts: tuple[Part, ...]
    suites: tuple[SuiteNight, ...]
    where: Provenance | None
    command: tuple[str, ...]

    @property
    def code(self) -> int:
        return worst(part.ended.code for part in self.parts if part.ended is not None)

    @property
    def regressed(self) -> bool:
        return any(part.name == REGRESS and part.ended is not None and part.ended.code == GATE for part in self.parts)


Step = tuple[str, Callable[[], Ended]]
REGRESS = "regress"


def run_steps(
    steps: Iterable[Step], clock: Callable[[], float] = time.monotonic, tell: Callable[[str], None] = lambda name: None
) -> tuple[Part, ...]:
    """Run each, also where one before it failed; after an interrupt none. tell: called with the name of each that starts."""
    parts: list[Part] = []
    for name, step in steps:
        if any(part.ended is not None and is_interrupt(part.ended.code) for part in parts):
            parts.append(Part(name, None, 0.0))
            continue
        began = clock()
        tell(name)
        ended = run_step(step)
        parts.append(Part(name, ended, clock() - began))
    return tuple(parts)


def run_step(step: Callable[[], Ended]) -> Ended:
    """What it returns, or what its exception means."""
    try:
        return step()
    except KeyboardInterrupt:
        return Ended(INTERRUPTED, ("stopped",))
    except SystemExit as exc:
        return Ended(exc.code if isinstance(exc.code, int) else 0 if exc.code is None else 1)
    except HarnessError as exc:
        return Ended(exc.exit_code, tuple(str(exc).splitlines()))
    except Exception as exc:  # nobody watches a night: a fault in one part must not take the others' results away
        return Ended(FAULT, (f"a fault of harness: {type(exc).__name__}: {exc}",), traceback.format_exc())


def is_interrupt(code: int) -> bool:
    return code > SIGNALLED


def worst(codes: Iterable[int]) -> int:
    """The one of all that a scheduler has to know first; a code that nobody declared counts as a fault."""
    return min(codes, key=rank, default=0)


def rank(code: int) -> int:
    if is_interrupt(code):
        return WORST_FIRST.index(INTERRUPTED)
    return WORST_FIRST.index(code) if code in WORST_FIRST else WORST_FIRST.index(FAULT)


# What was recorded ----------------------------------------------------------------------------------------------------

ATTEMPTS = """
    SELECT attempt_id, method, task, task_params, kind, device, seed, status, error, wall_s, torch_version
    FROM attempts WHERE invocation = $invocation ORDER BY attempt_id
"""


def read_suite(registry: Registry, where: Provenance) -> SuiteNight:
    """The attempts of one invocation. Raises HarnessError."""
    rows = registry.query(ATTEMPTS, {"invocation": where.invocation}).to_pylist()
    return SuiteNight(
        suite=where.suite,
        counts=dict(Counter(row["status"] for row in rows)),
        failures=tuple(failure_of(row) for row in rows if row["status"] in FAILURES),
        seconds=sum(row["wall_s"] or 0.0 for row in rows),
        torch_version=", ".join(sorted({row["torch_version"] for row in rows})),
    )


def failure_of(row: Mapping[str, Any]) -> Failure:
    case = f"[{case_of(row)}]" if row["kind"] == "kernel" else ""
    method, task = (str(row[name]).rpartition("/")[2] for name in ("method", "task"))
    number = f"seed {row['seed']}" if row["kind"] == "quality" else f"{row['kind']} {row['seed']}"
    label = " ".join(word for word in (method, "on", task, case, str(row["device"]), number) if word)
    error = (row["error"] or "").strip().splitlines()
    return Failure(label, row["status"], error[-1] if error else "", row["attempt_id"])


# The summary ----------------------------------------------------------------------------------------------------------


def render(night: Night) -> str:
    """Markdown for a chat or an issue: the verdict first, then what to look at, then what to do."""
    blocks = [
        f"# Night of {night.began_at:%Y-%m-%d}: {headline(night)} (exit {night.code})",
        suite_table(night.suites),
        failure_list(night),
        *(part_block(part) for part in night.parts if part.ended is None or part.ended.lines),
        where_line(night),
        reproduce(night),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def headline(night: Night) -> str:
    trials = sum(sum(suite.counts.values()) for suite in night.suites)
    failed = sum(suite.failed for suite in night.suites)
    stopped = [part for part in night.parts if part.ended is None or is_interrupt(part.ended.code)]
    broken = [part.name for part in night.parts if part.ended is not None and part.ended.code in (FAULT, 2, 4, 5)]
    closed = [p.name for p in night.parts if p.name != REGRESS and p.ended is not None and p.ended.code == GATE]
    words = ["regressed"] if night.regressed else []
    words += [f"{failed} of {trials} trials failed"] if failed else []
    words += [f"{', '.join(map(code_span, broken))} went wrong"] if broken else []
    words += [f"the gate of {', '.join(map(code_span, closed))} closed"] if closed else []
    words += ["stopped before its end"] if stopped else []
    return "; ".join(words) or f"all well, {trials} trials"


def suite_table(suites: Sequence[SuiteNight]) -> str:
    if not suites:
        return "No suite has run."
    lines = ["| suite | ok | failed | unsupported | interrupted | seconds in trials |", "|---|---:|---:|---:|---:|---:|"]
    for s in suites:
        counts = (s.counts.get("ok", 0), s.failed, s.counts.get("unsupported", 0), s.counts.get("interrupted", 0))
        lines.append(f"| {code_span(s.suite)} | {' | '.join(map(str, counts))} | {s.seconds:.0f} |".replace("\\|", "&#124;"))
    return "\n".join(lines)


def failure_list(night: Night) -> str:
    failures = [failure for suite in night.suites for failure in suite.failures]
    if not failures:
        return ""
    lines = ["## Failed trials", ""]
    for failure in failures[:MAX_FAILURES]:
        logs = code_span(f"harness logs {failure.attempt_id[:16]}{registry_words(night)}")
        lines.append(f"- {code_span(failure.label)}: {code_span(failure.status)}: {code_span(failure.error)} ({logs})")
    if len(failures) > MAX_FAILURES:
        lines.append(f"- and {len(failures) - MAX_FAILURES} more (`harness status --failed`)")
    return "\n".join(lines)


def registry_words(night: Night) -> str:
    """` --registry R`, as the night's own command has it."""
    given = list(night.command)
    at = given.index("--registry") if "--registry" in given else None
    return "" if at is None else f" {shlex.join(given[at : at + 2])}"


def part_block(part: Part) -> str:
    heading = f"## {part.name}"
    if part.ended is None:
        return f"{heading}\n\nNot run: the night was stopped before."
    ended = f" (exit {part.ended.code}, {part.seconds:.0f} s)"
    return f"{heading}{ended}\n\n{fenced(part.ended.lines)}"


def where_line(night: Night) -> str:
    """Machine, torch, commit, time: what the next night has to agree in."""
    when = f"Began {night.began_at:%Y-%m-%d %H:%M} UTC, took {night.seconds / 60:.1f} min"
    if night.where is None:
        return f"{when}."
    torch = ", ".join(sorted({suite.torch_version for suite in night.suites if suite.torch_version}))
    commit = night.where.git_commit[:12] or "-"
    dirty = " (with uncommitted changes)" if night.where.git_dirty else ""
    return (
        f"{when}. Machine {code_span(night.where.machine)}, host {code_span(night.where.host)}, torch {code_span(torch)}, "
        f"commit {code_span(commit)}{dirty}."
    )


def reproduce(night: Night) -> str:
    commit = night.where.git_commit if night.where is not None else ""
    lines = [f"git checkout {commit}"] if commit else []
    return "## To run it again\n\n" + fenced((*lines, shlex.join(night.command)))


def code_span(text: str) -> str:
    """Foreign text on one line, cut where it is long, that no Markdown can leave."""
    shown = one_line(text)
    shown = shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}…"
    return "`" + (shown.replace("`", "'").replace("|", "\\|").strip() or "-") + "`"


def fenced(lines: Sequence[str]) -> str:
    """The lines as they stand, in a fence that none of them can close."""
    kept = [one_line(line) if line else "" for line in lines[:MAX_LINES]]
    kept += [f"... and {len(lines) - MAX_LINES} more lines"] if len(lines) > MAX_LINES else []
    longest = max((len(run) for line in kept for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([fence, *kept, fence])
