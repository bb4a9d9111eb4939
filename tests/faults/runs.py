"""Faults in a `harness run` of 60 trials, at random seeded moments; each is followed by the same command again.

What is asked after each: did every trial that ended get its record, is every record one of a trial that ran, does its status
say what happened, is no process left; does the same command run exactly what is missing; and are the numbers in the end, bit
for bit, those of a run without faults. The answers come from outside: see `tests.faults.stage`.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import shutil
import signal
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.stage import NAP_S, Ended, Running, Stage, open_stage
from tests.faults.tally import Tally
from tests.invoking import harness

TRIALS = 60
HOUR_S = 3600
SHOWN = 3
DISK_BYTES = 24 << 20
PAGE_BYTES = 4096
LATE_S = 1.0  # a trial that ended so long before its command was stopped has been recorded
SLACK_S = 30.0  # more than this, a trial's seconds are wrong and not only those of a busy machine

Values = dict[int, str]  # seed -> all numbers of its trial, as text


@dataclass
class Found:
    """What was wrong with one injection, or with several. lost and wrong: of which seed (-1: of none), and what."""

    tried: int = 0
    lost: list[tuple[int, str]] = field(default_factory=list)
    wrong: list[tuple[int, str]] = field(default_factory=list)
    left_over: int = 0
    counted: Counter[str] = field(default_factory=Counter)

    def __iadd__(self, other: Found) -> Found:
        self.tried += other.tried
        self.lost += other.lost
        self.wrong += other.wrong
        self.left_over += other.left_over
        self.counted += other.counted
        return self

    def only(self, seeds: set[int]) -> Found:
        """What concerns these seeds."""
        return Found(
            self.tried, [p for p in self.lost if p[0] in seeds], [p for p in self.wrong if p[0] in seeds], self.left_over
        )

    def tally(self, fault: str, of: str) -> Tally:
        notes = [f"{number} {what}" for what, number in sorted(self.counted.items())]
        told = sorted({what for _, what in (*self.lost, *self.wrong)})[:SHOWN]
        notes += [" ".join(what.replace("|", "/").split()) for what in told]  # a row of a table holds neither bar nor line
        return Tally(fault, self.tried, of, len(self.lost), len(self.wrong), self.left_over, tuple(notes))


class CannotInject(Exception):
    """Why a fault cannot be injected on this machine."""


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    inject: given the running command, does it, and says how often. codes: how the command may end. says: what its stderr
    must hold. stops: the command does not finish. misdeeds: what how many trials do, each at a random seed. around: what is
    put in place for it, and taken away before the same command runs again.
    """

    name: str
    of: str
    inject: Callable[[Running, random.Random], int] = lambda running, rng: 1
    codes: tuple[int, ...] = (0,)
    says: tuple[str, ...] = ()
    stops: bool = False
    misdeeds: tuple[str, ...] = ()
    around: Callable[[Stage], contextlib.AbstractContextManager[None]] = lambda stage: contextlib.nullcontext()
    per_run: int = 1


# The faults -------------------------------------------------------------------------------------------------------------


def moments(rng: random.Random, many: int, margin: int = 8) -> list[int]:
    """How many trials shall have begun at each of so many faults."""
    return sorted(rng.sample(range(1, TRIALS - margin), many))


def wait_for(running: Running, rng: random.Random, trials: int) -> bool:
    """Until so many have begun, and a little; False where the command is at its end."""
    reached = running.reach(trials)
    time.sleep(rng.uniform(0.0, 0.05))
    return reached and running.process.poll() is None


def send(number: signal.Signals) -> Callable[[Running, random.Random], int]:
    """A signal to the parent, sometimes while it still starts; Ctrl-C to its whole group, as a terminal does."""

    def inject(running: Running, rng: random.Random) -> int:
        if rng.random() < 0.2:
            running.launch()
            time.sleep(rng.uniform(0.5, 3.0))
        else:
            wait_for(running, rng, *moments(rng, 1))
        if running.process.poll() is not None:
            return 0
        (os.killpg if number == signal.SIGINT else os.kill)(running.process.pid, number)
        return 1

    return inject


