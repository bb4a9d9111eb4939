"""From tallies to Markdown: the table that `python -m tests.faults` prints, and the whole of docs/reliability.md."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import psutil

from harness.provenance import cpu_model
from tests.faults.tally import Tally

HEAD = ("Fault", "Tried", "Lost records", "Wrong records", "Left-over processes", "Also counted")
PROSE = """\
# What survives

This page is written by the command at its end; no figure here is typed by hand. Each row is a fault that was really injected,
so many times, at moments drawn from a seed, and judged by something outside the harness: a list of what was acknowledged, a
file into which each trial wrote its own id, a copy of the bytes before they were damaged.

- *Lost*: a record that was acknowledged and is not there afterwards.
- *Wrong*: a record that is there and differs from what was written, is doubled, or was never made; a reader that failed; damage
  that was not found.
- *Left over*: processes that outlived the command.

What is promised, and how it is kept, stands in [registry.md](registry.md); what is trusted, in [SECURITY.md](../SECURITY.md).
A power cut is simulated (every prefix of the disk operations, what was not flushed dropped, halved or reordered); no plug was
pulled.

*Not tried*: a network file system under several hosts; other file systems than those named below; another kernel than Linux; a
GPU that runs out of memory; faults that last for days.
"""


PICTURE = """

![memory and handles of the parent over a long run](reliability-memory.svg)

What grows in the parent is the rows that it has recorded and will fold when the run ends: 1 kB each or more, by what they hold,
and never more than 16 MiB of them."""


def render_table(tallies: Sequence[Tally]) -> str:
    """A Markdown table, columns padded so that it reads as text too."""
    rows = [HEAD, *(row_of(t) for t in tallies)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def row_of(tally: Tally) -> tuple[str, ...]:
    if tally.skipped:
        return tally.fault, "not tried", "-", "-", "-", tally.skipped
    left = "-" if tally.left_over is None else count(tally.left_over)
    notes = "; ".join(tally.notes) or "-"
    return tally.fault, f"{tally.tried:,} {tally.of}", count(tally.lost), count(tally.wrong), left, notes


def count(number: int) -> str:
    """What should be zero and is not stands out."""
    return f"**{number:,}**" if number else "0"


@dataclass(frozen=True)
class Ran:
    """What one part found, and when and of which commit."""

    part: str
    seconds: float
    commit: str
    at: str  # UTC
    full: bool
    tallies: tuple[Tally, ...]


def load_parts(page: Path) -> dict[str, Ran]:
    """What earlier runs found, by part: a page is made of the last run of each. Kept beside it, as JSON."""
    try:
        told = json.loads(page.with_suffix(".json").read_text())
    except FileNotFoundError:
        return {}
    tallies = {one["part"]: [Tally(**{**t, "notes": tuple(t["notes"])}) for t in one["tallies"]] for one in told}
    return {one["part"]: Ran(**{**one, "tallies": tuple(tallies[one["part"]])}) for one in told}


def save_page(page: Path, ran: Sequence[Ran]) -> None:
    """The page, and what it is made of."""
    page.with_suffix(".json").write_text(json.dumps([asdict(one) for one in ran], indent=1) + "\n")
    page.write_text(render_page(ran))


def render_page(ran: Sequence[Ran]) -> str:
    tallies = [t for one in ran for t in one.tallies]
    unclean = [t.fault for t in tallies if not t.clean]
    skipped = [t.fault for t in tallies if t.skipped]
    verdict = f"Not zero: {'; '.join(unclean)}." if unclean else "Nothing was lost, nothing was wrong, nothing was left behind."
    if skipped:
        verdict += f" Not tried here: {'; '.join(skipped)}."
    has_picture = any(one.part == "long-run" for one in ran)
    picture = PICTURE if has_picture else ""
    facts = "\n".join(f"- {line}" for line in describe(ran))
    return f"{PROSE}\n{render_table(tallies)}\n\n{verdict}{picture}\n\n## Where and how\n\n{facts}\n"


def describe(ran: Sequence[Ran]) -> list[str]:
    return [
        f"{cpu_model()}, {os.cpu_count()} cores, Linux {platform.release()}",
        f"{file_system(Path(__file__))}; tmpfs where a disk is to be full or read-only",
        f"Python {platform.python_version()}, duckdb {version('duckdb')}, pyarrow {version('pyarrow')}",
        *(
            f"{one.part}: {'' if one.full else 'a quick look, '}{one.seconds:.0f} s, commit {one.commit}, {one.at} UTC"
            for one in ran
        ),
        "`python -m tests.faults --write docs/reliability.md` makes this page; with `--only PART` the other rows stay as they "
        "were; it exits 1 where a count is not zero",
    ]


def file_system(path: Path) -> str:
    """Its type, of the mount that holds this path."""
    mounts = [p for p in psutil.disk_partitions(all=True) if path.resolve().is_relative_to(p.mountpoint)]
    return max(mounts, key=lambda mount: len(mount.mountpoint)).fstype if mounts else "unknown file system"


def commit_here() -> str:
    """Short; with a plus where the tree holds changes."""
    root = Path(__file__).parents[2]
    commit, changes = (
        subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True).stdout.strip()
        for arguments in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
    )
    return (commit or "?") + ("+" if changes else "")


def now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M")
