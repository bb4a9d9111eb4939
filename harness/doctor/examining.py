"""One function a question: facts of this machine in, findings out. Nothing is changed that is not put back at once."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.catalogue import Catalogue
from harness.data.cache import cache_root
from harness.data.rows import is_present
from harness.errors import HarnessError

State = Literal["ok", "warn", "fail"]
PYTHON = (3, 11)
PROBE_TIMEOUT_S = 180.0
COMPILER_TIMEOUT_S = 60.0
READING_S = 1e-6  # a clock that costs more to read shows in the timing of a small kernel
SMALL_BYTES, TINY_BYTES = 2 << 30, 100 << 20
BUSY = 0.5  # of the cores, by the load of the last minute
CXX = ("g++", "clang++", "c++")
# torch.compile's C++ needs all of this: a compiler of that standard, OpenMP, and Python's own header.
CXX_SOURCE = "#include <Python.h>\n#include <omp.h>\n#include <span>\nint main() { return omp_get_max_threads() < 1; }\n"
EXTRAS = {  # module: what lacks without it, the extra that has it
    "PIL": ("the data set cifar10-jpeg", "images"),
    "altair": ("the charts of `harness report`", "report"),
    "jinja2": ("the pages of `harness report`", "report"),
    "vl_convert": ("the charts of `harness report`", "report"),
}


@dataclass(frozen=True)
class Finding:
    """check: what was looked at. found: what is there. mend: what to do, "" where nothing has to be done.

    ok: nothing to do; warn: the rest works, something is left out, or timings are doubtful; fail: runs do not work.
    """

    check: str
    state: State
    found: str
    mend: str = ""


@dataclass(frozen=True)
class Place:
    """What is looked at. root: where /proc, /sys and /dev are read below."""

    registry: Path
    data_dir: Path | None
    root: Path = Path("/")


def examine(place: Place, catalogue: Catalogue) -> Iterator[Finding]:
    """Each finding as it is made; the order is that of a reader who mends from the top."""
    yield python()
    yield packages()
    probed = probe_torch()
    yield torch_build(probed)
    yield cuda(probed, place.root)
    yield cxx_compiler()
    yield c_compiler(probed)
    yield registry(place.registry)
    yield data_folder(place.data_dir, catalogue)
    yield cache(cache_root())
    yield disk({"registry": place.registry, "data folder": place.data_dir, "cache": cache_root()})
    yield plugins(catalogue)
    yield clock_source(place.root)
    yield clock_reading()
    yield governor(place.root)
    yield cores(place.root)
    yield memory(place.root)
    yield extras()
    yield git()


def python() -> Finding:
    found = f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}"
    if sys.platform != "linux":
        return Finding("python", "fail", f"{found}, on {sys.platform}", "use Linux: workers need its process controls")
    if sys.version_info < PYTHON:
        return Finding("python", "fail", found, f"install Python {PYTHON[0]}.{PYTHON[1]} or newer")
    return Finding("python", "ok", found)


def packages(name: str = "paper-harness") -> Finding:
    """Whether what the distribution asks for is installed, in the versions it asks for."""
    from packaging.requirements import Requirement

    try:
        asked = [Requirement(text) for text in importlib.metadata.requires(name) or ()]
    except importlib.metadata.PackageNotFoundError:
        return Finding(
            "packages", "fail", f"{name} runs without being installed", "pip install it: plugins are found by metadata"
        )
    asked = [one for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = []
    for one in asked:
        try:
            there = importlib.metadata.version(one.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{one.name} is missing")
            continue
        if not one.specifier.contains(there, prereleases=True):
            wrong.append(f"{one.name} is {there}, asked for {one.specifier}")
    if wrong:
        return Finding("packages", "fail", "; ".join(wrong), f"pip install --upgrade {name}")
    return Finding("packages", "ok", f"{len(asked)} requirements of {name} are met")


# torch --------------------------------------------------------------------------------------------------------------------


def probe_torch(command: tuple[str, ...] = (sys.executable, "-P", "-m", "harness.doctor.probe")) -> Mapping[str, Any]:
    """What torch says of itself, from a process of its own; {"error": ...} where that fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"no answer in {PROBE_TIMEOUT_S:.0f} s"}
    try:
        told: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        said = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        return {"error": said[-1][:300]}
    return told