def stop_all(running: Running, rng: random.Random) -> int:
    """SIGTERM to every process of the command, in any order, as systemd and SLURM send it."""
    wait_for(running, rng, *moments(rng, 1))
    pids = running.stage.processes()
    rng.shuffle(pids)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    return int(running.process.pid in pids)


def kill_server(running: Running, rng: random.Random) -> int:
    """Twice, with time between for a new one to start."""
    killed = 0
    for moment in moments(rng, 2):
        if wait_for(running, rng, moment) and (pid := running.server()) is not None:
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed


def kill_workers(running: Running, rng: random.Random) -> int:
    """Five, each the one that began last."""
    killed = 0
    for moment in moments(rng, 5):
        if not wait_for(running, rng, moment):
            break
        last = running.begun()[-1]
        with contextlib.suppress(ProcessLookupError):
            os.kill(last["pid"], signal.SIGKILL)
            killed += 1
    return killed


def fill_disk(running: Running, rng: random.Random) -> int:
    """To the last page, or to some pages before: then what is written next finds room for a part of it."""
    wait_for(running, rng, *moments(rng, 1))
    filler = os.open(running.stage.registry / ".filler", os.O_WRONLY | os.O_CREAT)
    size = 0
    with contextlib.suppress(OSError):
        while True:
            size += os.write(filler, bytes(PAGE_BYTES))
    os.ftruncate(filler, max(0, size - rng.choice((0, 1, 3, 10)) * PAGE_BYTES))
    os.close(filler)
    return 1


def lock_disk(running: Running, rng: random.Random) -> int:
    wait_for(running, rng, *moments(rng, 1))
    # Refused while a file is open for writing, which is for milliseconds only.
    while subprocess.run(["mount", "-o", "remount,ro", running.stage.registry], capture_output=True).returncode:
        if running.process.poll() is not None:
            return 0
    return 1


@contextlib.contextmanager
def own_disk(stage: Stage) -> Iterator[None]:
    """A small file system in memory for the registry. What it holds is on the ordinary disk afterwards."""
    stage.registry.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(stage.registry)]
    try:
        made = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError as exc:
        raise CannotInject("there is no `mount`") from exc
    if made.returncode:
        raise CannotInject(f"a file system of its own cannot be mounted: {made.stderr.strip()}")
    aside = stage.folder / "registry-copy"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        yield
        shutil.copytree(stage.registry, aside, ignore=shutil.ignore_patterns(".filler"))
    finally:
        subprocess.run(["umount", "--lazy", str(stage.registry)], check=True)
    stage.registry.rmdir()
    aside.rename(stage.registry)


@contextlib.contextmanager
def locked_disk(stage: Stage) -> Iterator[None]:
    """The same, empty and read-only from the start."""
    with own_disk(stage):
        subprocess.run(["mount", "-o", "remount,ro", str(stage.registry)], check=True)
        yield


# Every process of the command reads the system's clock through this; how far it is off stands in a file that all map.
CLOCK = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *off_s;

