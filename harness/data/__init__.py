"""Data sets by name, as NumPy arrays, each checked against a declared digest. Imports no torch; names resolve lazily.

`load` gives a set's arrays, `draw` new data of a generated one, `split` parts it; `locate`, `verify`, `list_rows` and
`verify_rows` say what is there. While `seal` is in force `load` refuses: data is loaded by the task, not by the method.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "harness.data.arrays": ["Arrays"],
    "harness.data.declared": ["DATASETS", "FACTS", "Facts", "dataset"],
    "harness.data.files": ["locate", "read_bytes"],
    "harness.data.generated": ["draw"],
    "harness.data.rows": ["Verified", "data_digest", "facts", "list_rows", "missing", "verify", "verify_rows"],
    "harness.data.sizes": ["Sizes", "part_sizes"],
    "harness.data.splits": ["Parts", "split"],
    "harness.data.store": ["load", "preload", "seal", "unseal"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Arrays", "DATASETS", "FACTS", "Facts", "dataset", "locate", "read_bytes", "draw", "Verified", "data_digest", "facts",
    "list_rows", "missing", "verify", "verify_rows", "Parts", "Sizes", "part_sizes", "split", "load", "preload", "seal",
    "unseal",
]  # fmt: skip

if TYPE_CHECKING:
    from harness.data.arrays import Arrays
    from harness.data.declared import DATASETS, FACTS, Facts, dataset
    from harness.data.files import locate, read_bytes
    from harness.data.generated import draw
    from harness.data.rows import Verified, data_digest, facts, list_rows, missing, verify, verify_rows
    from harness.data.sizes import Sizes, part_sizes
    from harness.data.splits import Parts, split
    from harness.data.store import load, preload, seal, unseal


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'harness.data' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
