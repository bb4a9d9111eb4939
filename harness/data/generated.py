"""Data made by a rule: `draw` gives new rows from a generator of one's own; the text of Python's standard library.

The function behind `sines` and the rule behind `parity` are fixed: only rows and noise are drawn. A rule that changes gets a
new version in `declared.py`.
"""

from __future__ import annotations

import hashlib
import math
import sysconfig
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from harness.data.arrays import Arrays
from harness.errors import DataError, HarnessError

SINES_INPUTS, SINES_WAVES = 4, 6
# Modules that are single files in every Python since 3.11, large and well written; their order is the text's.
STDLIB_MODULES = (
    "argparse", "ast", "bisect", "calendar", "cmd", "codecs", "contextlib", "copy", "csv", "dataclasses", "difflib",
    "doctest", "enum", "filecmp", "fnmatch", "fractions", "ftplib", "functools", "getopt", "gettext", "graphlib", "gzip",
    "hashlib", "heapq", "hmac", "imaplib", "inspect", "ipaddress", "locale", "mailbox", "mimetypes", "optparse", "pdb",
    "pickle", "plistlib", "poplib", "pprint", "profile", "queue", "random", "sched", "selectors", "shelve", "shlex",
    "shutil", "smtplib", "socket", "socketserver", "ssl", "stat", "statistics", "string", "subprocess", "tarfile",
    "tempfile", "textwrap", "threading", "timeit", "tokenize", "trace", "traceback", "turtle", "types", "typing", "uuid",
    "warnings", "wave", "weakref", "zipapp",
)  # fmt: skip


def draw(name: str, rng: np.random.Generator, items: int, **settings: float) -> Arrays:
    """`items` fresh rows of a generated set.

    settings: sines: noise (standard deviation, 0.05); moons: noise (0.2); parity: bits (10), order (3), noise (the share
    of labels turned over, 0). Raises HarnessError for a name that is not generated.
    """
    if name not in _RULES:
        raise HarnessError(f"harness.data cannot draw {name!r}; it draws {sorted(_RULES)}")
    return _RULES[name](rng, items, **settings)


def draw_sines(rng: np.random.Generator, items: int, noise: float = 0.05) -> Arrays:
    """x uniform in [-1, 1]^4, y = sum_j a_j sin(w_j . x + b_j) + noise; 6 fixed waves, scaled to a variance near 1."""
    waves = np.random.default_rng(int.from_bytes(b"sines/1"))
    w = waves.normal(0.0, 2.0, (SINES_INPUTS, SINES_WAVES))
    b = waves.uniform(0.0, 2 * math.pi, SINES_WAVES)
    a = np.full(SINES_WAVES, math.sqrt(2 / SINES_WAVES))  # a sine has variance 1/2
    x = rng.uniform(-1.0, 1.0, (items, SINES_INPUTS))
    y = np.sin(x @ w + b) @ a + rng.normal(0.0, noise, items)
    return Arrays(x, y, features=tuple(f"x{i}" for i in range(SINES_INPUTS)))


def draw_moons(rng: np.random.Generator, items: int, noise: float = 0.2) -> Arrays:
    """Two half circles of radius 1, the second turned over and moved by (1, 0.5), with normal noise; classes in turn."""
    y = np.arange(items) % 2
    angle = rng.uniform(0.0, math.pi, items)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    x = np.where(y[:, None] == 0, upper, np.array([1.0, 0.5]) - upper) + rng.normal(0.0, noise, (items, 2))
    return Arrays(x, y.astype(np.int64), classes=2, features=("x0", "x1"))


def draw_parity(rng: np.random.Generator, items: int, bits: float = 10, order: float = 3, noise: float = 0.0) -> Arrays:
    """x random signs (N, bits); the label is 1 where the product of the first `order` is negative; a share is turned over."""
    x = rng.integers(0, 2, (items, int(bits))) * 2.0 - 1.0
    y = (x[:, : int(order)].prod(axis=1) < 0) ^ (rng.random(items) < noise)
    return Arrays(x, y.astype(np.int64), classes=2, features=tuple(f"bit{i}" for i in range(int(bits))))


def sample(name: str) -> Arrays:
    """The fixed rows that `load` gives of a generated set: the same on every machine."""
    if name == "stdlib-text":
        return Arrays(np.frombuffer(stdlib_text(), np.uint8), np.empty(0, np.int64))
    return draw(name, np.random.default_rng(int.from_bytes(f"{name}/1/sample".encode())), items=2000)


@lru_cache(maxsize=1)
def stdlib_text() -> bytes:
    """The source of fixed modules of the running Python's standard library, one after another, each under its name.

    Raises DataError where they are not on disk (a zipped or stripped Python).
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    parts = []
    for module in STDLIB_MODULES:
        path = folder / f"{module}.py"
        if not path.is_file():
            raise DataError(f"data set 'stdlib-text': {path} is not there; use a Python with its standard library's sources")
        parts.append(f"# {module}\n".encode() + path.read_bytes())
    return b"\n".join(parts)


@lru_cache(maxsize=1)
def stdlib_digest() -> str:
    """SHA-256 of the text that is really there."""
    return hashlib.sha256(stdlib_text()).hexdigest()


_RULES: dict[str, Callable[..., Arrays]] = {"sines": draw_sines, "moons": draw_moons, "parity": draw_parity}
