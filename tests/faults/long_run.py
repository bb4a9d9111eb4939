"""Thousands of trivial trials in one `harness run`, a tenth of them with a fault; memory and handles watched from outside."""

from __future__ import annotations

import contextlib
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.faults.stage import Running, Stage, open_stage
from tests.faults.tally import Tally

SAMPLE_S = 0.5
FAULTY_SHARE = 0.1
GROWTH_BYTES = 10 << 20  # of the parent's own memory, over as many trials again at the pace of the run's second half
SLOPE_FROM = 500  # trials: in a shorter run most of what grows is libraries that warm up
TIMEOUT_S = 6  # short for the trials that hang, long for those that do not, on a machine that is busy
PICTURE = "reliability-memory.svg"
PARENT, SERVER = "#3b8fd4", "#d9822b"  # readable on white and on black, and told apart by colour-blind readers
INK = "#808080"

# What a trial does -> how its record must say that it ended: status, limit, exit code, signal.
FAULTS: dict[str, tuple[str, str, int | None, int | None]] = {
    "raises": ("failed", "", 0, None),
    "exits": ("failed", "", 7, None),
    "kills_itself": ("failed", "", None, 9),
    "hangs": ("timeout", "timeout", None, 9),
    "asks_for_too_much": ("oom", "rlimit_data", 0, None),
    "leaves_children": ("ok", "", 0, None),
    "returns_nan": ("diverged", "", 0, None),
}
HEALTHY = ("ok", "", 0, None)


@dataclass(frozen=True)
class Sample:
    """One look at the running command. Bytes and counts; recorded: trials that progress was told of by then.

    parent_bytes: what only the parent has (its USS). server_bytes: what the server has written to memory, be it shared with
    workers that are forks of it or not: its USS would leap at each fork.
    """

    at_s: float
    recorded: int
    parent_bytes: int
    parent_rss: int
    parent_descriptors: int
    parent_threads: int
    server_bytes: int
    server_rss: int
    server_descriptors: int
    children: int  # of parent and server, theirs too
    zombies: int
    unfinished_files: int  # in the registry's tmp
    start_markers: int
    scratch_folders: int


def campaign(folder: Path, times: int, seed: int, pictures: Path | None) -> list[Tally]:
    """One run of so many trials. Leaves reliability-memory.svg in `pictures`."""
    faults = draw_faults(times, random.Random(f"{seed}/long-run"))
    with open_stage(folder, times, timeout=f"{TIMEOUT_S}s") as stage:
        stage.plan(faults, nap_s=0.0)
        running = stage.start()
        samples = watch(running)
        end = running.ended()
        left = len(stage.left_over())
        lost, wrong = account(stage, faults)
        wrong += [f"scratch folder left: {name}" for name in stage.scratch_folders()]
        if end.code != 1:
            wrong.append(f"exit code {end.code}, not 1: {end.err[-300:]}")
    broken = [bound.broken for bound in bounds(samples) if bound.broken]
    if pictures is not None:
        (pictures / PICTURE).write_text(draw_svg(samples))
    kinds = ", ".join(f"{number} {name}" for name, number in sorted(Counter(faults.values()).items()))
    run = f"{times:,} trials in one run, faults in a tenth of them"
    return [
        Tally(run, times, "trials", len(lost), len(wrong), left, (kinds, *lost[:3], *wrong[:3])),
        Tally(
            "memory, handles and processes of that run", len(samples), "looks", 0, len(broken), left,
            tuple(bound.said for bound in bounds(samples)),
        ),
    ]  # fmt: skip


def draw_faults(times: int, rng: random.Random) -> dict[int, str]:
    """A tenth of the seeds, each with one of the faults, all about equally often."""
    seeds = rng.sample(range(times), round(times * FAULTY_SHARE))
    names = list(FAULTS)
    return {seed: names[number % len(names)] for number, seed in enumerate(seeds)}


# Watching ---------------------------------------------------------------------------------------------------------------


def watch(running: Running) -> list[Sample]:
    """A look every half second, from the first trial until all are recorded or the command has ended."""
    running.reach(1)
    found, parent, told = [], psutil.Process(running.process.pid), running.stage.folder / "told"
    server = psutil.Process(running.server() or parent.pid)
    while running.process.poll() is None:
        recorded = told.read_bytes().count(b"\n") if told.exists() else 0
        if recorded >= running.stage.seeds:
            break  # what follows is the leaderboard
        with contextlib.suppress(psutil.Error):  # it ended while we looked
            found.append(look(running.stage, parent, server, recorded))
        time.sleep(SAMPLE_S)
    return found


def look(stage: Stage, parent: psutil.Process, server: psutil.Process, recorded: int) -> Sample:
    below = parent.children(recursive=True)
    ours, theirs = parent.memory_full_info(), server.memory_info()
    return Sample(
        at_s=time.monotonic(),
        recorded=recorded,
        parent_bytes=ours.uss,
        parent_rss=ours.rss,
        parent_descriptors=parent.num_fds(),
        parent_threads=parent.num_threads(),
        server_bytes=theirs.rss - theirs.shared,
        server_rss=theirs.rss,
        server_descriptors=server.num_fds(),
        children=len(below),
        zombies=sum(is_zombie(process) for process in below),
        unfinished_files=count(stage.registry / "tmp"),
        start_markers=count(stage.registry / "started"),
        scratch_folders=sum(count(path) for path in (stage.folder / "tmp").glob("harness-*")),
    )


