"""Power cuts, simulated: each state that a disk may be found in after any prefix of what the registry asked of it.

A script of commands runs once on a real folder while all its disk calls are written down. Then, for prefixes of that list, what
was not flushed is dropped, halved, zeroed or reordered, and the registry that is left is opened, judged and written on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from harness.registry import files
from tests.faults.failing_calls import Death, Died, every_call
from tests.faults.scenario import SCENES, Bench, Ledger, Stage, Verdict, live_on, play, prepare, report
from tests.faults.simulated_disk import CUTS, Cut, Recorder, digest, intercepted, replay, write_tree
from tests.faults.tally import Tally

# Of the states asked for: how many on a disk without hard links, and how many after a process died first.
SHARE_WITHOUT_LINKS = 0.15
SHARE_AFTER_A_DEATH = 0.2
MAX_DRAWS = 20  # for one state that is new


@dataclass
class Story:
    """What was asked of the disk, and what the registry had acknowledged at each moment of it."""

    recorder: Recorder
    bench: Bench
    moments: list[tuple[int, Ledger]] = field(default_factory=list)

    def note(self) -> None:
        self.moments.append((len(self.recorder.calls), self.bench.ledger.copy()))

    def ledger_at(self, position: int) -> Ledger:
        return [ledger for at, ledger in self.moments if at <= position][-1]


def campaign(folder: Path, times: int, seed: int, pictures: Path | None = None) -> list[Tally]:
    """times: distinct states."""
    without_links, after_death = round(times * SHARE_WITHOUT_LINKS), round(times * SHARE_AFTER_A_DEATH)
    # What is flushed is known from the calls; really flushing each state's folder would only take time.
    with mock.patch.object(os, "fsync", return_value=None):
        return [
            cut_power("power cut", folder / "cut", times - without_links - after_death, seed),
            cut_power("power cut, no hard links", folder / "renamed", without_links, seed + 1, refuse_links),
            cut_power_after_death(folder / "died", after_death, seed + 2),
        ]


# One story, cut anywhere ---------------------------------------------------------------------------------------------------


def cut_power(
    fault: str, folder: Path, times: int, seed: int, change: Callable[[str, Any], Any] = lambda name, real: real
) -> Tally:
    """Prefix after prefix, until all were cut, then all again in another way. change: see `intercepted`."""
    story = record(folder, change)
    length, starts = len(story.recorder.calls), story.recorder.starts
    dice = random.Random(seed)
    seen: set[tuple[str, int]] = set()
    judged: set[int] = set()
    total = Verdict()
    positions = list(range(starts, length + 1))
    kinds = {position: dice.sample(list(CUTS), len(CUTS)) for position in positions}
    for draw in range(times * MAX_DRAWS):
        if len(seen) == times:
            break
        turn, at = divmod(draw, len(positions))
        if at == 0:
            dice.shuffle(positions)
        position = positions[at]
        kind = kinds[position][turn % len(CUTS)]
        tree = replay(story.recorder.calls[:position]).found(Cut(*CUTS[kind], dice))
        ledger = story.ledger_at(position)
        key = (digest(tree), len(ledger.acknowledged) + len(ledger.interrupted) + len(ledger.said))
        judged.add(position)  # here: the same state with the same ledger need not be judged twice
        if key in seen:
            continue
        seen.add(key)
        total += judge_state(folder / "state", tree, story.bench, ledger, f"after {position} calls, {kind}")
    notes = (f"after {len(judged):,} of {len(positions):,} prefixes of the disk calls, {len(CUTS)} kinds of cut",)
    return tally(f"{fault}: what was not flushed dropped, halved, zeroed, reordered", len(seen), total, notes)


def record(folder: Path, change: Callable[[str, Any], Any]) -> Story:
    bench = prepare(folder)
    story = Story(Recorder(bench.folder), bench)
    story.note()
    bench.moved = story.note
    with intercepted(lambda name, real: change(name, story.recorder.wrap(name, real))):
        for scene in SCENES:
            scene(bench)
    story.recorder.check()
    return story


def refuse_links(name: str, real: Any) -> Any:
    """A file system without hard links, as FAT and some mounts are."""

    def link(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted", str(target))

    return link if name == "link" else real


def judge_state(place: Path, tree: dict[str, bytes | None], bench: Bench, ledger: Ledger, where: str) -> Verdict:
    """Lay the state out in a fresh folder, and live on from it on the next boot."""
    write_tree(place, tree)
    with next_boot():
        found = live_on(Bench(place, bench.outbox, ledger, bench.other))
    shutil.rmtree(place)
    return Verdict([f"{where}: {text}" for text in found.lost], [f"{where}: {text}" for text in found.wrong])


@contextlib.contextmanager
def next_boot() -> Iterator[None]:
    """All that ran before the power cut is gone."""
    files.describe_process.cache_clear()
    with mock.patch.object(files, "boot_id", return_value="the boot after"):
        yield
    files.describe_process.cache_clear()


def tally(fault: str, tried: int, total: Verdict, notes: tuple[str, ...]) -> Tally:
    report(total)
    return Tally(fault, tried, "states", len(total.lost), len(total.wrong), notes=notes)


# A process dies, the next one goes on, and then the power goes ---------------------------------------------------------------


def cut_power_after_death(folder: Path, times: int, seed: int) -> Tally:
    """What the dead process had not flushed is nobody's any more: the next one must not take it for kept."""
    stages = play(folder / "stages")
    places = every_call(stages, folder / "count")
    dice = random.Random(seed)
    dice.shuffle(places)
    total, tried, deaths = Verdict(), 0, 0
    while tried < times:
        stage, number = places[deaths % len(places)]
        deaths += 1
        story = die_and_go_on(stage, number, folder / "live")
        for position, kind in [(len(story.recorder.calls), "nothing that was not flushed"), *draw_later(story, dice)]:
            if tried < times:
                tried += 1
                tree = replay(story.recorder.calls[:position]).found(Cut(*CUTS[kind], dice))
                where = f"{stage.scene.__name__} died at call {number}, cut after {position} calls, {kind}"
                total += judge_state(folder / "state", tree, story.bench, story.ledger_at(position), where)
        shutil.rmtree(folder / "live")
    return tally("process killed, another goes on, then a power cut", tried, total, (f"{deaths} deaths",))


def draw_later(story: Story, dice: random.Random) -> list[tuple[int, str]]:
    """Two more cuts, at any time after the death."""
    first, last = story.moments[0][0], len(story.recorder.calls)
    return [(dice.randint(first, last), dice.choice(list(CUTS))) for _ in range(2)]


def die_and_go_on(stage: Stage, number: int, folder: Path) -> Story:
    """The scene up to its number-th disk call; then another process plays it whole, appends, folds and deletes."""
    bench = stage.set_up(folder)
    recorder = Recorder(folder)
    death = Death(number)
    with intercepted(lambda name, real: death.wrap(name, recorder.wrap(name, real))), contextlib.suppress(Died):
        stage.scene(bench)
    story = Story(recorder, bench)
    bench.moved = story.note
    story.note()
    with intercepted(recorder.wrap):
        stage.scene(bench)
        registry = bench.open()
        for attempt in (60, 61):
            bench.append(registry, attempt, "inv-1", blob=b"circuit")
        registry.fold("inv-1")
        registry.remove_replaced(grace_s=-1)
    recorder.check()
    return story
