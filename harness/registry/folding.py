"""Many small files into one. A fold is: write the folded file, then a manifest that says what it replaces; later, delete that.

Each step leaves the registry whole: before the manifest the rows stand in both places and readers take each once; after it they
read the folded file; the replaced ones go when no reader can still hold a list with them. Manifests are named by their content
and created exclusively, like everything else: two that fold at once either make the same files, or overlapping ones whose
rows readers take once. So there is no loser that has to try again, and a merge of two registries is a union of names.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.registry import io, schema
from harness.registry.files import Layout, content_name, publish
from harness.registry.reading import FILE_NAME, Entry, Reader, once_each

if TYPE_CHECKING:
    import pyarrow as pa

# How long replaced files stay: longer than any reader works on one list of files.
GRACE_S = 7 * 24 * 3600.0
MAX_LOOSE = 100
MAX_FOLDED = 100


def fold_entries(reader: Reader, layout: Layout, entries: Sequence[Entry]) -> str | None:
    """Make one file of these, attempts sorted by id; its name, or None where there is nothing to gain. Raises OSError."""
    if len(entries) < 2:
        return None
    table = once_each([reader.read(entry, None) for entry in entries], None).sort_by("attempt_id")
    content = schema.encode_many(table)
    name = content_name(content, ".parquet")
    publish(layout, content, layout / "folded" / name)
    # One file already, and it held all the rows: it must not be named as what it replaces itself.
    replaces = sorted({entry[1] for entry in entries} - {name})
    manifest = json.dumps({"format": 1, "folded": name, "rows": table.num_rows, "replaces": replaces}, sort_keys=True).encode()
    publish(layout, manifest, layout / "manifests" / content_name(manifest, ".json"))
    return name


def entries_of(reader: Reader, entries: Sequence[Entry], invocation: str) -> list[Entry]:
    """Those loose files that this invocation wrote."""
    return [e for e in entries if e[0] == "attempts" and invocations(reader.read(e, {"invocation"})) == {invocation}]


def invocations(table: pa.Table) -> set[str]:
    return set(table["invocation"].to_pylist())


def too_many(entries: Sequence[Entry]) -> list[Entry]:
    """What compaction should fold: all loose files above MAX_LOOSE, all folded ones above MAX_FOLDED."""
    loose = [e for e in entries if e[0] == "attempts"]
    folded = [e for e in entries if e[0] == "folded"]
    return [*(loose if len(loose) > MAX_LOOSE else []), *(folded if len(folded) > MAX_FOLDED else [])]


def remove_replaced(reader: Reader, layout: Layout, grace_s: float = GRACE_S) -> int:
    """Delete files that have been replaced for longer than the grace time; how many. Raises OSError.

    A file goes only when the one that stands for it has been read and has the right content: the index alone is not believed.
    """
    gone_for = replaced_for_s(layout)
    present = [(folder, name) for folder in ("attempts", "folded") for name in reader.names(folder)]
    due = [entry for entry in present if gone_for.get(entry[1], 0.0) > grace_s]
    if not due:
        return 0
    folded = set(reader.names("folded"))
    for name in folded:
        if not reader.has_its_name(("folded", name)):
            reader.set_aside(("folded", name), "what it replaced is read again")
    replaced = reader.replaced(folded)
    removed = 0
    for folder, name in due:
        if name in replaced:
            with contextlib.suppress(FileNotFoundError):  # another process deletes too
                io.unlink(layout / folder / name)
                removed += 1
    return removed


def replaced_for_s(layout: Layout) -> dict[str, float]:
    """For how many seconds each name has been replaced, by the newest manifest that names it."""
    found: dict[str, float] = {}
    for manifest in io.listdir(layout / "manifests"):
        path = layout / "manifests" / manifest
        with contextlib.suppress(FileNotFoundError, ValueError):
            age_s = time.time() - io.size_and_time(path)[1] / 1e9
            for name in json.loads(io.read(path))["replaces"]:
                if FILE_NAME.fullmatch(name):
                    found[name] = min(age_s, found.get(name, age_s))
    return found