def is_zombie(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    return False


def count(folder: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return sum(1 for _ in folder.iterdir())
    return 0


# What must hold ---------------------------------------------------------------------------------------------------------


def account(stage: Stage, faults: dict[int, str]) -> tuple[list[str], list[str]]:
    """What is not recorded, and what is recorded otherwise than it happened: every seed once, ended as was planned."""
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in stage.rows():
        rows.setdefault(row["seed"], []).append(row)
    there = {row["attempt_id"] for found in rows.values() for row in found}
    lost = [f"seed {seed} is not recorded" for seed in sorted(set(range(stage.seeds)) - rows.keys())]
    lost += [f"seed {t['seed']} was told of and is not recorded" for t in stage.told() if t["attempt_id"] not in there]
    wrong = [f"seed {seed} is recorded {len(found)} times" for seed, found in rows.items() if len(found) > 1]
    for seed, found in rows.items():
        row, expected = found[0], FAULTS.get(faults.get(seed, ""), HEALTHY)
        said = (row["status"], row["limit_fired"], row["exit_code"], row["signal"])
        if said != expected:
            wrong.append(f"seed {seed}: {faults.get(seed, 'healthy')} is recorded as {said}: {row['error'][:80]}")
    return lost, wrong


@dataclass(frozen=True)
class Bound:
    """A figure for people, and what is wrong with it, if anything."""

    said: str
    broken: str = ""


def bounds(samples: Sequence[Sample]) -> list[Bound]:
    """Memory that does not grow, and as many handles, threads and files at the end as at the beginning."""
    if len(samples) < 4:
        return [Bound("too few looks", f"{len(samples)} looks are too few to judge by")]
    growth = growth_of(samples, lambda s: s.parent_bytes)
    server = growth_of(samples, lambda s: s.server_bytes)
    long = samples[-1].recorded >= SLOPE_FROM
    told = [
        Bound(
            f"parent {samples[-1].parent_bytes / 1e6:.0f} MB of its own, growing by {growth / 1e6:+.1f} MB a run",
            f"the parent grows by {growth / 1e6:.1f} MB a run" if long and growth > GROWTH_BYTES else "",
        ),
        Bound(
            f"server {samples[-1].server_bytes / 1e6:.0f} MB, {server / 1e6:+.1f} MB a run",
            f"the server grows by {server / 1e6:.1f} MB a run" if long and server > GROWTH_BYTES else "",
        ),
    ]
    warm, few = len(samples) // 5, max(2, len(samples) // 10)  # by then libraries have started the threads that they keep
    for name in ("parent_descriptors", "parent_threads", "server_descriptors", "children", "zombies", "unfinished_files",
                 "start_markers", "scratch_folders"):  # fmt: skip
        # The least of several looks: a trial that runs at the moment has files and processes of its own.
        before, after = (min(getattr(s, name) for s in part) for part in (samples[warm : warm + few], samples[-few:]))
        what = name.replace("_", " ")
        more = after > before and (long or name != "parent_threads")
        told.append(Bound(f"{what} {before} and {after}", f"{what}: {before}, then {after}" if more else ""))
    return told


def growth_of(samples: Sequence[Sample], of: Callable[[Sample], int]) -> float:
    """Bytes by which the whole run would grow at the pace of its second half, by least squares over trials."""
    half = [s for s in samples if 2 * s.recorded >= samples[-1].recorded]
    if len({s.recorded for s in half}) < 2:
        return 0.0
    slope = statistics.linear_regression([s.recorded for s in half], [of(s) for s in half]).slope
    return slope * samples[-1].recorded


# The picture ------------------------------------------------------------------------------------------------------------


def draw_svg(samples: Sequence[Sample]) -> str:
    """Memory and open descriptors of parent and server over the trials of the run."""
    import altair
    import vl_convert

    points = [
        {"trials": s.recorded, "process": process, "memory": getattr(s, f"{who}_bytes") / 1e6,
         "descriptors": getattr(s, f"{who}_descriptors")}
        for s in samples
        for process, who in (("parent", "parent"), ("fork server", "server"))
    ]  # fmt: skip
    colour = altair.Color("process:N", title=None, scale=altair.Scale(domain=["parent", "fork server"], range=[PARENT, SERVER]))
    base = altair.Chart(altair.Data(values=points)).encode(
        x=altair.X("trials:Q", title="trials recorded"), color=colour
    )  # fmt: skip
    panels = [
        base.mark_line(strokeWidth=2).encode(y=altair.Y(f"{name}:Q", title=title)).properties(width=330, height=190)
        for name, title in (("memory", "memory of its own (MB)"), ("descriptors", "open descriptors"))
    ]
    chart = (
        altair.hconcat(*panels)
        .configure(background="transparent")
        .configure_view(stroke=None)
        .configure_axis(labelColor=INK, titleColor=INK, gridColor=INK, gridOpacity=0.25, domainColor=INK, tickColor=INK,
                        labelFontSize=12, titleFontSize=12)
        .configure_legend(labelColor=INK, labelFontSize=12, orient="top")
    )  # fmt: skip
    return str(vl_convert.vegalite_to_svg(chart.to_json()))
