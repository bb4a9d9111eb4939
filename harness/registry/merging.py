"""One registry into another: the union of their files. In any order, as often as you like, killed and begun again.

Files are named by their content, so there is nothing to decide: what is here is left, what is not is copied and checked on the
way, what is damaged here is put aside for a healthy copy. What a folded file stands for need not be copied. The source is only
read, and nothing in it is believed but what it proves: a copy has to have its name, and a manifest may not hide rows of this
registry that the folded file does not hold.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import RegistryError
from harness.registry import io
from harness.registry.conflicts import Conflict, choose, join
from harness.registry.files import Layout, ensure_folder, give_name, owner, quarantine
from harness.registry.reading import RELISTS, Changed, Entry, Reader, as_manifest
from harness.registry.standing import Standing

if TYPE_CHECKING:
    import pyarrow as pa

# A reader that comes in the middle must find nothing that it would take for something else: what is said of attempts and what
# rows name is here before the rows, and the manifest by which a file stands for others after that file.
ORDER = ("annotations", "facts", "blobs", "folded", "attempts", "manifests")
ROWS = ("folded", "attempts")


@dataclass
class Report:
    """What a merge met; of a dry run: what it would meet.

    copied, skipped: files by folder; skipped are those that are here, and those for which a folded file stands.
    attempts: how many are new here.   restored: files that were damaged here and are whole again.
    damaged: what was left out on either side, and why.   conflicts: among the attempts here, afterwards.
    fact_conflicts: (kind, name, files), likewise.   missing: artefacts that rows name and neither side holds.
    """

    copied: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    copied_bytes: int = 0
    attempts: int = 0
    restored: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    fact_conflicts: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def doubtful(self) -> bool:
        """Whether damage or a conflict was met: a disk that loses bits, or an id that two attempts bear."""
        return bool(self.damaged or self.restored or self.conflicts or self.fact_conflicts)


def by_folder(entries: Iterable[Entry]) -> dict[str, int]:
    return dict(sorted(Counter(folder for folder, _ in entries).items()))


State = Literal["whole", "damaged", "unreadable", "absent"]


class Unreadable(Exception):
    """A file of the source that cannot be read; args: why."""


class Gone(Exception):
    """A file of the source that was listed and is not there."""


def check_source(target: Path, source: Path) -> list[str]:
    """What is to be warned of. Raises RegistryError if `source` is no registry that we read, or lies in `target` or around it."""
    from harness.registry.store import Registry

    if not source.is_dir():
        raise RegistryError(f"registry {source}: there is no such folder; name the folder of a registry")
    opened = Registry.open(source, create=False)
    refuse_nested(target, source)
    return opened.warnings


def refuse_nested(target: Path, source: Path) -> None:
    inner, outer = target.resolve(), source.resolve()
    if inner != outer and (inner in outer.parents or outer in inner.parents):
        raise RegistryError(f"registry {source}: one of {source} and {target} lies in the other; move it beside")


def merge(
    reader: Reader, layout: Layout, source: Layout, dry_run: bool = False, progress: Callable[[int, int], None] | None = None
) -> Report:
    """Copy into `layout` what `source` holds and it does not; on the disk when this returns. reader: of the target.

    progress: called with (files looked at, of how many). A registry and itself: nothing happens.
    Raises RegistryError for a source that cannot be listed, OSError where the target refuses; what was copied by then is whole.
    """
    here = Reader(layout, hands_off=True) if dry_run else reader
    taking = Taking(here, Reader(source, hands_off=True), dry_run, progress)
    if layout.root.resolve() != source.root.resolve():
        taking.take_all()
    report = taking.report
    report.fact_conflicts = here.fact_conflicts()
    rows, report.conflicts = here.rows({"blobs"})
    tables = [rows]
    if dry_run:
        report.conflicts = taking.conflicts_to_come(report.conflicts)
        tables += [table for _, table in taking.rows_copied({"blobs"})]
        for warning in here.warnings:
            reader.warn(warning)
    taken = {name for folder, name in taking.copied if folder == "blobs"}
    report.missing = sorted(absent(layout, tables) - taken)
    return report


def missing_blobs(reader: Reader, layout: Layout) -> list[str]:
    """The artefacts that rows name and that are not here: SHA-256, sorted."""
    return sorted(absent(layout, [reader.table({"blobs"})]))


def absent(layout: Layout, tables: Iterable[pa.Table]) -> set[str]:
    """The artefacts that these rows name and that are not here."""
    import pyarrow.compute as pc

    named: set[str | None] = set()
    for table in tables:
        named.update(pc.struct_field(pc.list_flatten(table["blobs"].combine_chunks()), "sha256").to_pylist())
    return {name for name in named - set(io.listdir(layout / "blobs")) if name is not None}


@dataclass(frozen=True)
class Listing:
    """What a source holds at one moment: names by folder, and how its files stand for one another."""

    names: dict[str, set[str]]
    manifests: dict[str, dict[str, Any]]


class Taking:
    """One merge. here: the target's reader. theirs: the source's, which changes nothing there."""

    def __init__(
        self, here: Reader, theirs: Reader, dry_run: bool = False, progress: Callable[[int, int], None] | None = None
    ) -> None:
        self.here, self.theirs = here, theirs
        self.dry_run = dry_run
        self.report = Report()
        self.copied: list[Entry] = []
        self._progress = progress or (lambda done, total: None)
        self._settled: dict[Entry, bool] = {}  # looked at: whether the target holds it, whole
        self._skipped: set[Entry] = set()
        self._gone: set[Entry] = set()
        self._read_here: dict[str, str] | None = None

    def take_all(self) -> None:
        """All passes: files that vanish while they are copied were folded meanwhile, so the source is listed anew."""
        known = set(self.here.table(())["attempt_id"].to_pylist())
        for _ in range(RELISTS):
            gone = len(self._gone)
            self.take(self.list_source())
            if len(self._gone) == gone:
                break
        else:
            source = self.theirs.layout.root
            raise RegistryError(f"registry {source}: its files vanish faster than they can be copied; try again")
        self.report.copied, self.report.skipped = by_folder(self.copied), by_folder(self._skipped)
        still = [entry for entry in sorted(self.here.damaged) if "/".join(entry) not in self.report.restored]
        self.report.damaged = [*self.theirs.left_out.values(), *(self.here.left_out[entry] for entry in still)]
        self.report.attempts = len(self.ids_copied().keys() - known)

    def list_source(self) -> Listing:
        """Files with rows first, manifests after them: what was folded between the two is still there itself."""
        try:
            names = {folder: set(self.theirs.names(folder)) for folder in (*ROWS, "blobs")}
            manifests = dict(self.theirs.checked_json("manifests", as_manifest, "it is not copied"))
            names["facts"] = {name for name, _ in self.theirs.named_facts()}
            names["annotations"] = {name for name, _ in self.theirs.acts()}
        except OSError as exc:
            why = f"{exc.strerror or exc}; check its permissions and its disk"
            raise RegistryError(f"registry {self.theirs.layout.root}: cannot be read: {why}") from exc
        return Listing({**names, "manifests": set(manifests)}, manifests)

    def take(self, listing: Listing) -> None:
        """One pass, folder by folder. Raises OSError."""
        standing = Standing([*listing.manifests.values(), *self.here.manifests()])
        total, done = sum(map(len, listing.names.values())), 0
        for folder in ORDER:
            if not self.dry_run:
                ensure_folder(self.here.layout / folder)
            for name in sorted(listing.names[folder]):
                self._progress(done, total)
                done += 1
                if folder == "manifests":
                    self.take_manifest(name, listing, standing)
                elif folder not in ROWS or not self.is_replaced(name, listing, standing):
                    self.bring((folder, name))
            if not self.dry_run:  # also where nothing was copied: a merge that was killed may have left names without this
                io.fsync_dir(self.here.layout / folder)
        self._progress(total, total)

    # Which files, and which manifests ---------------------------------------------------------------------------------

    def is_replaced(self, name: str, listing: Listing, standing: Standing) -> bool:
        """Whether a folded file that the target holds, or now gets, stands for this one."""
        if not any(self.has_fold(fold, listing) for fold in standing.keepers(name)):
            return False
        self._skipped.update((folder, name) for folder in ROWS if name in listing.names[folder])
        return True

    def has_fold(self, fold: str, listing: Listing) -> bool:
        """Whether the target holds this folded file whole; it is fetched if the source has it."""
        entry = ("folded", fold)
        if fold in listing.names["folded"]:
            return self.bring(entry)
        if entry not in self._settled:
            state = self.state_here(entry)
            if state == "damaged":
                self.here.set_aside(entry, "what it replaced is read again")
            self._settled[entry] = state == "whole"
        return self._settled[entry]

    def take_manifest(self, name: str, listing: Listing, standing: Standing) -> None:
        """A manifest of a file that stands here; one that would hide rows from the target's readers is refused."""
        told = listing.manifests[name]
        fold = next((f for f in (*standing.keepers(told["folded"]), told["folded"]) if self.has_fold(f, listing)), None)
        if fold is None:  # nothing of what it says holds here
            self._skipped.add(("manifests", name))
        elif hidden := self.lost_behind(fold, told["replaces"]):
            why = f"says that {told['folded']} stands for {hidden[0]}, whose attempts it does not hold"
            self.theirs.leave_out(("manifests", name), why)
        else:
            self.bring(("manifests", name))

    def lost_behind(self, fold: str, names: Iterable[str]) -> list[str]:
        """Those of these files of the target whose rows are read today and are not all in the folded file."""
        concerned = self.read_here().keys() & set(names)
        return sorted(name for name in concerned if not self.holds(fold, (self.read_here()[name], name)))

    def read_here(self) -> dict[str, str]:
        """The target's files that readers open, as they were before the first manifest came: name -> folder."""
        if self._read_here is None:
            present = {name: folder for folder in ROWS for name in self.here.names(folder)}
            replaced = self.here.replaced(set(self.here.names("folded")))
            self._read_here = {name: folder for name, folder in present.items() if name not in replaced}
        return self._read_here

    def holds(self, fold: str, entry: Entry) -> bool:
        """Whether each row of a file of the target is in a folded file. A file that is unreadable has no row to lose."""
        try:
            rows = self.here.read(entry, None)
        except Changed:
            return True
        try:
            reader = self.theirs if ("folded", fold) in self.copied and self.dry_run else self.here
            kept = reader.read(("folded", fold), None)
        except Changed:
            return False
        return len(join([kept, rows], keep_conflicts=True)) == len(join([kept], keep_conflicts=True))

    # One file ---------------------------------------------------------------------------------------------------------

    def bring(self, entry: Entry) -> bool:
        """Have a file of the source here; whether the target holds it whole then (in a dry run: would). Raises OSError."""
        if entry not in self._settled:
            state = self.state_here(entry)
            if state == "whole":
                self._skipped.add(entry)
                self._settled[entry] = True
            else:
                found = self.fetch(entry, state)
                if found is None:
                    return False  # gone: the next pass asks again
                self._settled[entry] = found
        return self._settled[entry]

    def state_here(self, entry: Entry) -> State:
        """By its content: a merge mends what nobody has noticed yet. Raises OSError for what is no fault of the file."""
        try:
            return "whole" if self.here.has_its_name(entry) else "damaged"
        except FileNotFoundError:
            return "absent"
        except OSError as exc:
            if exc.errno != errno.EIO:
                raise
            return "unreadable"

    def fetch(self, entry: Entry, state: State) -> bool | None:
        """Copy a file; False where the source has none that is whole, None where it has gone. Raises OSError."""
        try:
            size = self.size_if_whole(entry) if self.dry_run else self.copy(entry)
        except Unreadable as exc:
            self.theirs.leave_out(entry, f"cannot be read ({exc.args[0]})")
            size = None
        except Gone:
            if entry not in self._gone:
                self._gone.add(entry)
                return None
            self.theirs.leave_out(entry, "is listed, but cannot be opened: a link to nothing")
            size = None
        else:
            if size is None:
                self.theirs.set_aside(entry, "it is not copied")
        if size is None:
            if state == "damaged":
                self.here.set_aside(entry, "the source has no healthy copy either")
            return False
        if state != "absent" or entry in self.here.damaged:  # found just now, or when the rows were read
            self.report.restored.append("/".join(entry))
        if not self.dry_run:
            self.here.forget(entry)
        self.copied.append(entry)
        self.report.copied_bytes += size
        return True

    def size_if_whole(self, entry: Entry) -> int | None:
        total, size = hashlib.sha256(), 0
        for chunk in self.chunks(entry):
            total.update(chunk)
            size += len(chunk)
        return size if total.hexdigest() == entry[1].partition(".")[0] else None

    def copy(self, entry: Entry) -> int | None:
        """Copy, check and name; the bytes, or None where the content is not what the name says: nothing is left then.

        A damaged file of the name gives way only now that there is a healthy one.
        """
        layout = self.here.layout
        final, tmp = layout / entry[0] / entry[1], layout / "tmp" / f"{owner()}-{secrets.token_hex(8)}"
        ensure_folder(tmp.parent)
        try:
            total, size = hashlib.sha256(), 0
            fd = io.create(tmp)
            try:
                for chunk in self.chunks(entry):
                    total.update(chunk)
                    size += len(chunk)
                    io.write(fd, chunk)
                io.fsync(fd)
            finally:
                io.close(fd)
            if total.hexdigest() != entry[1].partition(".")[0]:
                return None
            try:
                give_name(tmp, final)
            except FileExistsError:
                if self.state_here(entry) != "whole":  # else another process was faster
                    quarantine(layout, final)
                    give_name(tmp, final)
        finally:
            with contextlib.suppress(OSError):  # swept later
                io.unlink(tmp)
        return size

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """A file of the source; its errors told from those of the target. Raises Gone or Unreadable."""
        try:
            yield from io.read_chunks(self.theirs.layout / entry[0] / entry[1])
        except FileNotFoundError as exc:
            raise Gone from exc
        except OSError as exc:
            raise Unreadable(exc.strerror or str(exc)) from exc

    # What came of it --------------------------------------------------------------------------------------------------

    def rows_copied(self, columns: set[str] | None) -> Iterator[tuple[Entry, pa.Table]]:
        """The files with rows that were copied; those that this harness cannot read are passed over."""
        reader = self.theirs if self.dry_run else self.here
        for entry in self.copied:
            if entry[0] in ROWS:
                with contextlib.suppress(Changed):
                    yield entry, reader.read(entry, columns)

    def ids_copied(self) -> Counter[str]:
        """In how many rows of copied files each attempt is."""
        found: Counter[str] = Counter()
        for _, table in self.rows_copied({"attempt_id"}):
            found.update(table["attempt_id"].to_pylist())
        return found

    def conflicts_to_come(self, already: Iterable[Conflict]) -> list[Conflict]:
        """Those that are here already, and those that the files of the source would make."""
        import pyarrow as pa
        import pyarrow.compute as pc

        seen = self.ids_copied() + Counter(self.here.table(())["attempt_id"].to_pylist())
        repeated = pa.array([attempt for attempt, n in seen.items() if n > 1], pa.string())
        if not len(repeated):
            return list(already)
        files: dict[str, set[str]] = {}
        tables = [self.here.table()]
        for entry, table in self.rows_copied(None):
            tables.append(table)
            for attempt in table["attempt_id"].to_pylist():
                files.setdefault(attempt, set()).add(str(self.theirs.layout / entry[0] / entry[1]))
        rows = pa.concat_tables(table.filter(pc.is_in(table["attempt_id"], repeated)) for table in tables)
        ids = [rows["attempt_id"][same[0]].as_py() for same in choose(rows) if len(same) > 1]
        return sorted({*already, *(Conflict(attempt, tuple(sorted(files[attempt]))) for attempt in ids)})