def torch_build(probed: Mapping[str, Any]) -> Finding:
    if "error" in probed:
        return Finding("torch", "fail", f"cannot be imported: {probed['error']}", "pip install --force-reinstall 'torch>=2.10'")
    build = f"built for CUDA {probed['cuda_build']}" if probed["cuda_build"] else "built for the CPU"
    return Finding(
        "torch", "ok", f"{probed['version']}, {build}, {probed['capability']}, imported in {probed['import_s']:.1f} s"
    )


def cuda(probed: Mapping[str, Any], root: Path) -> Finding:
    """A GPU that cannot be used is a warning: a suite skips `cuda` with a note."""
    if "error" in probed:
        return Finding("cuda", "warn", "not known: torch cannot be imported", "see torch")
    devices = probed["devices"]
    if devices:
        if importlib.util.find_spec("pynvml") is None:
            return Finding("cuda", "warn", f"{', '.join(devices)}; clocks and throttling cannot be read",
                           "pip install 'paper-harness[cuda]'")  # fmt: skip
        return Finding("cuda", "ok", ", ".join(devices))
    has_gpu = any((root / path).exists() for path in ("dev/nvidia0", "proc/driver/nvidia/version"))
    if not has_gpu:
        return Finding("cuda", "ok", "no NVIDIA GPU here; suites skip `cuda` with a note")
    if not probed["cuda_build"]:
        return Finding("cuda", "warn", "a GPU is here, and this torch is built for the CPU",
                       "install a CUDA build of torch: https://pytorch.org/get-started/locally/")  # fmt: skip
    return Finding("cuda", "warn", f"a GPU is here, and torch cannot use it: {probed['reason'] or 'it gives no reason'}",
                   "compare `nvidia-smi` with the CUDA of torch; look at CUDA_VISIBLE_DEVICES")  # fmt: skip


# Compilers ----------------------------------------------------------------------------------------------------------------


def cxx_compiler() -> Finding:
    """torch.compile writes C++ for the CPU: tried on a program that needs what its code needs."""
    import sysconfig

    named = os.environ.get("CXX")
    compiler = next(filter(None, map(shutil.which, [named] if named else CXX)), None)
    left_out = "rows `compiled` on the CPU will fail"
    if compiler is None:
        sought = f"CXX={named!r}" if named else ", ".join(CXX)
        return Finding("g++", "warn", f"none is found ({sought}): {left_out}", "apt install g++, or set CXX to a C++ compiler")
    header = sysconfig.get_paths()["include"]
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "try.cpp", Path(folder) / "try"
        source.write_text(CXX_SOURCE)
        command = [compiler, "-std=c++20", "-fopenmp", f"-I{header}", str(source), "-o", str(made)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILER_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as exc:
            return Finding(
                "g++", "warn", f"{compiler} does not work: {exc}", "install g++ anew, or set CXX to another compiler"
            )
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "error" in line), "it says nothing")
        mend = "apt install python3-dev" if "Python.h" in said else "install a g++ of 11 or newer with OpenMP"
        return Finding("g++", "warn", f"{compiler} cannot compile what torch.compile writes ({said.strip()}): {left_out}", mend)
    return Finding("g++", "ok", f"{compiler} compiles C++20 with OpenMP and Python's header")


def c_compiler(probed: Mapping[str, Any]) -> Finding:
    """Our own CPU kernels are C, compiled at first use; without a compiler eager code runs, and its rows say so."""
    if "error" in probed:
        return Finding("gcc", "warn", "not tried: torch cannot be imported", "see torch")
    if probed["native"]:
        return Finding(
            "gcc", "warn", f"our C kernels fall back to eager code: {probed['native']}", "apt install gcc, or set CC"
        )
    return Finding("gcc", "ok", f"{probed['compiler']}: a C kernel was compiled, loaded and called")


# Folders ------------------------------------------------------------------------------------------------------------------


