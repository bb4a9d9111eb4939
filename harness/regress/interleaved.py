"""Two versions of one kernel, measured in turn on one machine: A B B A, round by round; faster, slower, same or ambiguous.

A sequence of all A, then all B, takes a drift of the machine for a difference. Here one warm process of each version waits
while the other measures, and what drifts slowly cancels within a round. Each round gives one log ratio of B to A.
"""

from __future__ import annotations

import json
import math
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

from harness.errors import HarnessError
from harness.stats import Interval, t_interval
from harness.worker.environment import worker_environment

Word = Literal["faster", "slower", "same", "ambiguous"]
Version = Literal["A", "B"]
ORDER: tuple[Version, ...] = ("A", "B", "B", "A")
CONFIDENCE = 0.99  # of the interval over rounds
PAIRS_CONFIDENCE = 0.95  # of the interval over pairs of processes, of which there are few
SAME = 0.03
BLOCK_S = 0.02
REPLY_S = 600.0  # a first call may compile
CODE_FOLDERS = ("plugins", "src", ".")
MAX_SAID = 2000  # characters of a server's stderr
CONTENDED = 1.2


@dataclass(frozen=True)
class Subject:
    """What is measured in both versions. case: parameters of the kernel. region "": forward and backward where there are."""

    kernel: str
    implementation: str
    case: Mapping[str, Any]
    region: str = ""
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 1


@dataclass(frozen=True)
class Rounds:
    """How much is measured: `pairs` times two fresh processes, each pair for `rounds` rounds of four blocks."""

    pairs: int = 4
    rounds: int = 8
    block_s: float = BLOCK_S


