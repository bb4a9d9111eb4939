"""Plain C for CPU kernels: compiled with the machine's own compiler on first use, kept in a cache, called through ctypes.

A tenth of a second for a kernel of a hundred lines, where torch's own extension loader takes half a minute for its headers.
No C compiler: `load` raises `NoCompiler`, `why_not` says why; the caller then runs its eager code and says that it does.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path

from torch import Tensor

from harness.data.cache import cache_root
from harness.errors import MissingError
from harness.identity import digest

# -ffast-math is not among them: gcc 12 then links code that turns off denormals in the whole process.
FLAGS = ("-O3", "-march=native", "-std=gnu11", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math",
         "-ffp-contract=fast", "-Wall")  # fmt: skip
COMPILERS = ("cc", "gcc", "clang")
MAX_SAID = 2000  # characters of what a compiler says


class NoCompiler(MissingError):
    """There is no C compiler here, or what it makes cannot be loaded. The text says which, and the mend."""


def load(source: str, *, flags: Sequence[str] = ()) -> ctypes.CDLL:
    """The shared library of a C source; each process loads it once.

    The cache is keyed by source, flags, compiler and this CPU's features. flags are added to FLAGS; libraries (`-lm`) may be
    among them. Raises NoCompiler.
    """
    return _load(source, tuple(flags))


def why_not(source: str, *, flags: Sequence[str] = ()) -> str:
    """Why `load` would fail, "" where it works. The answer stays for as long as the process lives."""
    try:
        load(source, flags=flags)
    except NoCompiler as exc:
        return str(exc)
    return ""


def pointer(tensor: Tensor) -> ctypes.c_void_p:
    """The address of a tensor's first element, for an argument of a C function. It does not keep the tensor alive."""
    return ctypes.c_void_p(tensor.data_ptr())


@cache
def _load(source: str, flags: tuple[str, ...]) -> ctypes.CDLL:
    compiler = find_compiler()
    key = digest({"source": source, "flags": [*FLAGS, *flags], "compiler": version(compiler), "cpu": cpu_features()})
    path = cache_root() / "native" / f"{key}.so"
    if is_whole(path):
        try:
            return ctypes.CDLL(str(path))
        except OSError:
            pass  # of another C library: made anew
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        compile_into(compiler, source, flags, path)
    except OSError as exc:
        mend = "set HARNESS_CACHE_DIR to a folder that can be written"
        raise NoCompiler(f"{path.parent} cannot be written ({exc.strerror or exc}); {mend}") from exc
    try:
        return ctypes.CDLL(str(path))
    except OSError as exc:
        mend = "set HARNESS_CACHE_DIR to a folder from which programs may be loaded"
        raise NoCompiler(f"{path} was compiled and cannot be loaded ({exc}); {mend}") from exc


def compile_into(compiler: str, source: str, flags: Sequence[str], path: Path) -> None:
    """Whole or not at all: several processes may do it at once. Raises NoCompiler with what the compiler says, OSError."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        code, made = Path(folder) / "kernel.c", Path(folder) / "kernel.so"
        code.write_text(source)
        done = subprocess.run([compiler, *FLAGS, "-o", str(made), str(code), *flags], capture_output=True, text=True)
        if done.returncode:
            raise NoCompiler(f"{compiler} cannot compile this: {done.stderr.strip()[-MAX_SAID:]}")
        content = made.read_bytes()
        made.write_bytes(content + sha256(content).digest())  # what follows the last section is nothing to the loader
        made.replace(path)


def is_whole(path: Path) -> bool:
    """Whether the file ends with the SHA-256 of the rest: to load a torn library is to die of it."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return sha256(content[:-32]).digest() == content[-32:]


@cache
def find_compiler() -> str:
    """CC, else the first of cc, gcc and clang. Raises NoCompiler."""
    named = os.environ.get("CC")
    found = next(filter(None, map(shutil.which, [named] if named else COMPILERS)), None)
    if found is None:
        sought = f"CC={named!r}" if named else ", ".join(COMPILERS)
        raise NoCompiler(f"no C compiler is found ({sought}); install gcc, or set CC to one")
    return found


@cache
def version(compiler: str) -> str:
    """Its first line about itself. Raises NoCompiler for one that does not start."""
    try:
        done = subprocess.run([compiler, "--version"], capture_output=True, text=True)
    except OSError as exc:
        raise NoCompiler(f"{compiler} does not start ({exc.strerror or exc}); set CC to a C compiler") from exc
    return done.stdout.partition("\n")[0]


@cache
def cpu_features() -> str:
    """What `-march=native` depends on: a cache on a shared disk serves machines that differ."""
    wanted = ("model name", "flags", "Features")
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    told = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    return "\n".join(value.strip() for key, value in sorted(told.items()) if key.strip() in wanted)
