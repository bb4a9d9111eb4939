"""Looking without touching: digests of objects, the process' global state, and who seeds a generator of his own."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import importlib.util
import os
import random
import signal
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

DEEPEST = 12  # references; what lies deeper is left out
SEEDERS = ("manual_seed", "seed")
RANDOM_STATES = ("torch's random state", "NumPy's random state", "Python's random state")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)


def digest_of(value: Any) -> str:
    """Names what an object holds: tensors and arrays by dtype, shape and bits, containers and plain objects by their parts.

    Functions, classes, modules and generators of random numbers count by name only; a cycle ends at its second visit.
    """
    total = hashlib.sha256()
    _feed(total, value, set(), 0)
    return total.hexdigest()


def _feed(total: Any, value: Any, seen: set[int], depth: int) -> None:
    total.update(type(value).__qualname__.encode() + b"\0")
    if isinstance(value, str | bytes | int | float | complex | bool | None):
        total.update(repr(value).encode())
        return
    if id(value) in seen or depth > DEEPEST:
        total.update(b"seen")
        return
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.ModuleType | type | torch.Generator):
        total.update(getattr(value, "__qualname__", "").encode())
        return
    seen = seen | {id(value)}
    if isinstance(value, Tensor):
        total.update(f"{value.dtype} {tuple(value.shape)} {value.requires_grad}".encode())
        if value.layout == torch.strided and not value.is_meta:
            plain = value.detach().cpu().contiguous().reshape(-1)
            total.update(plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    elif isinstance(value, np.ndarray):
        total.update(f"{value.dtype} {value.shape}".encode())
        total.update(np.ascontiguousarray(value).tobytes() if value.dtype != object else repr(value).encode())
    elif isinstance(value, Mapping):
        for key in value:
            _feed(total, key, seen, depth + 1)
            _feed(total, value[key], seen, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _feed(total, item, seen, depth + 1)
    elif isinstance(value, set | frozenset):
        for text in sorted(map(repr, value)):
            total.update(text.encode())
    else:
        slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
        held = {**getattr(value, "__dict__", {}), **{n: getattr(value, n) for n in slots if hasattr(value, n)}}
        for name in sorted(map(str, held)):
            total.update(name.encode())
            _feed(total, held.get(name), seen, depth + 1)


# Global state -----------------------------------------------------------------------------------------------------------


def read_state() -> dict[str, Any]:
    """What a plugin could leave changed behind it, by the name that a finding gives it."""
    return {
        "torch's random state": torch.get_rng_state().numpy().tobytes(),
        "NumPy's random state": digest_of(np.random.get_state(legacy=False)),  # noqa: NPY002
        "Python's random state": digest_of(random.getstate()),
        "the number of threads": torch.get_num_threads(),
        "the default dtype": torch.get_default_dtype(),
        "the default device": str(torch.get_default_device()),
        "gradient mode": torch.is_grad_enabled(),
        "deterministic algorithms": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        "the precision of matrix products": torch.get_float32_matmul_precision(),
        "cuDNN's benchmark mode": torch.backends.cudnn.benchmark,
        "autograd's anomaly mode": torch.is_anomaly_enabled(),
        "NumPy's error handling": tuple(sorted(np.geterr().items())),
        "the working folder": working_folder(),
        "the environment": tuple(sorted(os.environ.items())),
        "sys.path": tuple(sys.path),
        "the recursion limit": sys.getrecursionlimit(),
        "the garbage collector": gc.isenabled(),
        "the filters of warnings": tuple(map(repr, warnings.filters)),
        "signal handlers": tuple(signal.getsignal(number) for number in SIGNALS),
    }


def working_folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109  (a str, as it was found)
    except FileNotFoundError:
        return "(removed)"


@contextlib.contextmanager
def kept_state() -> Iterator[Callable[[], list[str]]]:
    """Inside, a call names what differs from the beginning; afterwards all of it is as before."""
    before, generators = read_state(), (torch.get_rng_state(), np.random.get_state(), random.getstate())  # noqa: NPY002
    filters, path, environment = list(warnings.filters), list(sys.path), dict(os.environ)
    folder = os.open(".", os.O_PATH)

    def changed() -> list[str]:
        now = read_state()
        return [name for name in before if before[name] != now[name]]

    try:
        yield changed
    finally:
        os.fchdir(folder)
        os.close(folder)
        torch.set_rng_state(generators[0])
        np.random.set_state(generators[1])  # noqa: NPY002
        random.setstate(generators[2])
        if torch.get_num_threads() != before["the number of threads"]:
            torch.set_num_threads(before["the number of threads"])
        torch.set_default_dtype(before["the default dtype"])
        if str(torch.get_default_device()) != before["the default device"]:
            torch.set_default_device(before["the default device"])
        torch.set_grad_enabled(before["gradient mode"])
        enabled, warn_only = before["deterministic algorithms"]
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.set_float32_matmul_precision(before["the precision of matrix products"])
        torch.backends.cudnn.benchmark = before["cuDNN's benchmark mode"]
        torch.autograd.set_detect_anomaly(before["autograd's anomaly mode"])
        np.seterr(**dict(before["NumPy's error handling"]))
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:] = path
        sys.setrecursionlimit(before["the recursion limit"])
        (gc.enable if before["the garbage collector"] else gc.disable)()
        warnings.filters[:] = filters  # type: ignore[index]
        for number, handler in zip(SIGNALS, before["signal handlers"], strict=True):
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def workers_alive() -> list[str]:
    """Threads of Python that may still work here, but the main one. Child processes are the executors' to end."""
    return [thread.name for thread in threading.enumerate() if thread is not threading.main_thread() and thread.is_alive()]


