"""From the folders of a registry to one Arrow table: the files that count, checked against their names, each attempt once.

A folded file stands for the loose ones that its manifest names, as long as it is there and healthy; otherwise they are read
themselves. So a reader needs no lock: before, during and after a fold it sees every attempt exactly once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from harness.errors import RegistryError
from harness.registry import io, schema
from harness.registry.files import Layout, content_name, ensure_folder, owner, quarantine, write_new

if TYPE_CHECKING:
    import pyarrow as pa

FILE_NAME = re.compile(r"[0-9a-f]{64}\.parquet")
MANIFEST_NAME = re.compile(r"[0-9a-f]{64}\.json")
# A file that vanishes between the listing and its opening was replaced: list again. More often than this it is no race.
RELISTS = 10
# A query pays 3 ms for each piece of a table (as many as there are loose files), so pieces are joined; but an Arrow string
# array cannot hold more than 2 GiB, which the logs of a large registry may exceed.
COMBINE_BELOW_BYTES = 1 << 30

Entry = tuple[str, str]  # folder, name


class Changed(Exception):
    """The set of files that count is no longer what was listed: one of them proved unreadable and is now left out."""


class Vanished(Changed):
    """The same, because a file was replaced and deleted meanwhile."""


class Reader:
    """Reads one registry. warnings: what was left out and why, for the caller to show; reading goes on without it."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.warnings: list[str] = []
        self._left_out: set[Entry] = set()
        self._index: dict[str, list[int]] | None = None
        self._index_grew = False

    # What counts ----------------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """The healthy files that together hold every attempt: folded first, then by name."""
        present = [("folded", name) for name in self.names("folded")] + [("attempts", name) for name in self.names("attempts")]
        folded = {name for folder, name in present if folder == "folded"}
        replaced = self.replaced(folded)
        found = [entry for entry in present if entry[1] not in replaced and self.is_healthy(entry)]
        self.save_index()
        return found

    def names(self, folder: str) -> list[str]:
        """The Parquet files of a folder. Whatever else lies there is named in a warning, once."""
        names = io.listdir(self.layout / folder)
        strange = [n for n in names if not FILE_NAME.fullmatch(n) and not n.startswith(".")]
        if strange:
            self.warn(f"{self.layout / folder}: {', '.join(strange[:3])}: no file of a registry; it is not read; move it away")
        return [n for n in names if FILE_NAME.fullmatch(n)]

    def replaced(self, folded: set[str]) -> set[str]:
        """The names for which a folded file stands that is present and healthy, itself or through its own replacement."""
        standing: dict[str, bool] = {}
        by: dict[str, list[str]] = {}
        for manifest in self.manifests():
            for name in manifest["replaces"]:
                by.setdefault(name, []).append(manifest["folded"])

        def stands(name: str) -> bool:
            if name not in standing:
                standing[name] = False  # in a ring of manifests, which only a forger can make, nobody vouches for anybody
                healthy = name in folded and self.is_healthy(("folded", name))
                standing[name] = healthy or any(stands(other) for other in by.get(name, ()))
            return standing[name]

        return {name for name, others in by.items() if any(stands(other) for other in others)}

    def manifests(self) -> list[dict[str, Any]]:
        """All manifests whose content is what their name says."""
        found = []
        for name in io.listdir(self.layout / "manifests"):
            path = self.layout / "manifests" / name
            if not MANIFEST_NAME.fullmatch(name):
                continue
            try:
                content = io.read(path)
            except FileNotFoundError:
                continue
            if content_name(content, ".json") == name:
                found.append(json.loads(content))
            else:
                self.set_aside(("manifests", name), "the files that it names are read one by one instead")
        return found

    def facts(self) -> list[dict[str, Any]]:
        """What attempts share: {"kind", "name", "facts"}, whose content is what the file's name says."""
        found = []
        for name in io.listdir(self.layout / "facts"):
            content = io.read(self.layout / "facts" / name)
            if content_name(content, ".json") == name:
                found.append(json.loads(content))
            else:
                self.set_aside(("facts", name), "the attempts that name it are read without it")
        return found

    # Are they what their names say? ---------------------------------------------------------------------------------

    def is_healthy(self, entry: Entry) -> bool:
        """Whether content and name agree; looked at once per (name, size, time of change), and kept in the index."""
        if entry in self._left_out:
            return False
        key, path = "/".join(entry), self.layout / entry[0] / entry[1]
        try:
            now = list(io.size_and_time(path))
            if self.index().get(key) == now:
                return True
            if self.has_its_name(entry):
                self.index()[key] = now
                self._index_grew = True
                return True
        except FileNotFoundError:
            return False  # replaced and deleted since it was listed; who replaced it will be seen
        except OSError as exc:
            self.leave_out(entry, f"cannot be read ({exc.strerror}); mend its permissions or its disk")
            return False
        self.set_aside(entry, "its attempts are left out unless another file holds them")
        return False

    def has_its_name(self, entry: Entry) -> bool:
        total = hashlib.sha256()
        for chunk in io.read_chunks(self.layout / entry[0] / entry[1]):
            total.update(chunk)
        return total.hexdigest() == entry[1].partition(".")[0]

    def set_aside(self, entry: Entry, consequence: str) -> None:
        """A file whose content is not what its name promises: to quarantine where that can be written, out of sight anyhow."""
        self._left_out.add(entry)
        path = self.layout / entry[0] / entry[1]
        try:
            where = f"moved to {quarantine(self.layout, path)}"
        except OSError as exc:
            where = f"could not be moved to quarantine ({exc.strerror})"
        fetch = "fetch it again from a copy (`harness merge`)"
        self.warn(f"{path}: damaged, its SHA-256 is not its name; {where}; {consequence}; {fetch}")

    def leave_out(self, entry: Entry, why: str) -> None:
        self._left_out.add(entry)
        self.warn(f"{self.layout / entry[0] / entry[1]}: {why}; it is left out")

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    # The index of checked files: disposable ---------------------------------------------------------------------------

    def index(self) -> dict[str, list[int]]:
        if self._index is None:
            self._index = {}
            with contextlib.suppress(OSError, ValueError):  # absent or torn: everything is checked again
                self._index = dict(json.loads(io.read(self.layout / "index" / "checked.json")))
        return self._index

    def save_index(self) -> None:
        """Keep what was checked. A folder that cannot be written costs the next reader the same checks, no more."""
        if not self._index_grew:
            return
        folder = self.layout / "index"
        aside = folder / f"{owner()}-{secrets.token_hex(4)}"
        with contextlib.suppress(OSError):
            ensure_folder(folder)
            write_new(aside, b"*\n")
            io.rename(aside, folder / ".gitignore")
            write_new(aside, json.dumps(self._index, separators=(",", ":")).encode())
            io.rename(aside, folder / "checked.json")
            self._index_grew = False

    # The rows -------------------------------------------------------------------------------------------------------

    def table(self, columns: Iterable[str] | None = None) -> pa.Table:
        """Every attempt once, in today's schema. columns None: all; attempt_id is always among them."""
        wanted = None if columns is None else {*columns, "attempt_id"}
        vanished = 0
        while vanished < RELISTS:
            try:
                return once_each([self.read(entry, wanted) for entry in self.entries()], wanted)
            except Vanished:
                vanished += 1
            except Changed:
                continue  # ends: each such pass leaves one file less to read
            except OSError as exc:
                why = f"{exc.strerror or exc}; check its permissions and its disk"
                raise RegistryError(f"registry {self.layout.root}: cannot be read: {why}") from exc
        raise RegistryError(f"registry {self.layout.root}: its files vanish faster than they can be read; try again")

    def read(self, entry: Entry, columns: set[str] | None) -> pa.Table:
        """One file. Raises Vanished where it is gone, Changed where it is damaged or unreadable: then list the files anew."""
        import pyarrow as pa

        try:
            with io.open_parquet(self.layout / entry[0] / entry[1]) as file:
                return schema.decode(file, columns)
        except FileNotFoundError as exc:
            raise Vanished from exc
        except schema.NewerSchema as exc:
            self.leave_out(entry, f"written in schema {exc.args[0]}, newer than this harness reads; upgrade paper-harness")
            raise Changed from exc
        except (pa.ArrowException, OSError, ValueError) as exc:
            self.index().pop("/".join(entry), None)
            if self.is_healthy(entry):
                self.leave_out(entry, f"pyarrow {pa.__version__} cannot read it ({exc})")
            raise Changed from exc


def once_each(tables: list[pa.Table], columns: set[str] | None) -> pa.Table:
    """Join tables; of rows with one attempt_id the first stays (they are copies: ids are never used twice)."""
    import numpy as np
    import pyarrow as pa

    if not tables:
        return schema.conform(schema.attempt_schema().empty_table(), columns)
    whole = pa.concat_tables(tables)
    if whole.nbytes < COMBINE_BELOW_BYTES:
        whole = whole.combine_chunks()
    ids = whole["attempt_id"].combine_chunks().dictionary_encode()
    if len(ids.dictionary) == whole.num_rows:
        return whole
    first = np.sort(np.unique(ids.indices.to_numpy(), return_index=True)[1])
    return whole.take(pa.array(first))
