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
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from harness.errors import RegistryError
from harness.registry import io, schema
from harness.registry.annotations import Annotation, decode, in_force, to_table
from harness.registry.conflicts import Conflict, choose, repeated_rows
from harness.registry.files import Layout, boot_id, content_name, ensure_folder, owner, quarantine, write_new
from harness.registry.standing import Standing

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

FILE_NAME = re.compile(r"[0-9a-f]{64}\.parquet")
JSON_NAME = re.compile(r"[0-9a-f]{64}\.json")
BLOB_NAME = re.compile(r"[0-9a-f]{64}")
# What files are called in the folders whose files are named by their content: all that a registry holds for good.
NAMES = {
    "attempts": FILE_NAME, "folded": FILE_NAME, "manifests": JSON_NAME,
    "facts": JSON_NAME, "annotations": JSON_NAME, "blobs": BLOB_NAME,
}  # fmt: skip
# A file that vanishes between the listing and its opening was replaced: list again. More often than this it is no race.
RELISTS = 10
# A query pays 3 ms for each piece of a table (as many as there are loose files), so pieces are joined; but an Arrow string
# array cannot hold more than 2 GiB, which the logs of a large registry may exceed.
COMBINE_BELOW_BYTES = 1 << 30

Entry = tuple[str, str]  # folder, name
T = TypeVar("T")


class Changed(Exception):
    """The set of files that count is no longer what was listed: one of them proved unreadable and is now left out."""


class Vanished(Changed):
    """The same, because a file was replaced and deleted meanwhile."""


