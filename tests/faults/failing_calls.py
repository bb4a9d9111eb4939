"""Every disk call fails once: for each scene of the script, its n-th call for n = 1, 2, ... until it makes fewer.

Four ways: the disk is full from there on; one call fails; one call does its work and says that it failed; the process dies.
After each the registry is judged, the same scene is played again without faults, and it is judged anew. Beside it a file system
of two megabytes is filled until it is really full.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from harness.errors import RegistryError
from harness.registry import Registry
from tests.faults.scenario import Bench, Stage, Verdict, attempt_to, judge, play, report
from tests.faults.simulated_disk import READING, intercepted
from tests.faults.tally import Tally

NEED_ROOM = frozenset({"create", "write", "mkdir", "link", "rename", "fsync"})
# Reads a trial's scratch folder, not the registry: an artefact that it cannot read is left out, and the record says so.
OUTSIDE = frozenset({"read_regular"})
TMPFS_BYTES = 2 << 20
FILLINGS = 4


class Died(BaseException):
    """The process ends here: nothing after it runs, no handler of the registry may stop it."""


class Failing:
    """Makes the number-th call fail; 0: none. calls: the names of those made so far."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.calls: list[str] = []

    def wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        if name in OUTSIDE:
            return real

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            return self.meet(name, real, arguments)

        return call

    def is_due(self) -> bool:
        return len(self.calls) == self.number

    def is_past(self) -> bool:
        return 0 < self.number <= len(self.calls)

    def meet(self, name: str, real: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """What becomes of one call."""
        return real(*arguments)


class Full(Failing):
    """No room from the number-th call on; of what is written, half fits."""

    def meet(self, name: str, real: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if not self.is_past() or name not in NEED_ROOM:
            return real(*arguments)
        if name == "write":
            descriptor, content = arguments
            real(descriptor, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Broken(Failing):
    """One input/output error; the call did nothing, but for a close, which always closes."""

    def meet(self, name: str, real: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if not self.is_due():
            return real(*arguments)
        if name == "close":
            real(*arguments)
        raise OSError(errno.EIO, os.strerror(errno.EIO))


class DoneAndDenied(Failing):
    """One input/output error after the work was done, as network file systems answer when a reply is lost."""

    def meet(self, name: str, real: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        result = real(*arguments)
        if self.is_due() and name not in READING:
            if name == "create":
                os.close(result)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return result


class Death(Failing):
    """The process dies; of what it was writing, half is there."""

    def meet(self, name: str, real: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if not self.is_past():
            return real(*arguments)
        if self.is_due() and name == "write":
            descriptor, content = arguments
            real(descriptor, content[: len(content) // 2])
        raise Died


WAYS: dict[str, type[Failing]] = {
    "the disk is full from the n-th call on": Full,
    "the n-th call fails (EIO)": Broken,
    "the n-th call is done, and answers EIO": DoneAndDenied,
    "the process dies at the n-th call": Death,
}


def campaign(folder: Path, times: int, seed: int, pictures: Path | None = None) -> list[Tally]:
    """times: scenes played with a fault; all there are, if fewer."""
    with mock.patch.object(os, "fsync", return_value=None):  # nothing here loses power
        stages = play(folder / "stages")
        points = every_call(stages, folder / "count")
        dice = random.Random(seed)
        tallies = []
        for fault, way in WAYS.items():
            dice.shuffle(points)
            tallies.append(fail_at(fault, way, points[: max(1, times // len(WAYS))], len(points), folder / "live"))
    return [*tallies, fill_up(folder / "small", seed)]


def every_call(stages: Iterable[Stage], folder: Path) -> list[tuple[Stage, int]]:
    """Each call that each scene makes when all goes well, counted from 1."""
    return [(stage, n) for stage in stages for n in range(1, len(calls_of(stage, folder)) + 1)]


def calls_of(stage: Stage, folder: Path) -> list[str]:
    counted = Failing(0)
    bench = stage.set_up(folder)
    with intercepted(counted.wrap):
        stage.scene(bench)
    shutil.rmtree(folder)
    return counted.calls


def fail_at(fault: str, way: type[Failing], points: list[tuple[Stage, int]], there_are: int, place: Path) -> Tally:
    total = Verdict()
    for stage, number in points:
        where = f"{stage.scene.__name__}, call {number}, {way.__name__}"
        found = fail_once(stage, way(number), place)
        total += Verdict([f"{where}: {text}" for text in found.lost], [f"{where}: {text}" for text in found.wrong])
    report(total)
    notes = (f"{there_are} calls to fail in {len({id(stage) for stage, _ in points})} commands",)
    return Tally(f"{fault}, n = 1, 2, ...", len(points), "commands", len(total.lost), len(total.wrong), notes=notes)


def fail_once(stage: Stage, failing: Failing, place: Path) -> Verdict:
    """The scene with its fault, then without."""
    bench = stage.set_up(place)
    total = Verdict()
    try:
        with intercepted(failing.wrap):
            stage.scene(bench)
    except (RegistryError, Died):
        pass
    except Exception as exc:  # any other error is not one that a user could mend
        total.wrong.append(f"{type(exc).__name__} instead of RegistryError: {exc}")
    if bench.ledger.acknowledged:
        total += attempt_to(lambda: judge(Registry.open(bench.path, create=False), bench.ledger))
    again = Bench(bench.folder, bench.outbox, bench.ledger, bench.other, alive=bench.alive)
    total += attempt_to(lambda: play_again(stage, again))
    shutil.rmtree(place)
    return total


def play_again(stage: Stage, bench: Bench) -> Verdict:
    """After the fault is mended the same command succeeds, and a reader has nothing to warn of."""
    stage.scene(bench)
    registry = Registry.open(bench.path, create=False)
    found = judge(registry, bench.ledger)
    found.wrong += [f"a warning remains: {text}" for text in registry.warnings]
    return found


# A disk that is really full -------------------------------------------------------------------------------------------------


def fill_up(folder: Path, seed: int) -> Tally:
    """Append until there is no room; make room; the same append works."""
    fault = f"a file system of {TMPFS_BYTES >> 20} MiB filled up by appends, {FILLINGS} times"
    refused = try_mount(folder)
    if refused:
        return Tally(fault, 0, "appends", 0, 0, skipped=refused)
    with unmounted_after(folder):
        return fill_mounted(fault, folder, random.Random(seed))


def try_mount(folder: Path) -> str:
    """Mount a tmpfs there; the reason why not, or nothing."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as exc:
        return f"no mount command ({exc.strerror})"
    return "" if done.returncode == 0 else f"mounting needs rights that this user has not ({done.stderr.strip()[:80]})"


@contextlib.contextmanager
def unmounted_after(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


def fill_mounted(fault: str, folder: Path, dice: random.Random) -> Tally:
    outside = folder.with_name("outbox")
    outside.mkdir()
    bench = Bench(folder, outside)
    bench.open()
    total, tried, room = Verdict(), 0, TMPFS_BYTES
    for _ in range(FILLINGS):
        # Most of the room is taken and freed later; how much is drawn, so that each time another call finds the disk full.
        room = dice.randrange(room // 4, room // 2)
        (folder / "ballast").write_bytes(bytes(room))
        refused = None
        while refused is None:
            tried += 1
            refused = append_or_refuse(bench, tried, dice.randbytes(5000))
        if not refused.endswith("free some space"):
            total.wrong.append(f"the error does not say the mend: {refused}")
        total += attempt_to(lambda: judge(Registry.open(bench.path, create=False), bench.ledger))
        (folder / "ballast").unlink()
        refused = append_or_refuse(bench, tried, b"")
        total.wrong += [f"refused though there is room: {refused}"] if refused else []
    total += attempt_to(lambda: judge(Registry.open(bench.path, create=False), bench.ledger))
    report(total)
    return Tally(fault, tried, "appends", len(total.lost), len(total.wrong), notes=(f"{FILLINGS} refused for want of room",))


def append_or_refuse(bench: Bench, number: int, blob: bytes) -> str | None:
    """As one command does it; the error, where there is no room."""
    try:
        bench.append(bench.open(), number, "inv-1", blob)
    except RegistryError as exc:
        return str(exc)
    return None
