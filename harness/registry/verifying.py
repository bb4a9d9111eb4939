"""Every file of a registry, read from end to end: is it what its name says, is it one of ours, does it agree with the others?

No index is believed. A file is moved to quarantine, so that nobody uses it after it was found, when its content is not what its
name says, or when nothing in it can be used and a reader would stumble over it; where it cannot be moved, readers are made to
look at it again. Everything else is only named. What writers make, move and delete meanwhile is no finding.

Holds the rows of one file at a time, and the ids of all attempts.
"""

from __future__ import annotations

import contextlib
import json
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import RegistryError
from harness.registry import io, markers, schema
from harness.registry.annotations import decode as as_annotation
from harness.registry.files import FOLDERS, FORMAT, FORMAT_CONTENT, Layout, content_name, min_reader_of, quarantine
from harness.registry.folding import AT_ONCE, held_in
from harness.registry.reading import NAMES, Changed, Entry, Reader, as_facts, as_manifest
from harness.registry.standing import Standing

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["damaged", "truncated", "foreign", "conflict", "missing", "unreadable", "newer", "quarantined"]
Progress = Callable[[int, int], None]

FETCH = "fetch it again from a copy (`harness merge COPY`)"
AWAY = "it was not written by harness: move it away"
UPGRADE = "`pip install --upgrade paper-harness`"
PERMISSIONS = "mend its permissions or its disk"
ATTEMPT_ID = re.compile(r"[0-9a-f]{32}")
MARKER_NAME = re.compile(r"[0-9a-f]{32}\.json")
TMP_NAME = re.compile(r".+-\d+-\d+-[0-9a-f]+")
# Of git, of network disks that delete a file which is still open, and what opening for writing tries out.
OF_OTHERS = re.compile(r"\.git\w*|\.nfs\w+|\.probe-.+")
PARQUET_ENDS = b"PAR1"
NUMBERED = re.compile(r"\.\d+$")
AS_JSON: Mapping[str, Callable[[bytes], object]] = {"manifests": as_manifest, "facts": as_facts, "annotations": as_annotation}


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be. path: within the registry; closes: whether it means loss or doubt (exit 3)."""

    kind: Kind
    path: str
    what: str
    mend: str
    closes: bool = True


@dataclass
class Report:
    """What was found, and how much was looked at. attempts: rows, also those of files that folded ones have replaced."""

    findings: list[Finding] = field(default_factory=list)
    files: int = 0
    size_bytes: int = 0
    attempts: int = 0

    @property
    def closes(self) -> bool:
        return any(finding.closes for finding in self.findings)


def verify(layout: Layout, hands_off: bool = False, progress: Progress | None = None) -> Report:
    """Look at every file. hands_off: nothing is moved and nothing else in the folder changes.

    progress: called with (files looked at, of how many). Raises OSError only where the folder itself cannot be listed.
    """
    return Examination(layout, hands_off).run(progress)


class Examination:
    """One pass over a registry: what was seen so far, for what can only be judged together."""

    def __init__(self, layout: Layout, hands_off: bool) -> None:
        self.layout = layout
        self.hands_off = hands_off
        self.reader = Reader(layout, hands_off)
        self.report = Report()
        self.rows: dict[str, int] = {}  # how many each Parquet file holds that is sound
        self.manifests: dict[str, dict[str, Any]] = {}
        self.damaged: list[tuple[int, str]] = []  # which finding, which file

    def run(self, progress: Progress | None) -> Report:
        self.look_at_format()
        if any(finding.kind == "newer" for finding in self.report.findings):
            return self.report  # what this program does not know it must not take for foreign
        self.look_at_top_level()
        waiting = self.list_folder("quarantine")
        entries = [(folder, name) for folder in NAMES for name in self.list_folder(folder)]
        for number, entry in enumerate(entries):
            if progress is not None:
                progress(number, len(entries))
            self.look_at(entry)
        for folder, look in (("started", self.look_at_marker), ("tmp", self.look_at_unfinished)):
            for name in self.list_folder(folder):
                look(name)
        self.reader.save_index()
        self.compare_manifests()
        self.tell_what_is_spared()
        self.compare_rows()
        for name in waiting:
            self.look_at_quarantined(name)
        return self.report

    def find(self, kind: Kind, path: str, what: str, mend: str, closes: bool = True) -> None:
        self.report.findings.append(Finding(kind, path, what, mend, closes))

    def list_folder(self, folder: str) -> list[str]:
        """The names in it; none where it cannot be listed, which is a finding."""
        try:
            return io.listdir(self.layout / folder)
        except OSError as exc:
            self.find("unreadable", folder, f"cannot be listed ({exc.strerror})", PERMISSIONS)
            return []

    # What belongs here ------------------------------------------------------------------------------------------------

    def look_at_format(self) -> None:
        mend = f"write {FORMAT_CONTENT.decode().strip()} into it"
        try:
            content = io.read(self.layout.format)
            min_reader = min_reader_of(content)
        except FileNotFoundError:
            self.find("missing", "FORMAT", "is not there", mend)
        except OSError as exc:
            self.find("unreadable", "FORMAT", f"cannot be read ({exc.strerror})", PERMISSIONS)
        except ValueError as exc:
            self.find("damaged", "FORMAT", str(exc), mend)
        else:
            if min_reader > FORMAT:
                self.find("newer", "FORMAT", f"asks for a harness that reads format {min_reader}", UPGRADE)
            elif content.split() != FORMAT_CONTENT.split():  # a line end that git or an editor changed is no damage
                what = "is not what this harness writes: a flipped bit, or a newer format that it may read"
                self.find("damaged", "FORMAT", what, f"{mend}, or {UPGRADE}")

    def look_at_top_level(self) -> None:
        for name in io.listdir(self.layout.root):
            if name in FOLDERS:
                self.look_at_folder(name)
            elif name != self.layout.format.name and not OF_OTHERS.fullmatch(name):
                self.find("foreign", name, "is no part of a registry", AWAY)

    def look_at_folder(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            mode = io.mode(self.layout / name)
            if stat.S_ISLNK(mode):
                # What lies there is read all the same; but a copy of the registry made by name alone is without it.
                self.find("foreign", name, "is a symbolic link, not a folder", "move the folder here")

    def is_plain(self, path: str) -> bool:
        """Whether it is a file with content; what is not is a finding. Raises OSError."""
        what = what_it_is(io.mode(self.layout.root / path))
        if what != "a file":
            self.find("foreign", path, f"is {what}, not a file", AWAY)
        return what == "a file"

    # One file ---------------------------------------------------------------------------------------------------------

    def look_at(self, entry: Entry) -> None:
        """One file of a folder whose files are named by their content."""
        folder, name = entry
        path = f"{folder}/{name}"
        if OF_OTHERS.fullmatch(name):
            return
        try:
            what = what_it_is(io.mode(self.layout.root / path))
            if not NAMES[folder].fullmatch(name):
                self.find("foreign", path, f"is {what} without a name that files have here; it is not read", AWAY)
            elif what == "a file":
                self.look_into(entry)
            elif what == "a symbolic link" and self.leads_to_right_file(entry):
                self.find(
                    "foreign", path, f"is {what}: what it leads to is read as long as that stays", "put the file itself here"
                )
            else:  # a reader would take it for a record, and wait at a pipe for ever
                self.find("foreign", path, f"is {what} where a file should be; {self.put_aside(entry)}", AWAY)
        except FileNotFoundError:
            pass  # replaced and deleted, or put aside by a reader, since it was listed
        except OSError as exc:
            self.reader.forget(entry)
            self.find("unreadable", path, f"cannot be read ({exc.strerror})", PERMISSIONS)

    def leads_to_right_file(self, entry: Entry) -> bool:
        with contextlib.suppress(OSError):  # it leads nowhere, or to a device
            return self.reader.has_its_name(entry)
        return False

    def look_into(self, entry: Entry) -> None:
        folder, name = entry
        path = self.layout / folder / name
        as_it_was = io.size_and_time(path)
        # Artefacts may be large, and nothing in them is looked at.
        content = b"" if folder == "blobs" else io.read(path)
        self.report.files += 1
        self.report.size_bytes += as_it_was[0]
        if not (self.reader.has_its_name(entry) if folder == "blobs" else content_name(content) == name.partition(".")[0]):
            self.tell_damaged(entry, content, as_it_was[0])
        elif folder in AS_JSON:
            self.look_into_json(entry, content)
        elif folder != "blobs":
            self.reader.remember(entry, as_it_was)
            self.look_into_rows(entry, content)

    def tell_damaged(self, entry: Entry, content: bytes, size_bytes: int) -> None:
        if size_bytes == 0:
            kind, what = "truncated", "is empty"
        elif is_cut(entry[0], content):
            kind, what = "truncated", "its end is missing"
        else:
            kind, what = "damaged", "was changed"
        where = self.put_aside(entry)
        self.damaged.append((len(self.report.findings), entry[1]))
        self.find(kind, "/".join(entry), f"{what}: its SHA-256 is not its name; {where}", FETCH)  # type: ignore[arg-type]

    def look_into_json(self, entry: Entry, content: bytes) -> None:
        try:
            told = AS_JSON[entry[0]](content)
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            where = self.put_aside(entry)
            what = f"its name is right, but it is none of {entry[0]} ({type(exc).__name__}: {exc}); {where}"
            self.find("foreign", "/".join(entry), what, AWAY)
        else:
            if entry[0] == "manifests" and isinstance(told, dict):
                self.manifests[entry[1]] = told

    def look_into_rows(self, entry: Entry, content: bytes) -> None:
        import pyarrow as pa

        path = "/".join(entry)
        try:
            table = schema.decode(content)
        except schema.NewerSchema as exc:
            self.find("newer", path, f"is written in schema {exc.args[0]}, newer than this harness reads", UPGRADE)
            return
        except (pa.ArrowException, ValueError, KeyError, TypeError, OSError) as exc:
            what = f"its name is right, but pyarrow {pa.__version__} cannot read it ({exc})"
            self.find("unreadable", path, what, f"{AWAY}, or read it with the pyarrow that wrote it")
            return
        self.rows[entry[1]] = table.num_rows
        self.report.attempts += table.num_rows
        for what in strange_rows(entry[0], table):
            self.find("foreign", path, what, AWAY)
        self.look_for_blobs(path, table)

    def look_for_blobs(self, path: str, table: pa.Table) -> None:
        """Whether the artefacts that these rows name are there. A writer publishes them before the row."""
        for name in blobs_of(table):
            if name is None or not NAMES["blobs"].fullmatch(name):
                self.find("foreign", path, f"names an artefact {name!r}, which is no SHA-256", AWAY)
                continue
            try:
                io.mode(self.layout / "blobs" / name)
            except FileNotFoundError:
                self.find("missing", f"blobs/{name}", f"is named by an attempt in {path}, and is not here", FETCH)

    def put_aside(self, entry: Entry) -> str:
        """To quarantine, and out of the index of checked files whether or not that works; in words."""
        self.reader.forget(entry)
        if self.hands_off:
            return "left where it is"
        try:
            target = quarantine(self.layout, self.layout / entry[0] / entry[1])
        except OSError as exc:
            return f"could not be moved to quarantine ({exc.strerror})"
        return f"moved to {target.relative_to(self.layout.root)}"

    def look_at_marker(self, name: str) -> None:
        path = f"started/{name}"
        with contextlib.suppress(FileNotFoundError):
            try:
                if OF_OTHERS.fullmatch(name) or not self.is_plain(path):
                    return
                if not MARKER_NAME.fullmatch(name):
                    self.find("foreign", path, "has no name of a start marker", AWAY)
                    return
                markers.read_marker(self.layout.root / path)
            except (ValueError, TypeError, KeyError):
                where = self.put_aside(("started", name))
                what = f"is no start marker (a power cut tears them); {where}"
                self.find("damaged", path, what, "the trial that it speaks of runs anew with the next `harness run`")
            except FileNotFoundError:
                return  # its attempt has ended meanwhile
            except OSError as exc:
                self.find("unreadable", path, f"cannot be read ({exc.strerror})", PERMISSIONS)

    def look_at_unfinished(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # it has its final name now
            if not OF_OTHERS.fullmatch(name) and self.is_plain(f"tmp/{name}") and not TMP_NAME.fullmatch(name):
                self.find("foreign", f"tmp/{name}", "is no unfinished file of a writer", AWAY)

    # What can only be judged together -----------------------------------------------------------------------------------

    def compare_manifests(self) -> None:
        standing = Standing(self.manifests.values())
        for manifest, told in self.manifests.items():
            path, folded = f"manifests/{manifest}", told["folded"]
            if folded in self.rows:
                self.compare_with_folded(manifest, told)
            elif not self.is_held(folded, standing):
                lost = [name for name in told["replaces"] if not self.is_held(name, standing)]
                if (
                    lost
                    and not self.is_known_damaged(folded)
                    and self.is_nowhere([folded, *lost])
                    and self.is_still_there(path)
                ):
                    parts = f"{len(lost)} of the {len(told['replaces'])} files that it replaced"
                    what = f"is not here, nor are {parts}; {path} names it"
                    self.find("missing", f"folded/{folded}", what, FETCH)

    def is_known_damaged(self, name: str) -> bool:
        return name in {damaged for _, damaged in self.damaged} | {
            plain_name(n) for n in io.listdir(self.layout / "quarantine")
        }

    def is_nowhere(self, names: Iterable[str]) -> bool:
        """Whether none of these, nor what replaced them, is there at this moment: others fold and delete while we look."""
        standing = Standing(Reader(self.layout, hands_off=True).manifests())
        held = {other for name in names for other in (name, *standing.above(name))}
        return not any(self.is_still_there(f"{folder}/{name}") for name in held for folder in ("attempts", "folded"))

    def compare_with_folded(self, manifest: str, told: Mapping[str, Any]) -> None:
        """Whether the folded file holds what the manifest says, row by row for the files that are still there."""
        path, folded = f"manifests/{manifest}", told["folded"]
        if told.get("rows") != self.rows[folded]:
            what = f"says that {folded} holds {told.get('rows')} attempts; it holds {self.rows[folded]}"
            self.find("conflict", path, what, AWAY)
        entries = [(folder, name) for name in told["replaces"] for folder in ("attempts", "folded") if name in self.rows
                   and self.is_still_there(f"{folder}/{name}")]  # fmt: skip
        lacking: list[Entry] = []
        with contextlib.suppress(Changed):  # somebody deletes what was replaced just now
            whole = self.reader.read_checked(("folded", folded)) if entries else None
            for at in range(0, len(entries), AT_ONCE):
                some = entries[at : at + AT_ONCE]
                held = held_in(self.reader, whole, some)
                lacking += [entry for entry in some if entry not in held and self.is_still_there("/".join(entry))]
        if lacking:
            where = self.put_aside(("manifests", manifest))
            what = f"lets {folded} replace {lacking[0][1]}, whose rows it does not hold ({len(lacking)} such files); {where}"
            self.find("conflict", path, what, "nothing: they are read themselves again" if not self.hands_off else AWAY)

    def is_still_there(self, path: str) -> bool:
        try:
            io.mode(self.layout.root / path)
        except OSError:
            return False
        return True

    def is_held(self, name: str, standing: Standing) -> bool:
        """Whether the rows of a file are here: in it, or in one that stands for it."""
        return any(other in self.rows for other in (name, *standing.keepers(name)))

    def compare_rows(self) -> None:
        with contextlib.suppress(RegistryError):  # a folder that cannot be listed is a finding already
            for conflict in self.reader.conflicts():
                what = f"differing rows of attempt {conflict.attempt_id}; the one whose content has the smallest digest is read"
                mend = f"`harness annotate {conflict.attempt_id} --invalid REASON` takes it out of all rankings"
                self.find("conflict", " and ".join(conflict.files), what, mend)
            for kind, name, files in self.reader.fact_conflicts():
                what = f"{kind} {name} is told differently; all are kept"
                self.find("conflict", " and ".join(files), what, "see which is right, and move the other away")

    def look_at_quarantined(self, name: str) -> None:
        """What was put aside before this pass, and whether it is a loss."""
        path, plain = f"quarantine/{name}", plain_name(name)
        if OF_OTHERS.fullmatch(name) or not self.is_still_there(path):
            return
        if MARKER_NAME.fullmatch(plain):
            self.find("quarantined", path, "is a torn start marker", "`harness gc --yes` deletes it", closes=False)
        elif not any(right.fullmatch(plain) for right in NAMES.values()):
            self.find("foreign", path, "is no file that harness would put here", AWAY)
        elif is_back(self.reader, plain):
            self.find("quarantined", path, "is damaged, and has come back whole", "`harness gc --yes` deletes it", closes=False)
        elif self.is_spared(plain):
            self.find("quarantined", path, "is damaged, and other files hold its attempts", "delete it", closes=False)
        else:
            self.find("quarantined", path, "is damaged, and what it held is nowhere else", f"{FETCH}, or delete it")

    def is_spared(self, name: str) -> bool:
        """Whether other files hold the rows of this one: one that replaced it, or all that it replaced."""
        standing = Standing(self.manifests.values())
        parts = [told["replaces"] for told in self.manifests.values() if told["folded"] == name]
        return self.is_held(name, standing) or any(all(self.is_held(part, standing) for part in those) for those in parts)

    def tell_what_is_spared(self) -> None:
        """Damage that cost nothing is said to be such."""
        for number, name in self.damaged:
            if self.is_spared(name):
                mended = replace(self.report.findings[number], mend="nothing is lost: other files hold its attempts")
                self.report.findings[number] = mended


def is_back(reader: Reader, name: str) -> bool:
    """Whether a sound file of the registry bears the name of one in quarantine."""
    plain = plain_name(name)
    for folder, right in NAMES.items():
        if right.fullmatch(plain):
            with contextlib.suppress(OSError):
                if reader.has_its_name((folder, plain)):
                    return True
    return False


def plain_name(name: str) -> str:
    """Of a file in quarantine: the name that it had."""
    return NUMBERED.sub("", name)


def what_it_is(mode: int) -> str:
    kinds = {
        stat.S_IFREG: "a file", stat.S_IFDIR: "a folder", stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
    }  # fmt: skip
    return kinds.get(stat.S_IFMT(mode), "a device")


def is_cut(folder: str, content: bytes) -> bool:
    """Whether a damaged file lacks its end; an artefact may end with anything."""
    if folder == "blobs":
        return False
    return not content.endswith(b"}" if folder in AS_JSON else PARQUET_ENDS)


def blobs_of(table: pa.Table) -> list[str | None]:
    """The artefacts that rows name."""
    import pyarrow.compute as pc

    names: list[str | None] = pc.struct_field(pc.list_flatten(table["blobs"].combine_chunks()), "sha256").unique().to_pylist()
    return names


def strange_rows(folder: str, table: pa.Table) -> Iterator[str]:
    """What no writer of ours would have written, in words."""
    if folder == "attempts" and table.num_rows != 1:
        yield f"holds {table.num_rows} attempts; a loose file holds one"
    bad = [text for text in table["attempt_id"].to_pylist() if not ATTEMPT_ID.fullmatch(text or "")]
    if bad:
        yield f"{len(bad)} of its rows have no right attempt id, {bad[0]!r} for one"
    for column in schema.JSON_COLUMNS:
        for text in table[column].unique().to_pylist():
            try:
                json.loads(text if text is not None else "null")
            except (ValueError, RecursionError):
                yield f"its column {column} holds what is no JSON: {text[:40]!r}"
                break
