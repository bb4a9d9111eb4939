"""Data sets in memory, read once a process, and closed while a method runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.data import sealing
from harness.data.arrays import Arrays
from harness.data.declared import DATASETS, dataset
from harness.data.files import data_folder
from harness.data.readers import read
from harness.data.sealing import require_open

_loaded: dict[tuple[str, Path | None], Arrays] = {}


def load(name: str, data_dir: Path | str | None = None) -> Arrays:
    """The arrays of a data set of the core, its digest checked, read once a process.

    data_dir: the data folder; None: that of HARNESS_DATA_DIR. Raises DataError (absent or different data) with the mend,
    HarnessError for an unknown name and while sealed.
    """
    require_open(f"harness.data.load({name!r})")
    folder = data_folder(data_dir) if dataset(name).where == "folder" else None
    key = (name, folder)
    if key not in _loaded:
        _loaded[key] = read(name, folder)
    return _loaded[key]


def preload(names: Iterable[str], data_dir: Path | str | None = None) -> None:
    """Read sets now, so that forked children share them. Names of plugins' own sets are left to their tasks."""
    for name in names:
        if name in DATASETS:
            load(name, data_dir)


def seal() -> str:
    """Close `load` and `read_bytes`, and forget what was read. Returns the key that `unseal` asks for."""
    key = sealing.close()
    _loaded.clear()
    return key


def unseal(key: str) -> None:
    """Open them again. Raises HarnessError where the key is not the seal's."""
    sealing.open_with(key)