def registry(path: Path) -> Finding:
    """Proved by a file written, linked and flushed where records would go; then removed."""
    from harness.registry import Registry

    shown = f"{path.absolute()}"
    if path.exists() and not path.is_dir():
        return Finding("registry", "fail", f"{shown} is a file", "name a folder by --registry or HARNESS_REGISTRY")
    if path.is_dir() and any(path.iterdir()):
        try:
            warnings = Registry.open(path, create=False).warnings
        except HarnessError as exc:
            return Finding("registry", "fail", str(exc), "name another folder by --registry")
        if warnings:
            return Finding("registry", "fail", "; ".join(warnings), f"`harness verify --registry {path}` says more")
    where = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())
    if problem := cannot_write(where):
        return Finding("registry", "fail", f"{where} cannot take records ({problem})",
                       "make it writable, or name another folder by --registry or HARNESS_REGISTRY")  # fmt: skip
    return Finding("registry", "ok", f"{shown}, {'writable' if path.is_dir() else 'made by the first run'}")


def cannot_write(folder: Path) -> str:
    """Why a file cannot be written, linked to a second name and flushed there; "" where it can."""
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as place:
            first, second = Path(place) / "first", Path(place) / "second"
            with first.open("wb") as file:
                file.write(b"x")
                file.flush()
                os.fsync(file.fileno())
            os.link(first, second)
    except OSError as exc:
        return f"{exc.strerror or exc}"
    return ""


def data_folder(folder: Path | None, catalogue: Catalogue) -> Finding:
    """Presence only: digests are `harness data verify`'s."""
    wanted = [offer.spec for offer in catalogue.datasets if offer.spec.where == "folder"]
    if folder is None:
        return Finding("data folder", "warn", f"none is named: {len(wanted)} data sets are not here; embedded ones always are",
                       "set HARNESS_DATA_DIR, then `harness data list` and `harness data fetch NAME`")  # fmt: skip
    if not folder.is_dir():
        return Finding("data folder", "fail", f"{folder} is no folder",
                       "set HARNESS_DATA_DIR to one; `harness data fetch NAME` makes it")  # fmt: skip
    here = [set_ for set_ in wanted if is_present(set_, folder)]
    found = f"{folder}: {len(here)} of {len(wanted)} data sets are here"
    if not here:
        return Finding("data folder", "warn", found, "`harness data fetch NAME`; `harness data list` shows all")
    return Finding("data folder", "ok", found)


def cache(folder: Path) -> Finding:
    where = next(f for f in (folder.absolute(), *folder.absolute().parents) if f.is_dir())
    if problem := cannot_write(where):
        return Finding("cache", "warn", f"{where} cannot be written ({problem}): what is cached is made anew in each process",
                       "set HARNESS_CACHE_DIR to a folder that can be written")  # fmt: skip
    return Finding("cache", "ok", f"{folder}")


def disk(folders: Mapping[str, Path | None]) -> Finding:
    """The smallest of the disks that are written to."""
    free = {}
    for name, folder in folders.items():
        if folder is not None:
            there = next(f for f in (folder.absolute(), *folder.absolute().parents) if f.is_dir())
            free[name] = shutil.disk_usage(there).free
    found = ", ".join(f"{name} {amount / 1e9:.1f} GB" for name, amount in free.items()) + " free"
    least = min(free.values())
    mend = "free some, or name folders on another disk"
    return Finding("disk", "fail" if least < TINY_BYTES else "warn" if least < SMALL_BYTES else "ok", found,
                   mend if least < SMALL_BYTES else "")  # fmt: skip


def plugins(catalogue: Catalogue) -> Finding:
    if catalogue.broken:
        told = "; ".join(f"{broken.id} {broken.version}: {broken.error}" for broken in catalogue.broken)
        return Finding(
            "plugins", "fail", told, f"mend, or `pip uninstall {catalogue.broken[0].id.partition(':')[0]}`; the others work"
        )
    return Finding("plugins", "ok", f"{len(catalogue.plugins)} are loaded, none is broken")


# Clocks, cores, memory ------------------------------------------------------------------------------------------------------


