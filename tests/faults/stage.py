"""A suite of toy trials, run by `harness run` in a process of its own and watched from outside.

What the harness says of itself is compared with what others saw: each trial appends a line to a file of its own when `solve`
begins and when it ends (`Stage.seen`), and a wrapper around the drawing of progress appends one for each attempt that the
screen was told of (`Stage.told`). Neither file is in the registry or in a scratch folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.registry import Registry
from tests.helpers import PluginSite, marked_processes, open_plugin_site
from tests.invoking import environment_of

MARK = "FAULTS_MARK"
PARALLEL = 2
ENDS_WITHIN_S = 180.0
GONE_WITHIN_S = 10.0
LOOK_S = 0.003
NAP_S = 0.01  # the shortest trial sleeps so long

# The method does what the file plan.json says for its seed, and nothing else than `good` otherwise.
METHODS = '''
import hashlib, io, json, os, pathlib, random, resource, shutil, signal, subprocess, sys, time, uuid

FOLDER = pathlib.Path(os.environ.get("FAULTS_FOLDER", "/nowhere"))

def tell(event, seed, nonce, **more):
    """One line, one write: lines of several processes do not mix."""
    line = json.dumps({"event": event, "seed": seed, "nonce": nonce, "pid": os.getpid(), "at_s": time.monotonic(), **more})
    file = os.open(FOLDER / "seen", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode() + b"\\n")
    os.close(file)

def toils(problem, ctx, params):
    plan = json.loads((FOLDER / "plan.json").read_text())
    misdeed, nonce = plan["misdeeds"].get(str(ctx._seed)), uuid.uuid4().hex
    tell("begins", ctx._seed, nonce, misdeed=misdeed)
    time.sleep(plan["nap_s"] * (1 + ctx._seed * 7 % 5))
    solution = globals()[misdeed](ctx) if misdeed else None
    if solution is None:
        solution = good(problem, ctx, params)
    ctx.log(nonce=nonce)
    tell("ends", ctx._seed, nonce)
    return solution

def raises(ctx):
    raise ValueError("boom")

def exits(ctx):
    os._exit(7)

def kills_itself(ctx):
    os.kill(os.getpid(), signal.SIGKILL)

def hangs(ctx):
    time.sleep(1000)

def returns_nan(ctx):
    class Nan:
        def guess(self, x):
            return torch.full_like(x, float("nan"))
    return Nan()

def asks_for_too_much(ctx):
    return torch.ones(2 << 30)

def fills_memory_in_children(ctx):
    for _ in range(8):
        if os.fork() == 0:
            block = bytearray(100 << 20)
            block[::4096] = b"x" * len(block[::4096])
            time.sleep(1000)
    time.sleep(1000)

def leaves_children(ctx):
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in range(1, 32):
                if number not in (signal.SIGKILL, signal.SIGSTOP):
                    signal.signal(number, signal.SIG_IGN)
            time.sleep(1000)
        os._exit(0)

def closes_its_streams(ctx):
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.close()
    for descriptor in (0, 1, 2):
        try:
            os.close(descriptor)
        except OSError:
            pass

def prints_100_MB(ctx):
    for _ in range(1000):
        sys.stdout.write("x" * 100_000)

def deletes_scratch(ctx):
    """Its own folder, and the one that holds those of all trials."""
    shutil.rmtree(ctx.scratch)
    shutil.rmtree(ctx.scratch.parents[1], ignore_errors=True)

def changes_everything(ctx):
    os.chdir("/")
    os.environ.clear()
    random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)

def writes_into_the_registry(ctx):
    """Rubbish into each folder; of the newest records one overwritten, one cut short, one deleted; and one forged."""
    import pyarrow as pa, pyarrow.parquet as pq
    root, rubbish = FOLDER / "registry", []
    for place in sorted(p for p in root.iterdir() if p.is_dir()):
        for name in ("rubbish", hashlib.sha256(os.urandom(9)).hexdigest() + ".parquet"):
            (place / name).write_bytes(os.urandom(64))
            rubbish.append(f"{place.name}/{name}")
    records = []
    for path in (root / "attempts").glob("*.parquet"):
        if f"attempts/{path.name}" not in rubbish:
            records.append((path.stat().st_mtime_ns, path))
    newest = [path for _, path in sorted(records)[-4:]]
    overwritten, cut, deleted, copied = newest
    record, sink = pq.read_table(copied), pa.BufferOutputStream()
    changes = {"attempt_id": record["attempt_id"][0].as_py()[:12] + uuid.uuid4().hex[:20], "error": "forged"}
    for name, text in changes.items():
        record = record.set_column(record.schema.get_field_index(name), name, pa.array([text]))
    pq.write_table(record, sink, store_schema=False)
    forged = sink.getvalue().to_pybytes()
    (root / "attempts" / (hashlib.sha256(forged).hexdigest() + ".parquet")).write_bytes(forged)
    overwritten.write_bytes(os.urandom(overwritten.stat().st_size))
    os.truncate(cut, cut.stat().st_size // 2)
    deleted.unlink()
    tell("sabotages", ctx._seed, "", rubbish=rubbish, forged=changes["attempt_id"], damaged=[p.name for p in newest[:3]])
'''
# NaN has to reach the metric: `nan == y` is False, which would be a plain wrong guess.
SCORE = """
def score(held, solution, params, ctx):
    x, y = held
    guess = solution.guess(x)
    right = guess.mean() if guess.is_floating_point() else (guess == y).double().mean()
    return {"accuracy": right, "first": float(x[0])}