@dataclass(frozen=True)
class Block:
    """What one version took for its calls."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Comparison:
    """word: what is said of B against A. interval: of the mean log ratio by `clock`; wall: the same by wall seconds.

    ratios: by pair of processes, the log ratio of each round. call_s: medians, seconds a call of A and of B by `clock`.
    """

    subject: Subject
    word: Word
    clock: Literal["cpu", "wall"]
    interval: Interval
    wall: Interval
    ratios: tuple[tuple[float, ...], ...]
    call_s: tuple[float, float]
    contended: bool

    @property
    def ratio(self) -> float:
        return math.exp(self.interval.mean)

    def lines(self) -> list[str]:
        """For people, the verdict first."""
        s = self.subject
        case = ", ".join(f"{k}={v}" for k, v in s.case.items())
        shown = f"{span(self.interval)} by {self.clock} time, {span(self.wall)} by wall,"
        rounds = f"{sum(map(len, self.ratios))} rounds in {len(self.ratios)} pairs of processes"
        lines = [
            f"{self.word}: B takes {shown} of A's time; intervals of {rounds}",
            f"{s.kernel}/{s.implementation} ({case}) {s.device} {s.dtype} {s.region}: "
            f"{self.call_s[0] * 1e6:.4g} us -> {self.call_s[1] * 1e6:.4g} us a call",
        ]
        if self.contended:
            lines.append("contended: other processes took the core; wall seconds are theirs too")
        if self.word == "ambiguous":
            lines.append(
                f"`same` needs the interval within {SAME:.0%}; more --pairs or --rounds may settle it, on a quiet machine"
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio}


def span(interval: Interval) -> str:
    """The ratio and its interval: "x1.1502 [1.1463, 1.1541]"."""
    low, high = (math.nan if end is None else math.exp(end) for end in (interval.low, interval.high))
    return f"x{math.exp(interval.mean):.4f} [{low:.4f}, {high:.4f}]"


# The verdict, pure ----------------------------------------------------------------------------------------------------


def log_ratio(blocks: Sequence[tuple[Version, float]]) -> float:
    """Of one round: the log of B's seconds over A's."""
    a, b = (math.fsum(s for version, s in blocks if version == which) for which in ("A", "B"))
    return math.log(b / a)


def verdict(ratios: Sequence[Sequence[float]], same: float = SAME) -> tuple[Word, Interval]:
    """ratios: log ratios of rounds, by pair of processes. The word, and the interval of their mean that it rests on.

    `same` demands the interval inside +-`same`: no significance is no sameness.
    """
    interval = mean_interval(ratios)
    if interval.low is None or interval.high is None:
        return "ambiguous", interval
    if math.log1p(-same) <= interval.low and interval.high <= math.log1p(same):
        return "same", interval
    if interval.low > 0:
        return "slower", interval
    return "faster" if interval.high < 0 else "ambiguous", interval


def mean_interval(ratios: Sequence[Sequence[float]]) -> Interval:
    """The hull of two t intervals of the mean log ratio: over all rounds, and over the means of the pairs of processes.

    Why t: within a round drift cancels, so rounds are nearly independent; each is a sum of many calls, so nearly normal; there
    are few of them, where a bootstrap covers too little; and one disturbed round only widens the interval: it makes the answer
    ambiguous, never wrong. Why over pairs too: what differs from process to process (where code and data happen to lie) moves
    all rounds of a pair together. One pair alone cannot show it.
    """
    over_rounds = t_interval([r for pair in ratios for r in pair], CONFIDENCE)
    if len(ratios) == 1 or over_rounds.low is None or over_rounds.high is None:
        return over_rounds
    over_pairs = t_interval([math.fsum(pair) / len(pair) for pair in ratios], PAIRS_CONFIDENCE)
    assert over_pairs.low is not None  # two pairs or more
    assert over_pairs.high is not None
    return replace(over_rounds, low=min(over_rounds.low, over_pairs.low), high=max(over_rounds.high, over_pairs.high))


# The measurement ------------------------------------------------------------------------------------------------------


def compare(a: Path, b: Path, subject: Subject, rounds: Rounds | None = None) -> Comparison:
    """Measure the kernel as the code in folder a has it, and as the code in folder b has it.

    Raises HarnessError: one of them has no such kernel, computes a wrong result, or does not come from its folder.
    """
    rounds = rounds or Rounds()
    clock: Literal["cpu", "wall"] = "cpu" if subject.device == "cpu" and subject.threads == 1 else "wall"
    measured: list[list[list[tuple[Version, Block]]]] = []
    calls = 1
    for pair in range(rounds.pairs):
        folders: dict[Version, Path] = {"A": a, "B": b}
        with ExitStack() as stack:
            order: tuple[Version, ...] = ("A", "B") if pair % 2 == 0 else ("B", "A")  # who starts first is no version's
            servers = {v: stack.enter_context(server(v, folders[v], subject.threads)) for v in order}
            ready = {v: prepare(servers[v], subject) for v in order}
            subject = replace(subject, region=ready["A"]["region"])
            if not measured:
                calls = max(1, math.ceil(rounds.block_s / max(r["call_s"] for r in ready.values())))
            measured.append([[(v, servers[v].measure(calls)) for v in ORDER] for _ in range(rounds.rounds)])
    ratios, walls = ([[log_ratio([(v, seconds(b, c)) for v, b in r]) for r in pair] for pair in measured]
                     for c in ("cpu" if clock == "cpu" else "wall", "wall"))  # fmt: skip
    word, interval = verdict(ratios)
    blocks = [block for pair in measured for r in pair for block in r]
    a_s, b_s = (median(seconds(b, clock) for v, b in blocks if v == which) / calls for which in ("A", "B"))
    busy = clock == "cpu" and sum(b.wall_s for _, b in blocks) > CONTENDED * sum(b.cpu_s for _, b in blocks)
    return Comparison(subject, word, clock, interval, verdict(walls)[1], tuple(map(tuple, ratios)), (a_s, b_s), busy)


def seconds(block: Block, clock: str) -> float:
    return block.cpu_s if clock == "cpu" else block.wall_s


class Server:
    """A warm process with one version of the code. It answers one request at a time and sleeps in between."""

    def __init__(self, name: Version, folder: Path, process: subprocess.Popen[bytes], said: Path) -> None:
        self.name, self.folder = name, folder
        self._process, self._said = process, said
        self._buffer = b""

    def request(self, message: Mapping[str, Any], timeout_s: float = REPLY_S) -> dict[str, Any]:
        """Raises HarnessError for a server that fails, dies or does not answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self.error("ended") from None
        told: dict[str, Any] = json.loads(self._line(time.monotonic() + timeout_s))
        if "failed" in told:
            raise HarnessError(f"{self.name} ({self.folder}): {told['failed']}")
        return told

    def measure(self, calls: int) -> Block:
        return Block(**self.request({"measure": calls}))

    def error(self, what: str) -> HarnessError:
        said = self._said.read_text(errors="replace")[-MAX_SAID:].strip()
        return HarnessError(f"{self.name} ({self.folder}): its process {what}" + (f":\n{said}" if said else ""))

    def _line(self, deadline: float) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise self.error("does not answer")
            read = os.read(self._process.stdout.fileno(), 1 << 16)
            if not read:
                raise self.error("ended")
            self._buffer += read
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