def clock_source(root: Path) -> Finding:
    """The kernel's clock: one that is not in the CPU costs a call into the kernel, or drifts."""
    folder = root / "sys/devices/system/clocksource/clocksource0"
    now, available = read(folder / "current_clocksource"), read(folder / "available_clocksource").split()
    good = {"tsc", "arch_sys_counter", "kvm-clock"}
    if not now:
        return Finding(
            "clock source", "warn", "the kernel does not tell", "timings are as good as `harness machine check` finds them"
        )
    if now in good:
        return Finding("clock source", "ok", now)
    better = next((name for name in available if name in good), None)
    mend = (f"as root: echo {better} > /{folder.relative_to(root)}/current_clocksource" if better
            else "the kernel offers no better one; look at the noise that `harness machine check` finds")  # fmt: skip
    return Finding("clock source", "warn", f"{now}: slow to read", mend)


def clock_reading(reads: int = 2000) -> Finding:
    """What a reading costs, and the smallest step that is seen: the median of many."""
    seen = [time.perf_counter_ns() for _ in range(reads)]
    steps = sorted(later - earlier for earlier, later in itertools.pairwise(seen))
    median_s = steps[len(steps) // 2] * 1e-9
    found = f"a reading of perf_counter costs {median_s * 1e9:.0f} ns"
    if median_s > READING_S:
        return Finding("clock reading", "warn", found, "see clock source; kernels under 100 us are doubtful here")
    return Finding("clock reading", "ok", found)


def governor(root: Path) -> Finding:
    files = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor"))
    kinds = sorted({read(file) for file in files})
    if not files:
        return Finding("cpu governor", "ok", "the kernel tells none (a virtual machine); the host decides")
    if kinds == ["performance"]:
        return Finding("cpu governor", "ok", f"performance on {len(files)} CPUs")
    return Finding("cpu governor", "warn", f"{', '.join(kinds)}: the clock changes with the load, and timings with it",
                   "as root: cpupower frequency-set -g performance")  # fmt: skip


def cores(root: Path) -> Finding:
    """How many this process may use, and whether others use them."""
    usable = len(os.sched_getaffinity(0))
    load = float((read(root / "proc/loadavg") or "0").split()[0])
    quota, _, period = (read(root / "sys/fs/cgroup/cpu.max") or "max 100000").partition(" ")
    found = f"{usable} usable, load {load:.1f}"
    if quota != "max" and int(quota) < usable * int(period):
        share = int(quota) / int(period)
        return Finding("cores", "warn", f"{found}; a quota of {share:g} CPUs stops processes in the middle of a timing",
                       f"give whole cores (cpuset), or run with -j {max(1, int(share))}")  # fmt: skip
    if load > BUSY * usable:
        return Finding("cores", "warn", f"{found}: other work uses them", "time on a quiet machine; records say `contended`")
    return Finding("cores", "ok", found)


def memory(root: Path) -> Finding:
    told = {
        key: rest.split()[0]
        for key, _, rest in (line.partition(":") for line in read(root / "proc/meminfo").splitlines())
        if rest
    }
    if "MemAvailable" not in told:
        return Finding("memory", "warn", "the kernel does not tell", "look at `free -h`")
    available = int(told["MemAvailable"]) * 1024
    limit = read(root / "sys/fs/cgroup/memory.max")
    if limit.isdigit():
        available = min(available, int(limit))
    found = f"{available / 1e9:.1f} GB available"
    if available < SMALL_BYTES:
        return Finding("memory", "warn", found, "run with -j 1; a trial of a small net needs about 0.5 GB")
    return Finding("memory", "ok", found)


# Beside the flow ------------------------------------------------------------------------------------------------------------


def extras() -> Finding:
    lacking = {module: told for module, told in EXTRAS.items() if importlib.util.find_spec(module) is None}
    if not lacking:
        return Finding("extras", "ok", "pictures and pages can be made")
    without = sorted({what for what, _ in lacking.values()})
    names = ",".join(sorted({extra for _, extra in lacking.values()}))
    return Finding("extras", "warn", f"not here: {', '.join(sorted(lacking))}; without it no {', no '.join(without)}",
                   f"pip install 'paper-harness[{names}]'")  # fmt: skip


def git() -> Finding:
    if shutil.which("git") is None:
        return Finding("git", "warn", "is not installed: records will name no commit", "apt install git")
    return Finding("git", "ok", "records name the commit of the suite's folder")


def read(path: Path) -> str:
    """The content, "" where there is none to read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
