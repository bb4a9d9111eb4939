"""One trial in one process: `run_trial` in this one, `python -m harness.worker SPEC OUT` in one of its own.

Whatever a plugin does short of ending the process becomes an `Outcome`; what it does to the process itself (a signal, an
exit, a limit that only others see) is the executors' to find. Imports torch only when a trial runs.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.catalogue import Catalogue, load_catalogue
from harness.errors import BudgetSpent, Diverged, HarnessError, Invalid, MissingError, Unsupported
from harness.identity import CORE
from harness.records import Outcome, Status, Trial
from harness.worker.environment import is_worker_environment, recorded, worker_environment
from harness.worker.processes import adopt_orphans, kill_children, limit_data

if TYPE_CHECKING:
    from harness.worker.measuring import Meter
    from harness.worker.sealing import Keeper
    from harness.worker.staging import Draft

MAX_ERROR = 4000  # characters of an error in a record; the log has the whole traceback
CPU_ALLOCATOR = ("DefaultCPUAllocator", "not enough memory", "std::bad_alloc", "Cannot allocate memory")


@dataclass(frozen=True)
class WorkerOptions:
    """What all trials of an executor share.

    scratch: the folder that gets a folder for each trial; a temporary one if None. threads: what OpenMP and BLAS start with,
    normally the trials' own. memory_bytes: RLIMIT_DATA on CPU. device_memory_share: of a GPU's memory, in (0, 1];
    executors divide it among those that run at once.
    timing_limit_s: for each region of a timing trial.
    """

    data_dir: Path | None = None
    cache_dir: Path | None = None
    scratch: Path | None = None
    threads: int = 1
    memory_bytes: int | None = None
    device_memory_share: float | None = None
    timing_limit_s: float = 20.0

    def to_json(self) -> dict[str, Any]:
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> WorkerOptions:
        """The inverse of `to_json`. Raises HarnessError for a key that is none."""
        unknown = sorted(set(data) - set(WorkerOptions.__dataclass_fields__))
        if unknown:
            raise HarnessError(f"worker options {unknown} are unknown; there are {sorted(WorkerOptions.__dataclass_fields__)}")
        paths = {name: Path(data[name]) for name in ("data_dir", "cache_dir", "scratch") if data.get(name) is not None}
        return WorkerOptions(**{**data, **paths})


def trial_from_json(data: Mapping[str, Any]) -> Trial:
    """The inverse of dataclasses.asdict, after a trip through JSON."""
    return Trial(**{**data, "measure": tuple(data["measure"])})


# In this process --------------------------------------------------------------------------------------------------------


def run_trial(trial: Trial, catalogue: Catalogue, options: WorkerOptions, keeper: Keeper | None = None) -> Outcome:
    """Load, seal, solve, score; every exception becomes a status. Torch's global state is afterwards as it was before.

    keeper holds the seal's key outside this process's memory; a pipe's buffer unless given. Where the outcome has blobs they
    lie in a folder of options.scratch, which is then the caller's to remove.
    """
    from harness.timing import StopRule
    from harness.worker.measuring import Meter
    from harness.worker.sealing import PipeKeeper
    from harness.worker.staging import Draft, run_stages

    meter, draft, own_keeper, process = Meter(), Draft(), None, os.getpid()
    started_at = datetime.now(UTC).isoformat(timespec="microseconds")
    if options.scratch is not None:
        options.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)  # another trial's plugin may have deleted it
    scratch = Path(tempfile.mkdtemp(prefix="trial-", dir=options.scratch)).resolve()
    if keeper is None:
        keeper = own_keeper = PipeKeeper()
    verdict: tuple[Status, str, str] = ("ok", "", "")
    try:
        with torch_state(trial):
            rule = StopRule(limit_s=options.timing_limit_s)
            run_stages(trial, catalogue, keeper, scratch, options.cache_dir, rule, meter, draft)
        if draft.not_finite:
            verdict = ("diverged", f"not finite: {', '.join(draft.not_finite)}", "")
    except BaseException as exc:  # a plugin may raise anything, SystemExit too
        verdict = judge(exc, options)
        if verdict[0] not in ("unsupported", "diverged"):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # a plugin may have closed stderr
                traceback.print_exception(exc)  # the executor keeps it as the attempt's log
    finally:
        if own_keeper is not None:
            own_keeper.close()
    if os.getpid() != process:
        os._exit(0)  # a process that the method forked came through here: the trial's own goes on, this one must touch nothing
    outcome = to_outcome(verdict, draft, meter, started_at)
    if not outcome.blobs:
        shutil.rmtree(scratch, ignore_errors=True)
    return outcome


@contextlib.contextmanager
def torch_state(trial: Trial) -> Iterator[None]:
    """Threads, deterministic algorithms and generators for a trial; as before afterwards. Raises Unsupported without CUDA."""
    import torch

    from harness.worker.scoring import kept_generators, set_threads

    device = torch.device(trial.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise Unsupported("this process sees no CUDA device")
    threads, dtype, grad = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
    deterministic, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    benchmark = torch.backends.cudnn.benchmark
    with kept_generators(device):
        try:
            set_threads(trial.threads)
            torch.use_deterministic_algorithms(True, warn_only=True)
            memory.fill_uninitialized_memory = False  # it would write every new tensor once more
            torch.backends.cudnn.benchmark = False
            yield
        finally:
            set_threads(threads)
            torch.set_default_dtype(dtype)
            torch.set_grad_enabled(grad)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            memory.fill_uninitialized_memory = fill
            torch.backends.cudnn.benchmark = benchmark


def judge(exc: BaseException, options: WorkerOptions) -> tuple[Status, str, str]:
    """Status, text and the limit that fired, if one did."""
    import torch

    where = location(exc)
    text = f"{type(exc).__name__}: {exc}"[:MAX_ERROR]
    match exc:
        case Unsupported():
            return "unsupported", str(exc), ""
        case MissingError() if type(exc) is MissingError:
            return "unsupported", str(exc), ""
        case Diverged():
            return "diverged", str(exc), ""
        case Invalid():
            return "invalid", str(exc), ""
        case HarnessError():
            return "failed", str(exc), ""
        case torch.OutOfMemoryError():
            return "oom", text + where, "device_memory"
        case MemoryError():
            return "oom", text + where, "rlimit_data" if options.memory_bytes else ""
        case RuntimeError() if any(sign in str(exc) for sign in CPU_ALLOCATOR):
            return "oom", text + where, "rlimit_data" if options.memory_bytes else ""
        case KeyboardInterrupt():
            return "interrupted", "interrupted", ""
        case BudgetSpent():
            return "failed", f"the budget of {exc} ended outside solve{where}", ""
    return "failed", text + where, ""


def location(exc: BaseException) -> str:
    """ " (file.py:12 in solve)": the innermost frame that is neither the core's nor torch's or NumPy's, else the innermost."""
    frames = traceback.extract_tb(exc.__traceback__)
    core = (CORE, CORE / "worker")
    outside = [f for f in frames if Path(f.filename).parent not in core and not {"torch", "numpy"} & {*Path(f.filename).parts}]
    frame = (outside or frames)[-1] if frames else None
    return f" ({Path(frame.filename).name}:{frame.lineno} in {frame.name})" if frame else ""