__attribute__((constructor)) static void look(void) {
    const char *path = getenv("FAULTS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED) off_s = mapped;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, id, now);
    if (!failed && off_s && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += *off_s;
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    int failed = syscall(SYS_gettimeofday, now, zone);
    if (!failed && now && off_s) now->tv_sec += *off_s;
    return failed;
}

time_t time(time_t *kept) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (kept) *kept = now.tv_sec;
    return now.tv_sec;
}
"""


@contextlib.contextmanager
def own_clock(stage: Stage) -> Iterator[None]:
    """The commands' clock is ours to set; it stays where it was put until the stage is cleared."""
    library, source, offset = stage.folder / "clock.so", stage.folder / "clock.c", stage.folder / "clock"
    source.write_text(CLOCK)
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        raise CannotInject(f"there is no C compiler that makes a clock to set: {exc}") from exc
    offset.write_bytes(bytes(8))
    stage.environment |= {"LD_PRELOAD": str(library), "FAULTS_CLOCK": str(offset)}
    yield
    set_back(stage)


def set_back(stage: Stage) -> None:
    """By an hour from where it is."""
    with (stage.folder / "clock").open("r+b") as file, mmap.mmap(file.fileno(), 8) as offset:
        offset[:] = struct.pack("q", struct.unpack("q", offset[:])[0] - HOUR_S)


def turn_clock_back(running: Running, rng: random.Random) -> int:
    times = moments(rng, 3)
    for moment in times:
        wait_for(running, rng, moment)
        set_back(running.stage)
    return len(times)


MISDEEDS = {
    "asks_for_too_much": "a trial asks for more memory than its limit",
    "fills_memory_in_children": "a trial's children fill its memory limit",
    "kills_itself": "a trial kills itself",
    "leaves_children": "a trial forks children and leaves them",
    "closes_its_streams": "a trial closes stdin, stdout and stderr",
    "prints_100_MB": "a trial prints 100 MB",
    "deletes_scratch": "a trial deletes its scratch folder and its parent's",
    "changes_everything": "a trial changes folder, environment, threads, RNG, dtype",
}
# What the record of each must say; all others are `ok`.
STATUS = {
    "asks_for_too_much": ("oom", "rlimit_data", None),
    "fills_memory_in_children": ("oom", "polled_rss", 9),
    "kills_itself": ("failed", "", 9),
    "raises": ("failed", "", None),
}
MEDDLES = {"changes_everything"}  # with its own numbers; with those of others it must not

KILL_PARENT = Fault("`kill -9` of the parent", "kills", send(signal.SIGKILL), (-9,), stops=True)
SIGTERM = Fault("SIGTERM to the parent", "signals", send(signal.SIGTERM), (143,), ("stopped by SIGTERM",), stops=True)
SIGTERM_ALL = Fault("SIGTERM to parent, server and workers", "times", stop_all, (143,), ("stopped by SIGTERM",), stops=True)
SIGINT = Fault("Ctrl-C", "signals", send(signal.SIGINT), (130,), stops=True)
KILL_SERVER = Fault("`kill -9` of the fork server", "kills", kill_server, per_run=2)
KILL_WORKER = Fault("`kill -9` of a worker", "kills", kill_workers, (0, 1), per_run=5)
FULL_DISK = Fault(
    "disk full under the registry", "times", fill_disk, (2,),
    ("No space left on device; free some space", "the same command goes on from there"), stops=True, around=own_disk,
)  # fmt: skip
LOCKED_DISK = Fault(
    "registry read-only from the start", "times", codes=(2,),
    says=("it is mounted read-only: name another folder with --registry",), stops=True, around=locked_disk,
)  # fmt: skip
LOCKING_DISK = Fault(
    "registry read-only in the middle", "times", lock_disk, (2,),
    ("it is mounted read-only: name another folder with --registry", "the same command goes on from there"),
    stops=True, around=own_disk,
)  # fmt: skip
CLOCK_BACK = Fault(
    "the clock goes back by an hour", "jumps", turn_clock_back, (1,), misdeeds=("raises",), around=own_clock, per_run=3
)
MISBEHAVIOUR = Fault("trials beside misbehaving ones", "runs", codes=(1,), misdeeds=tuple(MISDEEDS))
SABOTAGE = Fault(
    "a trial writes into the registry", "trials", says=("they are recorded again", "damaged"),
    misdeeds=("writes_into_the_registry",),
)  # fmt: skip
ALONE = (
    KILL_PARENT,
    KILL_SERVER,
    KILL_WORKER,
    SIGTERM,
    SIGTERM_ALL,
    SIGINT,
    FULL_DISK,
    LOCKED_DISK,
    LOCKING_DISK,
    CLOCK_BACK,
    SABOTAGE,
)


# The campaign -----------------------------------------------------------------------------------------------------------


def campaign(folder: Path, times: int, seed: int, pictures: Path | None) -> list[Tally]:
    """Each fault `times` times. No pictures."""
    with open_stage(folder, TRIALS) as stage:
        clean = clean_values(stage)
        tallies = [tally_of(stage, fault, times, random.Random(f"{seed}/{fault.name}"), clean) for fault in ALONE]
        return tallies + tally_misdeeds(stage, times, random.Random(f"{seed}/misdeeds"), clean)


def clean_values(stage: Stage) -> Values:
    """What the suite gives when nothing happens."""
    stage.clear()
    end = stage.run()
    if end.code != 0:
        raise RuntimeError(f"the suite fails without any fault:\n{end.err}")
    return {row["seed"]: numbers(row) for row in stage.rows()}


def tally_of(stage: Stage, fault: Fault, times: int, rng: random.Random, clean: Values) -> Tally:
    found = Found()
    try:
        for _ in range(100 * times):
            if found.tried >= times:
                break
            found += play(stage, fault, rng, clean)
    except CannotInject as exc:
        return Tally(fault.name, 0, fault.of, 0, 0, skipped=str(exc))
    return found.tally(fault.name, fault.of)


def tally_misdeeds(stage: Stage, times: int, rng: random.Random, clean: Values) -> list[Tally]:
    """All misdeeds in one run, so many times; a row for each, and one for the trials beside them."""
    each = {name: Found() for name in MISDEEDS}
    beside = Found()
    for _ in range(times):
        seeds = draw_misdeeds(MISBEHAVIOUR, rng)
        found = play(stage, MISBEHAVIOUR, rng, clean, seeds)
        for seed, name in seeds.items():
            part = found.only({seed})
            part.left_over = 0  # nobody can say whose it was
            each[name] += part
        others = found.only(set(range(-1, TRIALS)) - seeds.keys())
        others.tried = TRIALS - len(seeds)
        beside += others
    tallies = [each[name].tally(fault, "trials") for name, fault in MISDEEDS.items()]
    return [*tallies, beside.tally("other trials beside all of these", "trials")]


def draw_misdeeds(fault: Fault, rng: random.Random, last: int = TRIALS) -> dict[int, str]:
    """A seed for each; never one of the first, so that there is something to damage."""
    return dict(zip(rng.sample(range(12, last), len(fault.misdeeds)), fault.misdeeds, strict=True))


# One run with a fault ---------------------------------------------------------------------------------------------------


def play(stage: Stage, fault: Fault, rng: random.Random, clean: Values, seeds: Mapping[int, str] | None = None) -> Found:
    """The run with the fault, the same command again, and once more for what failed. seeds: who misbehaves, if not drawn."""
    stage.clear()
    misdeeds = draw_misdeeds(fault, rng) if seeds is None else dict(seeds)
    with contextlib.ExitStack() as stack:
        stack.enter_context(fault.around(stage))
        stage.plan(misdeeds)
        running = stage.start()
        found = Found(fault.inject(running, rng))
        stopped_s = time.monotonic() if fault.stops else float("inf")
        first = running.ended()
        check_end(found, fault, first, stage)
        check_nothing_left(found, stage)
    stage.plan({})
    if found.tried == 0:
        return found  # it was at its end before the fault came
    check_told(found, stage)
    check_first(found, fault, stage, misdeeds, stopped_s)
    check_again(found, stage)
    check_final(found, stage, clean, misdeeds)
    return found


def check_end(found: Found, fault: Fault, end: Ended, stage: Stage) -> None:
    began = bool(end.began)
    # A signal may come before the command line listens to it, and then ends the process as it ends any other.
    codes = fault.codes if began else (*fault.codes, *(128 - code for code in fault.codes if code > 128))
    if found.tried and end.code not in codes:
        found.wrong.append((-1, f"exit code {end.code}, not {codes[0]}: {end.err[-300:]}"))
    if end.code >= 0 and found.tried:
        found.wrong += [(-1, f"stderr does not say {text!r}: {end.err[-600:]}") for text in fault.says if text not in end.err]
    if "Traceback" in end.err:
        found.wrong.append((-1, f"a traceback on stderr: {end.err[-600:]}"))


def check_nothing_left(found: Found, stage: Stage) -> None:
    found.left_over += len(stage.left_over())
    found.wrong += [(-1, f"scratch folder left: {name}") for name in stage.scratch_folders()]


def check_told(found: Found, stage: Stage) -> None:
    """What progress was told of is there."""
    there = {row["attempt_id"] for row in stage.rows()}
    found.lost += [(t["seed"], "told of and not recorded") for t in stage.told() if t["attempt_id"] not in there]


def check_first(found: Found, fault: Fault, stage: Stage, misdeeds: Mapping[int, str], stopped_s: float) -> None:
    """Every trial that ended is recorded, and its record says what the trial says of itself."""
    rows, seen = stage.rows(), stage.seen()
    forged = {e["forged"] for e in seen if e["event"] == "sabotages"}
    found.counted["forged records that cannot be told from real ones"] += len(forged)
    rows = [row for row in rows if row["attempt_id"] not in forged]
    finished = {row["seed"] for row in rows if row["status"] != "interrupted"}
    ended = {e["seed"] for e in seen if e["event"] == "ends" and e["at_s"] < stopped_s - LATE_S}
    found.lost += [(seed, "ended and not recorded") for seed in ended - finished]
    if not fault.stops:
        found.lost += [(seed, "never recorded") for seed in set(range(TRIALS)) - finished - ended]
    check_rows(found, rows, seen)
    for row in rows:
        found.wrong += [(row["seed"], f"status: {what}") for what in lies(row, fault, misdeeds)]


def check_rows(found: Found, rows: Sequence[Mapping[str, Any]], seen: Sequence[Mapping[str, Any]]) -> None:
    """Each `ok` record is of one execution that began and ended, and has its seconds; no execution has two."""
    begins = {e["nonce"]: e for e in seen if e["event"] == "begins"}
    ends = {e["nonce"]: e for e in seen if e["event"] == "ends"}
    nonces = [nonce_of(row) for row in rows if row["status"] == "ok"]
    found.wrong += [(-1, "one execution recorded twice") for n in Counter(nonces).values() if n > 1]
    for row in rows:
        if row["status"] != "ok":
            continue
        nonce = nonce_of(row)
        if nonce not in ends or ends[nonce]["seed"] != row["seed"]:
            found.wrong.append((row["seed"], "recorded as ok, but never ran to its end"))
            continue
        took_s = ends[nonce]["at_s"] - begins[nonce]["at_s"]
        if not (took_s <= row["wall_s"] <= took_s + SLACK_S and NAP_S <= row["solve_s"] <= row["wall_s"]):
            found.wrong.append((row["seed"], f"it took {took_s:.3f} s, not {row['wall_s']} ({row['solve_s']} in solve)"))


def lies(row: Mapping[str, Any], fault: Fault, misdeeds: Mapping[int, str]) -> list[str]:
    """What the record says and cannot be."""
    said = (row["status"], row["limit_fired"], row["signal"])
    if row["status"] == "interrupted":
        return [] if fault.stops else ["interrupted, and nobody stopped the run"]
    expected = STATUS.get(misdeeds.get(row["seed"], ""))
    if expected is not None:
        return [] if said == expected else [f"{said}, not {expected}: {row['error']}"]
    if fault is KILL_WORKER and row["status"] == "failed":
        return [] if row["signal"] == 9 and "SIGKILL" in row["error"] else [f"{said}: {row['error']}"]
    return [] if row["status"] == "ok" else [f"{said}: {row['error']}"]


# The same command again -------------------------------------------------------------------------------------------------


def check_again(found: Found, stage: Stage) -> None:
    """It runs what has no result, and nothing else; then, when asked, what failed; then there is nothing to run."""
    before = stage.rows()
    failed = {row["seed"] for row in before if row["status"] not in ("ok", "interrupted")}
    missing = set(range(TRIALS)) - {row["seed"] for row in before if row["status"] != "interrupted"}
    check_ran(found, stage.run(), missing, 1 if failed else 0, "the same command")
    if failed:
        if "clock" in "".join(stage.environment.values()):
            set_back(stage)
        check_ran(found, stage.run("--retry-failed"), failed, 0, "--retry-failed")
    check_ran(found, stage.run(), set(), 0, "the same command at last")
    check_nothing_left(found, stage)


def check_ran(found: Found, end: Ended, seeds: set[int], code: int, what: str) -> None:
    if end.code != code:
        found.wrong.append((-1, f"{what}: exit code {end.code}, not {code}: {end.err[-600:]}"))
    ran = Counter(end.began)
    found.wrong += [(seed, f"{what}: ran without need") for seed in ran.keys() - seeds]
    found.wrong += [(seed, f"{what}: did not run what was missing") for seed in seeds - ran.keys()]
    found.wrong += [(seed, f"{what}: ran twice") for seed, n in ran.items() if n > 1]


def check_final(found: Found, stage: Stage, clean: Values, misdeeds: Mapping[int, str]) -> None:
    """Every trial is there once with the numbers of a clean run, and no marker of a running one is left."""
    seen = stage.seen()
    forged = {e["forged"] for e in seen if e["event"] == "sabotages"}
    rows = [row for row in stage.rows() if row["attempt_id"] not in forged]
    check_told(found, stage)
    check_rows(found, rows, seen)
    good = [row for row in rows if row["status"] == "ok"]
    found.lost += [(seed, "no result in the end") for seed in set(range(TRIALS)) - {row["seed"] for row in good}]
    found.wrong += [(s, "two results in the end") for s, n in Counter(row["seed"] for row in good).items() if n > 1]
    own = {seed for seed, name in misdeeds.items() if name in MEDDLES}
    differ = [row["seed"] for row in good if row["seed"] not in own and numbers(row) != clean[row["seed"]]]
    found.wrong += [(seed, "other numbers than in a clean run") for seed in differ]
    cut = [row for row in rows if row["status"] == "interrupted"]
    found.counted["cut trials recorded as interrupted"] += len(cut)
    rubbish = {name for e in seen if e["event"] == "sabotages" for name in e["rubbish"]}
    markers = {f"started/{p.name}" for p in (stage.registry / "started").iterdir()} - rubbish
    found.wrong += [(-1, f"a start marker is left: {name}") for name in markers]
    if rubbish:
        check_verify(found, stage, rubbish)


def check_verify(found: Found, stage: Stage, rubbish: set[str]) -> None:
    """`harness verify` names every file that is none of the registry's, where it still lies; in tmp and index nobody reads."""
    told = harness("verify", "--registry", stage.registry)
    lying = {n for n in rubbish if (stage.registry / n).exists() and n.partition("/")[0] not in ("tmp", "index")}
    unnamed = sorted(name for name in lying if name.partition("/")[2] not in told.out + told.err)
    found.wrong += [(-1, f"verify does not name {name}") for name in unnamed]
    found.counted["rubbish files named by `harness verify`"] += len(lying) - len(unnamed)
    if lying and told.code != 3:
        found.wrong.append((-1, f"verify: exit code {told.code}, not 3"))


# What a record holds ----------------------------------------------------------------------------------------------------


def nonce_of(row: Mapping[str, Any]) -> str:
    return next((str(d["text"]) for d in row["diagnostics"] if d["name"] == "nonce"), "")


def numbers(row: Mapping[str, Any]) -> str:
    """All that a trial measured, spent and logged, but seconds and its nonce: equal texts are equal bits."""

    def without_seconds(amounts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return [a for a in amounts if a["clock"] != "wall_s"]

    curve = [{**point, "at": without_seconds(point["at"])} for point in row["curve"]]
    diagnostics = [d for d in row["diagnostics"] if d["name"] != "nonce"]
    return json.dumps([row["measurements"], row["series"], curve, without_seconds(row["spent"]), diagnostics], sort_keys=True)