@contextmanager
def server(name: Version, folder: Path, threads: int) -> Iterator[Server]:
    """One that runs until the block ends; its standard input ends with us, and it with that."""
    program = Path(__file__).with_name("measurer.py")
    paths = [str(path) for sub in CODE_FOLDERS if (path := (folder / sub).resolve()).is_dir()]
    inherited = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    environment = worker_environment(threads) | {"PYTHONPATH": os.pathsep.join([*paths, *inherited])}
    with tempfile.TemporaryDirectory(prefix="harness-interleaved-") as scratch:
        said = Path(scratch) / "stderr"
        with said.open("wb") as errors:
            # -P: the program's own folder must not be on the path, its neighbours would hide modules of the same names.
            process = subprocess.Popen(
                [sys.executable, "-P", str(program)], cwd=scratch, env=environment,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        try:
            yield Server(name, folder, process, said)
        finally:
            process.kill()
            process.communicate()


def prepare(of: Server, subject: Subject) -> dict[str, Any]:
    """Load, check and warm up; raises HarnessError where the code is not the folder's."""
    ready = of.request({"prepare": asdict(subject)})
    folder = of.folder.resolve()
    if not any(Path(ready[name]).resolve().is_relative_to(folder) for name in ("home", "harness")):
        raise HarnessError(
            f"{of.name} ({of.folder}): kernel {subject.kernel!r} comes from {ready['home']}, which this folder does not hold; "
            "run it in the repository of the kernel's plugin"
        )
    return ready


# Commits --------------------------------------------------------------------------------------------------------------


@contextmanager
def two_versions(repository: Path, between: str) -> Iterator[tuple[Path, Path]]:
    """Folders with the code of "A..B"; "A..": B is the repository's own folder as it stands. Removed at the end.

    Raises HarnessError for what is no pair of commits.
    """
    a, dots, b = between.partition("..")
    if not dots or not a or b.startswith("."):
        raise HarnessError(f"--interleaved {between!r}: write two commits as A..B, or A.. for A against the folder as it is")
    root = Path(git(repository, "rev-parse", "--show-toplevel"))
    commits = [resolve(root, name) for name in (a, b) if name]
    with tempfile.TemporaryDirectory(prefix="harness-versions-") as scratch:
        made: list[Path] = []
        try:
            for number, commit in enumerate(commits):
                folder = Path(scratch) / f"{'AB'[number]}-{commit[:8]}"
                made.append(folder)  # before it is there: who is stopped in between must remove it too
                git(root, "worktree", "add", "--detach", "--force", str(folder), commit)
            yield made[0], made[1] if b else root
        finally:
            for folder in filter(Path.exists, made):
                git(root, "worktree", "remove", "--force", str(folder))


def resolve(repository: Path, name: str) -> str:
    """The commit's full hash."""
    try:
        return git(repository, "rev-parse", "--verify", "--end-of-options", name + "^{commit}")
    except HarnessError as exc:
        raise HarnessError(f"--interleaved: {name!r} is no commit of {repository}; `git log` lists them") from exc


def git(repository: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=True)
    except OSError as exc:
        raise HarnessError(f"git does not start ({exc.strerror}); install it") from exc
    except subprocess.CalledProcessError as exc:
        raise HarnessError(f"git {arguments[0]} in {repository}: {exc.stderr.strip()}") from exc
    return done.stdout.strip()