class Reader:
    """Reads one registry. warnings: what was left out and why, for the caller to show; reading goes on without it.

    hands_off: what is damaged is left out where it lies, and no index is kept: nothing in the folder changes.
    """

    def __init__(self, layout: Layout, hands_off: bool = False) -> None:
        self.layout = layout
        self.hands_off = hands_off
        self.warnings: list[str] = []
        self.left_out: dict[Entry, str] = {}  # why
        self.damaged: set[Entry] = set()  # of these: whose content is not what the name says
        self._index: dict[str, list[int]] | None = None
        self._index_grew = False
        self._verdict: tuple[list[Entry], np.ndarray, list[Conflict]] | None = None  # of the files that repeat ids

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
        """The content-named files of a folder. Whatever else lies there is named in a warning, once."""
        names, right = io.listdir(self.layout / folder), NAMES[folder]
        strange = [n for n in names if not right.fullmatch(n) and not n.startswith(".")]
        if strange:
            self.warn(f"{self.layout / folder}: {', '.join(strange[:3])}: no file of a registry; it is not read; move it away")
        return [n for n in names if right.fullmatch(n)]

    def replaced(self, folded: set[str]) -> set[str]:
        """The names for which a folded file stands that is present and healthy, itself or through its own replacement."""
        return Standing(self.manifests()).replaced(lambda name: name in folded and self.is_healthy(("folded", name)))

    def manifests(self) -> list[dict[str, Any]]:
        """All manifests whose content is what their name says."""
        consequence = "the files that it names are read one by one instead"
        return [manifest for _, manifest in self.checked_json("manifests", as_manifest, consequence)]

    def facts(self) -> list[dict[str, Any]]:
        """What attempts share: {"kind", "name", "facts"}, whose content is what the file's name says."""
        return [facts for _, facts in self.named_facts()]

    def named_facts(self) -> list[tuple[str, dict[str, Any]]]:
        """The same, each with the name of its file."""
        return self.checked_json("facts", as_facts, "the attempts that name it are read without it")

    def annotations(self) -> pa.Table:
        """What people say of attempts, as far as it is in force: one row an attempt, `annotations.COLUMNS`, all text."""
        return to_table(in_force(self.acts()))

    def acts(self) -> list[tuple[str, Annotation]]:
        """Every annotation ever made, with the name of its file."""
        return self.checked_json("annotations", decode, "what it says of attempts no longer holds")

    def checked_json(self, folder: str, decode: Callable[[bytes], T], consequence: str) -> list[tuple[str, T]]:
        """The content-named JSON files of a folder: name and meaning. A damaged one is set aside, a foreign one left out."""
        found = []
        for name in self.names(folder):
            if (folder, name) in self.left_out:
                continue
            try:
                content = io.read(self.layout / folder / name)
            except FileNotFoundError:
                continue  # set aside by another process meanwhile
            except OSError as exc:
                self.leave_out((folder, name), f"cannot be read ({exc.strerror}); mend its permissions or its disk")
                continue
            if content_name(content, ".json") != name:
                self.set_aside((folder, name), consequence)
                continue
            try:
                found.append((name, decode(content)))
            except (ValueError, KeyError, TypeError, RecursionError) as exc:
                self.leave_out((folder, name), f"its name is right, but it is none of {folder} ({exc!r})")
        return found

    # Are they what their names say? ---------------------------------------------------------------------------------

    def is_healthy(self, entry: Entry) -> bool:
        """Whether content and name agree; looked at once per (boot, name, size, time of change), and kept in the index."""
        if entry in self.left_out:
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

    def size(self, entry: Entry) -> int:
        """Bytes. Raises OSError."""
        return io.size_and_time(self.layout / entry[0] / entry[1])[0]

    def has_its_name(self, entry: Entry) -> bool:
        total = hashlib.sha256()
        for chunk in io.read_chunks(self.layout / entry[0] / entry[1]):
            total.update(chunk)
        return total.hexdigest() == entry[1].partition(".")[0]

    def set_aside(self, entry: Entry, consequence: str) -> None:
        """A file whose content is not what its name promises: to quarantine where that can be written, out of sight anyhow."""
        self.forget(entry)
        path = self.layout / entry[0] / entry[1]
        try:
            where = "left where it is" if self.hands_off else f"moved to {quarantine(self.layout, path)}"
        except OSError as exc:
            where = f"could not be moved to quarantine ({exc.strerror})"
        fetch = "fetch it again from a copy (`harness merge`)"
        self.left_out[entry] = f"{path}: damaged, its SHA-256 is not its name; {where}; {consequence}; {fetch}"
        self.damaged.add(entry)
        self.warn(self.left_out[entry])

    def forget(self, entry: Entry) -> None:
        """What was found out about a file no longer holds: it is looked at anew when it is next met."""
        self.left_out.pop(entry, None)
        self.damaged.discard(entry)
        if self.index().pop("/".join(entry), None) is not None:
            self._index_grew = True

    def remember(self, entry: Entry, as_it_was: tuple[int, int]) -> None:
        """That a file of this size and time of change was read to its end, and has its name."""
        if self.index().get("/".join(entry)) != list(as_it_was):
            self.index()["/".join(entry)] = list(as_it_was)
            self._index_grew = True

    def leave_out(self, entry: Entry, why: str) -> None:
        self.left_out[entry] = f"{self.layout / entry[0] / entry[1]}: {why}; it is left out"
        self.warn(self.left_out[entry])

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    # The index of checked files: disposable ---------------------------------------------------------------------------

    def index(self) -> dict[str, list[int]]:
        if self._index is None:
            self._index = {}
            with contextlib.suppress(OSError, ValueError):  # absent or torn: everything is checked again
                self._index = dict(json.loads(io.read(self.layout / "index" / checked_name())))
        return self._index

    def save_index(self) -> None:
        """Keep what was checked. A folder that cannot be written costs the next reader the same checks, no more."""
        if not self._index_grew or self.hands_off:
            return
        folder = self.layout / "index"
        aside = folder / f"{owner()}-{secrets.token_hex(4)}"
        with contextlib.suppress(OSError):
            ensure_folder(folder)
            write_new(aside, b"*\n")
            io.rename(aside, folder / ".gitignore")
            write_new(aside, json.dumps(self._index, separators=(",", ":")).encode())
            io.rename(aside, folder / checked_name())
            self._index_grew = False

    # The rows -------------------------------------------------------------------------------------------------------

    def table(self, columns: Iterable[str] | None = None) -> pa.Table:
        """Every attempt once, in today's schema. columns None: all; attempt_id is always among them."""
        return self.rows(columns)[0]

    def conflicts(self) -> list[Conflict]:
        """The attempts of which files hold rows that differ; `table` has one of them, whichever columns are asked for."""
        return self.rows(())[1]

    def fact_conflicts(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """(kind, name, files) of what attempts share where files say different things of one name; `facts` has them all."""
        by_name: dict[tuple[str, str], list[str]] = {}
        for file, told in self.named_facts():
            by_name.setdefault((told["kind"], told["name"]), []).append(f"facts/{file}")
        return [(kind, name, tuple(files)) for (kind, name), files in sorted(by_name.items()) if len(files) > 1]

    def rows(self, columns: Iterable[str] | None) -> tuple[pa.Table, list[Conflict]]:
        wanted = None if columns is None else {*columns, "attempt_id"}
        vanished = 0
        while vanished < RELISTS:
            try:
                return self.once_each(self.entries(), wanted)
            except Vanished:
                vanished += 1
            except Changed:
                continue  # ends: each such pass leaves one file less to read
            except OSError as exc:
                why = f"{exc.strerror or exc}; check its permissions and its disk"
                raise RegistryError(f"registry {self.layout.root}: cannot be read: {why}") from exc
        raise RegistryError(f"registry {self.layout.root}: its files vanish faster than they can be read; try again")

    def once_each(self, entries: list[Entry], columns: set[str] | None) -> tuple[pa.Table, list[Conflict]]:
        """The rows of these files, each id once, and where files disagree about one. Raises as `read` does."""
        import numpy as np
        import pyarrow as pa

        if not entries:
            return schema.conform(schema.attempt_schema().empty_table(), columns), []
        tables = [self.read(entry, columns) for entry in entries]
        whole = pa.concat_tables(tables)
        if whole.nbytes < COMBINE_BELOW_BYTES:
            whole = whole.combine_chunks()
        repeated = repeated_rows(whole["attempt_id"])
        if not len(repeated):
            return whole, []
        if self._verdict is None or self._verdict[0] != entries:
            self._verdict = (entries, *self.choose(entries, np.cumsum([0, *(table.num_rows for table in tables)]), repeated))
        _, kept, conflicts = self._verdict
        for conflict in conflicts:
            self.warn(f"registry {self.layout.root}: {conflict.explain()}")
        return whole.filter(pa.array(kept)), conflicts

    def choose(self, entries: list[Entry], starts: np.ndarray, repeated: np.ndarray) -> tuple[np.ndarray, list[Conflict]]:
        """Which rows are read, as a mask, and the conflicts. starts: the position of each file's first row, and the end."""
        import numpy as np
        import pyarrow as pa

        file_of = np.searchsorted(starts, repeated, side="right") - 1
        # By the whole rows, whichever columns were asked for: these answer the same question in the same way.
        rows = pa.concat_tables(
            self.read(entries[file], None).take(pa.array(repeated[file_of == file] - starts[file]))
            for file in np.unique(file_of)
        )
        kept = np.ones(starts[-1], dtype=bool)
        kept[repeated] = False
        conflicts = []
        for different in choose(rows):
            kept[repeated[different[0]]] = True
            if len(different) > 1:
                files = {"/".join(entries[file_of[row]]) for row in different}
                conflicts.append(Conflict(rows["attempt_id"][different[0]].as_py() or "", tuple(sorted(files))))
        return kept, sorted(conflicts)

    def read(self, entry: Entry, columns: set[str] | None) -> pa.Table:
        """One file. Raises Vanished where it is gone, Changed where it is damaged or unreadable: then list the files anew."""
        with self.mending(entry), io.open_parquet(self.layout / entry[0] / entry[1]) as file:
            return schema.decode(file, columns)

    def read_checked(self, entry: Entry) -> pa.Table:
        """One file, all columns, decoded from the very bytes whose SHA-256 was found to be its name. Raises as `read` does.

        For what is kept elsewhere for long (the index): damage that comes after the file was last checked is found too.
        """
        with self.mending(entry):
            content = io.read(self.layout / entry[0] / entry[1])
            if content_name(content, ".parquet") != entry[1]:
                self.set_aside(entry, "its attempts are left out unless another file holds them")
                raise Changed
            return schema.decode(content)

    @contextlib.contextmanager
    def mending(self, entry: Entry) -> Iterator[None]:
        """Turn what reading a file may raise into: list the files anew, and this one is left out if it is at fault."""
        import pyarrow as pa

        try:
            yield
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


def checked_name() -> str:
    """Of the list of checked files. It holds for one boot: of what a copying tool never flushed, a power cut may leave a file
    of the right size and time that is full of zeros."""
    return f"checked-{content_name(boot_id().encode())[:16]}.json"


def as_manifest(content: bytes) -> dict[str, Any]:
    """Raises ValueError, KeyError or TypeError for what is no manifest."""
    told: dict[str, Any] = json.loads(content)
    if not all(isinstance(name, str) for name in (told["folded"], *told["replaces"])):
        raise ValueError("names must be text")
    return told


def as_facts(content: bytes) -> dict[str, Any]:
    """Raises ValueError, KeyError or TypeError for what are no facts."""
    told: dict[str, Any] = json.loads(content)
    if not all(isinstance(told[name], str) for name in ("kind", "name")):
        raise ValueError("kind and name must be text")
    return {"facts": told["facts"], **told}