"""
SUITE = """schema: harness/suite/1
name: toils
tasks: [signs]
methods: [toils]
seeds: SEEDS
budget: {steps: 20}
limits: {timeout: TIMEOUT, memory: 400MiB}
"""
LAUNCH = """
import json, os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what it puts into the background deaf to it
from harness.cli import drawing, main

finished = drawing.Tally.finished

def told(self, attempt):
    finished(self, attempt)
    line = {"attempt_id": attempt.attempt_id, "seed": attempt.trial.seed, "status": attempt.outcome.status}
    file = os.open(os.environ["FAULTS_FOLDER"] + "/told", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, json.dumps(line).encode() + b"\\n")
    os.close(file)

drawing.Tally.finished = told
open(os.environ["FAULTS_FOLDER"] + "/launched", "w").close()
main()
"""


@dataclass
class Stage:
    """Where a suite runs again and again, each time into a registry that `clear` makes new.

    environment: what further variables the commands get.
    """

    folder: Path
    seeds: int
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def registry(self) -> Path:
        return self.folder / "registry"

    def clear(self) -> None:
        """No registry, no oracle, nothing planned."""
        for name in ("registry", "tmp"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for name in ("seen", "told", "launched"):
            (self.folder / name).unlink(missing_ok=True)
        (self.folder / "tmp").mkdir()
        self.environment.clear()
        self.plan({})

    def plan(self, misdeeds: Mapping[int, str], nap_s: float = NAP_S) -> None:
        """misdeeds: seed -> what its trial does, from now on. nap_s: trials sleep 1 to 5 times that."""
        text = json.dumps({"misdeeds": {str(seed): name for seed, name in misdeeds.items()}, "nap_s": nap_s})
        aside = self.folder / "plan.json.new"
        aside.write_text(text)
        aside.replace(self.folder / "plan.json")

    def start(self, *options: str) -> Running:
        """`harness run` on its way."""
        (self.folder / "launched").unlink(missing_ok=True)
        given = {"TMPDIR": str(self.folder / "tmp"), "HARNESS_CACHE_DIR": str(self.folder / "cache"), MARK: self.mark,
                 "FAULTS_FOLDER": str(self.folder), "OMP_NUM_THREADS": "1"}  # fmt: skip
        command = [sys.executable, "launch.py", "run", "suite.yaml", "-j", str(PARALLEL), "--registry", str(self.registry)]
        with (self.folder / "out").open("wb") as out, (self.folder / "err").open("wb") as err:
            process = subprocess.Popen(
                [*command, *options], cwd=self.folder, env=environment_of(given | self.environment), process_group=0,
                stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            )  # fmt: skip
        return Running(self, process, len(self.seen()))

    def run(self, *options: str) -> Ended:
        """`harness run` to its end."""
        return self.start(*options).ended()

    def seen(self) -> list[dict[str, Any]]:
        """What the trials said of themselves: {"event": "begins" | "ends" | ..., "seed", "nonce", "pid", "at_s": monotonic}."""
        return read_lines(self.folder / "seen")

    def told(self) -> list[dict[str, Any]]:
        """The attempts that progress was told of: {"attempt_id", "seed", "status"}."""
        return read_lines(self.folder / "told")

    def rows(self) -> list[dict[str, Any]]:
        """All that the registry holds, by id; nothing where no command got so far as to make it."""
        if not (self.registry / "FORMAT").exists():
            return []
        return sorted(Registry.open(self.registry, create=False).attempts(), key=lambda row: row["attempt_id"])

    def left_over(self, within_s: float = GONE_WITHIN_S) -> list[int]:
        """Processes of the commands so far that are still there after a while; they are killed."""
        stop = time.monotonic() + within_s
        while (left := self.processes()) and time.monotonic() < stop:
            time.sleep(0.05)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return left

    def processes(self) -> list[int]:
        return marked_processes(MARK, self.mark)

    def scratch_folders(self) -> list[str]:
        """What is left in the temporary folder of the commands; torch keeps a cache there."""
        return sorted(p.name for p in (self.folder / "tmp").iterdir() if not p.name.startswith("torchinductor"))


@dataclass(frozen=True)
class Ended:
    """How a command ended. began: the seeds whose trials began during it, in order."""

    code: int
    out: str
    err: str
    began: tuple[int, ...]


@dataclass
class Running:
    """A `harness run` that has not been waited for. before: how many lines the oracle had when it started."""

    stage: Stage
    process: subprocess.Popen[bytes]
    before: int

    def begun(self) -> list[dict[str, Any]]:
        return [e for e in self.stage.seen()[self.before :] if e["event"] == "begins"]

    def reach(self, trials: int) -> bool:
        """Wait until so many trials have begun; False where the command ended first."""
        while len(self.begun()) < trials:
            if self.process.poll() is not None:
                return False
            time.sleep(LOOK_S)
        return True

    def launch(self) -> None:
        """Wait until the command line is imported."""
        while not (self.stage.folder / "launched").exists() and self.process.poll() is None:
            time.sleep(LOOK_S)

    def server(self) -> int | None:
        """The fork server's pid; None where there is none now."""
        for pid in self.stage.processes():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                # Workers are forks of the server and have its command line; its own parent tells it from them.
                parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
                if b"harness.executors.server" in words and parent == self.process.pid:
                    return pid
        return None

    def ended(self) -> Ended:
        """Wait for it. One that does not end is killed, and raises."""
        try:
            self.process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        out, err = ((self.stage.folder / name).read_text(errors="replace") for name in ("out", "err"))
        return Ended(self.process.returncode, out, err, tuple(e["seed"] for e in self.begun()))


@contextlib.contextmanager
def open_stage(folder: Path, seeds: int, timeout: str = "60s") -> Iterator[Stage]:
    """A stage with its plugin in place."""
    with open_plugin_site(folder / "site") as site:
        write_plugin(site)
        (folder / "suite.yaml").write_text(SUITE.replace("SEEDS", str(seeds)).replace("TIMEOUT", timeout))
        (folder / "launch.py").write_text(textwrap.dedent(LAUNCH))
        stage = Stage(folder, seeds)
        stage.clear()
        try:
            yield stage
        finally:
            stage.left_over(within_s=0.0)


def write_plugin(site: PluginSite) -> None:
    site.write_toy(METHODS + SCORE, ("toils",))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """One JSON object a line; a last line without its end, which a kill may leave, is no line."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]
