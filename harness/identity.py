"""Names that do not move: canonical JSON, digests, the three keys of a trial, the seeds of its streams.

Nothing here depends on the order of keys, methods or seeds in a file, on titles or on report settings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

CORE = Path(__file__).parent  # the folder of harness itself
CODE_SUFFIXES = {".py", ".c", ".h", ".cpp", ".cu", ".json", ".toml"}


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; 1 and 1.0 stay different, NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def digest(value: Any) -> str:
    """32 hex digits that name a JSON value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:32]


def digest_files(files: Iterable[tuple[str, Path]]) -> str:
    """32 hex digits over (name, content) pairs, in the order of the names."""
    total = hashlib.sha256()
    for name, path in sorted(files):
        total.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:32]


def digest_folder(folder: Path) -> str:
    """32 hex digits over all code below a folder (or over one file). Raises FileNotFoundError where there is neither."""
    if folder.is_file():
        return digest_files([(folder.name, folder)])
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; all that are missing would have one digest")
    found = (p for p in folder.rglob("*") if p.suffix in CODE_SUFFIXES and "__pycache__" not in p.parts)
    return digest_files((p.relative_to(folder).as_posix(), p) for p in found)


def stream_seed(root: int, index: int, task: str, stream: str) -> int:
    """The 63-bit seed of one random stream. No method and no suite is in it, so methods meet the same draws.

    root: the suite's root seed; index: the trial's seed; task: the task's reference with its parameters, canonical.
    """
    text = canonical([root, index, task, stream])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


SERIES = (
    "kind", "track", "method", "method_params", "task", "task_params", "net", "train", "budget", "tuning",
    "device", "dtype", "threads", "seed", "root_seed",
)  # fmt: skip
TRIAL = ("code_digest", "data_digest", "torch_version")


def series_key(fields: Mapping[str, Any]) -> str:
    """Names a trial without its code: history, regressions and asv run along it."""
    return digest({name: fields[name] for name in SERIES})


def trial_id(fields: Mapping[str, Any]) -> str:
    """Names a trial with its code, data and torch, and with what tuning chose: what is done need not run again."""
    chosen = {"tuned": fields["tuned"]["values"]} if fields.get("tuned") else {}
    return digest({"series": series_key(fields), **{name: fields[name] for name in TRIAL}, **chosen})


def pair_key(fields: Mapping[str, Any]) -> str:
    """Names what two methods must share to be compared: the series without method and its parameters.

    fields["matched"] is None or holds the "net" and "train" of the baseline that the trial was matched to: they stand for
    its own, so that a matched width, or a learner that has no net, pairs with that baseline.
    """
    shared = {name: fields[name] for name in SERIES if name not in ("method", "method_params")}
    matched = fields.get("matched")
    if matched:
        shared |= {"net": matched["net"], "train": matched["train"]}
    return digest(shared)
