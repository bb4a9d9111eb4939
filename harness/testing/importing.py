"""`python -m harness.testing.importing DIST NAME`: import one plugin's declarations in this fresh process, and watch.

On stdout one JSON object: what it cost, what it touched, the warnings at the plugin's own lines, and what its declarations
broke. Imports no torch by itself.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.catalogue import GROUP, ask, check, load_plugin
from harness.errors import HarnessError

HEAVY = ("torch", "tensorflow", "jax", "scipy", "sklearn", "pandas", "matplotlib", "transformers", "sympy", "numba", "cvxpy")
CODE = (".py", ".pyc", ".so", ".pth")
WRITES = ("w", "a", "x", "+")
TOUCHES = {
    "socket.connect": "connects to", "socket.getaddrinfo": "looks up", "subprocess.Popen": "starts", "os.system": "starts",
    "os.mkdir": "makes the folder", "os.remove": "removes", "os.rename": "renames", "os.rmdir": "removes", "os.fork": "forks",
    "os.symlink": "links", "os.link": "links", "tempfile.mkstemp": "makes", "tempfile.mkdtemp": "makes",
}  # fmt: skip


def main(arguments: list[str]) -> int:
    dist, name = arguments
    point = next(p for p in importlib.metadata.entry_points(group=GROUP) if (p.dist and p.dist.name) == dist and p.name == name)
    version = point.dist.version if point.dist else "0"
    touched: list[str] = []
    watching = [False]
    sys.addaudithook(lambda event, args: note(event, args, touched) if watching[0] else None)
    before, modules = read_plain_state(), set(sys.modules)
    error = ""
    with captured_output() as printed, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        watching[0] = True
        started = time.process_time()
        try:
            importlib.import_module(point.module)
        except BaseException as exc:
            error = f"{type(exc).__name__}: {exc}"
        cost = time.process_time() - started
        watching[0] = False
        states = read_plain_state()
    changed = [what for what in before if before[what] != states[what]]
    imported = sorted({m.partition(".")[0] for m in set(sys.modules) - modules} & set(HEAVY))
    watching[0] = True
    try:
        plugin = load_plugin(point, dist, version)
        check(plugin, ask(plugin))
    except HarnessError as exc:
        error = str(exc)
    except BaseException as exc:
        error = error or f"{type(exc).__name__}: {exc}"
    watching[0] = False
    print(json.dumps({
        "error": " ".join(error.split()), "cost_s": cost, "heavy": imported, "touched": list(dict.fromkeys(touched)),
        "changed": changed, "printed": printed()[:200],
        "warnings": [f"{Path(w.filename).name}:{w.lineno}: {w.category.__name__}: {w.message}" for w in told],
    }))  # fmt: skip
    return 0


def note(event: str, arguments: tuple[Any, ...], touched: list[str]) -> None:
    if event == "open":
        name, mode = arguments[0], str(arguments[1] or "r")
        path = os.fsdecode(name) if isinstance(name, str | bytes) else ""
        flags = int(arguments[2] or 0) if len(arguments) > 2 else 0
        writing = any(sign in mode for sign in WRITES) or bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if not path or "__pycache__" in path or path == os.devnull:
            return
        if writing:
            touched.append(f"writes {path}")
        elif (
            not path.endswith(CODE)
            and ".dist-info" not in path
            and not path.startswith(("/proc/", "/sys/", sys.prefix, sys.base_prefix))
        ):
            touched.append(f"reads {path}")
    elif event in TOUCHES:
        shown = " ".join(str(a) for a in arguments[:2] if isinstance(a, str | bytes | list | tuple | int))
        touched.append(f"{TOUCHES[event]} {shown}".strip()[:200])


def read_plain_state() -> dict[str, Any]:
    return {
        "the working folder": os.getcwd(),  # noqa: PTH109
        "the environment": tuple(sorted(os.environ.items())),
        "sys.path": tuple(sys.path),
        "Python's random state": random.getstate(),
        "NumPy's random state": numpy_state(),
        "the recursion limit": sys.getrecursionlimit(),
        "signal handlers": tuple(str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)),
        "the number of threads": threading.active_count(),
    }


def numpy_state() -> str:
    import numpy as np

    return str(np.random.get_state(legacy=False))  # noqa: NPY002


class captured_output:
    """What is written to the process' stdout and stderr inside; the call that it gives reads it."""

    def __enter__(self) -> Callable[[], str]:
        self._kept = [os.dup(1), os.dup(2)]
        self._file = tempfile.TemporaryFile()
        for number in (1, 2):
            os.dup2(self._file.fileno(), number)
        return lambda: self._text

    def __exit__(self, *_: object) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number, kept in zip((1, 2), self._kept, strict=True):
            os.dup2(kept, number)
        self._file.seek(0)
        self._text = self._file.read().decode(errors="replace")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
