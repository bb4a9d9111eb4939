"""Many processes append to one registry at once while others read and compact it, and a third of them is killed.

One process that runs no threads imports what all need and forks them (`python -m tests.faults.writers FOLDER TIMES SEED`): 64
interpreters that import pyarrow each would measure the import. A writer notes each acknowledged attempt in a file of its own,
flushed after `append` returned; the judge reads these files, not what the writers say.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.records import Attempt
from harness.registry import Registry
from tests.faults.scenario import Ledger, Verdict, attempt_to, judge, make_sample, report
from tests.faults.tally import Tally

ROOT = Path(__file__).parents[2]
APPENDS = 100
# Each writer folds once, and all at other times: a fold compacts too, and 64 that do it at once all read the same files.
FOLD_EVERY, FOLD_APART = APPENDS, 13
PAUSE_S = 1.0  # of the compacting process
READERS = 2
SHARE_KILLED = 1 / 3
MAX_DELAY_S = 0.05  # between the acknowledgement that a kill waits for and the kill: as long as an append or a small fold
GRACE_S = 20.0  # of what folds replaced; a reader holds a list of files for less
POLL_S = 0.002
LIMIT_S, LIMIT_PER_WRITER_S = 120.0, 20.0
# The process that forks must run no threads, and numpy's and pyarrow's libraries start some if they are let.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}


@dataclass(frozen=True)
class Yard:
    """The folder of one campaign: the registry, and what its processes say outside of it."""

    folder: Path

    @property
    def registry(self) -> Path:
        return self.folder / "registry"

    @property
    def stop(self) -> Path:
        return self.folder / "stop"

    def acknowledgements(self, writer: int) -> Path:
        return self.folder / f"acknowledged-{writer}"

    def told(self, name: str) -> Path:
        return self.folder / f"told-{name}.json"

    def acknowledged(self, writer: int) -> list[str]:
        """Whole lines only: one that a kill cut short acknowledges nothing."""
        with contextlib.suppress(FileNotFoundError):
            text = self.acknowledgements(writer).read_text()
            return text[: text.rfind("\n") + 1].split()
        return []


def sample(writer: int, number: int) -> tuple[Attempt, Attempt]:
    """The number-th attempt of a writer, and what must come back for it."""
    attempt, expected, _ = make_sample(writer * 1000 + number, f"inv-{writer}", Path())
    return attempt, expected


def campaign(folder: Path, times: int, seed: int, pictures: Path | None = None) -> list[Tally]:
    """times: writers."""
    yard = Yard(folder)
    folder.mkdir(exist_ok=True)
    Registry.open(yard.registry)
    total = Verdict()
    command = [sys.executable, "-m", "tests.faults.writers", str(folder), str(times), str(seed)]
    parent = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **ONE_THREAD}, start_new_session=True)
    try:
        code = parent.wait(LIMIT_S + LIMIT_PER_WRITER_S * times)
        total.wrong += [f"the processes ended with exit code {code}"] if code else []
    except subprocess.TimeoutExpired:
        total.wrong.append("the processes did not end in time")
    finally:
        left_over = end_session(parent)
    killed = json.loads(yard.told("parent").read_text())["killed"] if yard.told("parent").exists() else []
    total += judge_writers(yard, times, killed)
    reads = judge_readers(yard, total)
    report(total)
    notes = (
        f"{len(killed)} killed by SIGKILL, {sum(len(yard.acknowledged(w)) for w in range(times)):,} attempts acknowledged",
        f"{reads:,} whole reads meanwhile by {READERS} processes",
    )
    fault = f"writers of {APPENDS} attempts each at once, a third killed, two readers and a compacting process beside them"
    return [Tally(fault, times, "processes", len(total.lost), len(total.wrong), left_over, notes)]


def end_session(parent: subprocess.Popen[bytes]) -> int:
    """How many processes of the campaign outlived it; they are ended."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    left = [pid for pid in pids if session_of(pid) == parent.pid]
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    parent.wait()
    return len(left)


def session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


# The judge -----------------------------------------------------------------------------------------------------------------


def judge_writers(yard: Yard, times: int, killed: list[int]) -> Verdict:
    """All that was acknowledged, once and as it was; of a killed writer perhaps the attempt that it was at, and no more."""
    ledger, verdict = Ledger(), Verdict()
    for writer in range(times):
        acknowledged = yard.acknowledged(writer)
        if writer not in killed and len(acknowledged) != APPENDS:
            verdict.wrong.append(f"writer {writer} was not killed and acknowledged {len(acknowledged)} attempts")
        for number in range(min(len(acknowledged) + (writer in killed), APPENDS)):
            attempt, expected = sample(writer, number)
            ledger.offered[attempt.attempt_id] = expected
            ledger.begin(attempt)
            if number < len(acknowledged):
                ledger.acknowledge(attempt, b"")
        assert set(acknowledged) <= ledger.acknowledged, f"writer {writer} acknowledged what it never made"
    verdict += attempt_to(lambda: judge_silently(Registry.open(yard.registry, create=False), ledger))
    # The next command sweeps the markers of the dead, and what they were at becomes `interrupted`.
    verdict += attempt_to(lambda: judge_silently(Registry.open(yard.registry), ledger))
    return verdict


def judge_silently(registry: Registry, ledger: Ledger) -> Verdict:
    """A warning would say that a file was damaged: half-written, or one of tmp."""
    verdict = judge(registry, ledger)
    verdict.wrong += [f"a warning: {text}" for text in registry.warnings]
    return verdict