def to_outcome(verdict: tuple[Status, str, str], draft: Draft, meter: Meter, started_at: str) -> Outcome:
    status, error, limit = verdict
    ctx = draft.ctx
    return Outcome(
        status=status,
        error=error,
        limit=limit,
        measurements=draft.measurements,
        series=draft.series,
        curve=draft.curve,
        timings=draft.timings,
        spent=ctx.clocks.amounts() if ctx else {},
        diagnostics=dict(ctx.diagnostics if ctx else draft.diagnostics),
        blobs=tuple(ctx.blobs) if ctx else (),
        resources=meter.read(ctx.device if ctx else None, ctx.clocks.wall_s if ctx else None, draft.params),
        started_at=started_at,
        environment=describe_process(),
    )


def describe_process() -> dict[str, Any]:
    """What of this process can change a number: threads, settings read at start, the build of torch."""
    import torch

    return {
        "settings": recorded(),
        "deterministic": "warn_only",
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "python": sys.version.split()[0],
    }


# In a process of its own ------------------------------------------------------------------------------------------------


def prepare_process(trial: Trial, options: WorkerOptions) -> None:
    """First thing in a process that runs nothing but this trial: devices, folders, limits, traces of crashes."""
    # A CPU trial must not meet a GPU by accident; a GPU trial sees what the executor left it.
    if not trial.device.startswith("cuda"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    for name, folder in (("HARNESS_DATA_DIR", options.data_dir), ("HARNESS_CACHE_DIR", options.cache_dir)):
        if folder is not None:
            os.environ[name] = str(folder)
    if options.memory_bytes is not None and not trial.device.startswith(
        "cuda"
    ):  # CUDA reserves address space by the hundred GB
        limit_data(options.memory_bytes, trial.threads)
    if trial.threads != options.threads:
        import threadpoolctl  # type: ignore[import-untyped]

        threadpoolctl.threadpool_limits(trial.threads)
    if trial.device.startswith("cuda") and options.device_memory_share is not None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.set_per_process_memory_fraction(options.device_memory_share, trial.device)


def flush_streams() -> None:
    """What is printed leaves the process; a plugin may have closed either stream."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def trace_crashes() -> None:
    """Where every thread is goes to stderr on a crash, and on SIGUSR1, which executors send to a worker past its time."""
    stderr = os.dup(2)  # a plugin may close or redirect 2
    faulthandler.enable(stderr)
    faulthandler.register(signal.SIGUSR1, stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the trial of SPEC and write its outcome to OUT, whole or not at all. Exit code 0 whatever its status."""
    parser = argparse.ArgumentParser(prog="python -m harness.worker", description=main.__doc__)
    parser.add_argument("spec", type=Path, metavar="SPEC", help='JSON: {"trial": {...}, "options": {...}}')
    parser.add_argument("out", type=Path, metavar="OUT", help="gets the outcome as JSON")
    named = parser.parse_args(argv)
    try:
        spec = json.loads(named.spec.read_text())
        trial, options = trial_from_json(spec["trial"]), WorkerOptions.from_json(spec.get("options", {}))
    except (OSError, ValueError, KeyError, TypeError, HarnessError) as exc:
        print(f"{named.spec}: no trial to run: {type(exc).__name__}: {exc}", file=sys.stderr)
        return 2
    if not is_worker_environment(options.threads):
        # malloc, OpenMP and the hash seed are read when a process starts: start again, with them set.
        arguments = [sys.executable, "-m", "harness.worker", *(sys.argv[1:] if argv is None else argv)]
        os.execve(sys.executable, arguments, worker_environment(options.threads))
    trace_crashes()
    adopt_orphans()
    prepare_process(trial, options)
    outcome = run_trial(trial, load_catalogue(), options)
    kill_children(spare=())
    write_outcome(outcome, named.out)
    return 0


def write_outcome(outcome: Outcome, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as file:
        json.dump(outcome.to_json(), file, default=str)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