# Randomness of one's own --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def watched_seeding() -> Iterator[list[str]]:
    """The list that is given fills with "function (file:line)" for every generator that code outside of harness seeds."""
    found: list[str] = []

    def note(name: str, frame: Any) -> None:
        while frame is not None and str(frame.f_globals.get("__name__", "")).split(".")[0] in ("torch", "numpy", "random"):
            frame = frame.f_back
        if frame is not None and str(frame.f_globals.get("__name__", "")).split(".")[0] != "harness":
            found.append(f"{name} ({os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno})")  # noqa: PTH119

    def profile(frame: Any, event: str, arg: Any) -> None:
        if event == "c_call" and getattr(arg, "__name__", "") in SEEDERS:
            note(arg.__name__, frame)
        elif event == "call" and frame.f_code.co_name in SEEDERS and frame.f_back is not None:
            note(frame.f_code.co_name, frame.f_back)

    def default_rng(*args: Any, **kwargs: Any) -> Any:
        if args or kwargs:
            note("default_rng", sys._getframe(1))
        return made(*args, **kwargs)

    # Made by Cython, which the profiler does not see.
    made, before = np.random.default_rng, sys.getprofile()
    try:
        np.random.default_rng = default_rng
        sys.setprofile(profile)
        yield found
    finally:
        sys.setprofile(before)
        np.random.default_rng = made


# Data -------------------------------------------------------------------------------------------------------------------

_solving: list[Callable[[], bool]] = []  # whether a method is in solve at this moment
_touched: list[list[str]] = []
_hooked: list[bool] = []


def solving(now: Callable[[], bool]) -> None:
    """Say how to tell whether a method works at this moment."""
    _solving[:] = [now]


@contextlib.contextmanager
def watched_data() -> Iterator[list[str]]:
    """The list that is given fills with what a method asks of `harness.data` in solve, and the data files that it opens."""
    store: Any = importlib.import_module("harness.data.store")
    files: Any = importlib.import_module("harness.data.files")

    found: list[str] = []
    if not _hooked:  # an audit hook cannot be taken off again: there is one, and it looks at `_touched`
        sys.addaudithook(_audit)
        _hooked.append(True)
    before = store.require_open

    def require_open(call: str) -> None:
        if _in_solve():
            found.append(call)
        before(call)

    _touched.append(found)
    store.require_open = files.require_open = require_open
    try:
        yield found
    finally:
        store.require_open = files.require_open = before
        _touched.remove(found)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not _touched or not _in_solve():
        return
    name = str(arguments[0])
    if any(name.startswith(folder) for folder in data_folders()):
        for found in _touched:
            found.append(f"the file {os.path.basename(name)} of the data")  # noqa: PTH119


def _in_solve() -> bool:
    return bool(_solving) and _solving[0]()


def data_folders() -> list[str]:
    """Where tasks read their data: scikit-learn's sets, and the data folder."""
    spec = importlib.util.find_spec("sklearn")
    places = [f"{folder}/datasets/data/" for folder in (spec.submodule_search_locations or [])] if spec else []
    return places + ([os.environ["HARNESS_DATA_DIR"]] if os.environ.get("HARNESS_DATA_DIR") else [])