def judge_readers(yard: Yard, total: Verdict) -> int:
    """What the readers and the compacting process found wrong is added to total; how many reads there were."""
    reads = 0
    for name in [f"reader-{n}" for n in range(READERS)] + ["compacting"]:
        try:
            told = json.loads(yard.told(name).read_text())
        except (OSError, ValueError) as exc:
            total.wrong.append(f"{name} ended without a word: {exc}")
            continue
        total.wrong += [f"{name}: {text}" for text in told["wrong"]]
        reads += told["rounds"] if name != "compacting" else 0
    return reads


# The processes -------------------------------------------------------------------------------------------------------------


def main(folder: Path, times: int, seed: int) -> None:
    """Fork all of them, kill some, and wait for the rest."""
    import duckdb  # noqa: F401  here, before the fork, so that no child has to
    import pyarrow.parquet  # noqa: F401

    if len(list(Path("/proc/self/task").iterdir())) != 1:
        raise SystemExit(f"a process that forks must run one thread; start it with {ONE_THREAD}")
    yard = Yard(folder)
    others = [fork(lambda n=n: watch(yard, times, n)) for n in range(READERS)] + [fork(lambda: compact(yard))]
    writers = {fork(lambda n=n: write(yard, n)): n for n in range(times)}
    killed = kill_some(yard, writers, random.Random(seed))
    yard.stop.touch()
    for pid in others:
        os.waitpid(pid, 0)
    yard.told("parent").write_text(json.dumps({"killed": killed}))


def fork(act: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        act()
    except BaseException:
        import traceback

        traceback.print_exc(limit=-3)
        os._exit(1)
    os._exit(0)


def kill_some(yard: Yard, writers: dict[int, int], dice: random.Random) -> list[int]:
    """Wait for all writers; a third of them is killed, each after a drawn number of attempts and a drawn moment more."""
    victims = dice.sample(sorted(writers.values()), round(len(writers) * SHARE_KILLED))
    after = {writer: (dice.randrange(APPENDS), dice.uniform(0, MAX_DELAY_S)) for writer in victims}
    due: dict[int, float] = {}
    killed: list[int] = []
    running = dict(writers)
    campaign_pid = os.getppid()
    while running:
        if os.getppid() != campaign_pid:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
            raise SystemExit("the campaign has ended")
        now = time.monotonic()
        for pid, writer in list(running.items()):
            if writer in after and writer not in due:
                number, delay_s = after[writer]
                if len(yard.acknowledged(writer)) >= number:
                    due[writer] = now + delay_s
            if due.get(writer, now + 1) <= now and writer not in killed:
                os.kill(pid, signal.SIGKILL)
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del running[pid]
                if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
                    killed.append(writer)
        time.sleep(POLL_S)
    return killed


def write(yard: Yard, writer: int) -> None:
    registry = Registry.open(yard.registry)
    noted = os.open(yard.acknowledgements(writer), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in range(APPENDS):
        attempt, _ = sample(writer, number)
        marker = registry.begin(attempt.trial, attempt.provenance, attempt.attempt_id)
        registry.append(attempt)
        os.write(noted, f"{attempt.attempt_id}\n".encode())
        os.fsync(noted)
        registry.end(marker)
        if (number + 1 + FOLD_APART * writer) % FOLD_EVERY == 0:
            registry.fold(attempt.provenance.invocation)


def watch(yard: Yard, times: int, reader: int) -> None:
    """Read in a loop, with a fresh reader each time, as a command does; every second time by SQL."""
    wrong: list[str] = []
    rounds = 0
    while not yard.stop.exists():
        before = {name for writer in range(times) for name in yard.acknowledged(writer)}
        try:
            wrong += look(Registry.open(yard.registry, create=False), before, by_sql=rounds % 2 == reader % 2)
        except Exception as exc:  # a reader that fails, whatever it raises, is what is counted
            wrong.append(f"read {rounds} failed: {type(exc).__name__}: {exc}")
        rounds += 1
    yard.told(f"reader-{reader}").write_text(json.dumps({"rounds": rounds, "wrong": wrong}))


def look(registry: Registry, before: set[str], by_sql: bool) -> list[str]:
    """What is wrong with what a reader sees now. before: what was acknowledged before it looked."""
    columns = ["attempt_id", "status", "log"]
    table = registry.query(f"SELECT {', '.join(columns)} FROM attempts") if by_sql else registry.table(columns).select(columns)
    count, wrong = Counter(table["attempt_id"].to_pylist()), []
    wrong += [f"{name} stands {n} times" for name, n in count.items() if n > 1]
    wrong += [f"{name} was acknowledged and is not there" for name in before - count.keys()]
    for name, status, log in zip(*(column.to_pylist() for column in table.columns), strict=True):
        # What a killed writer was at is `interrupted` as soon as somebody sweeps; it was never acknowledged.
        if (status, log) != ("ok", log_of(name)) and (status != "interrupted" or name in before):
            wrong.append(f"{name} is {status} and says {log!r}")
    return wrong + [f"a warning: {text}" for text in registry.warnings]


def log_of(attempt_id: str) -> str:
    """What `make_sample` wrote into its log."""
    number = int(attempt_id, 16)
    return f"attempt {number} of inv-{number // 1000}\n"


def compact(yard: Yard) -> None:
    """Compact in a loop, all of it every fourth time, and delete what was replaced for a while."""
    wrong: list[str] = []
    rounds = 0
    while not yard.stop.exists():
        try:
            registry = Registry.open(yard.registry)
            registry.compact(everything=rounds % 4 == 3)
            registry.remove_replaced(grace_s=GRACE_S)
        except Exception as exc:  # counted, as in `watch`
            wrong.append(f"round {rounds} failed: {type(exc).__name__}: {exc}")
        rounds += 1
        time.sleep(PAUSE_S)
    yard.told("compacting").write_text(json.dumps({"rounds": rounds, "wrong": wrong}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
