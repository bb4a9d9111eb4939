"""`Registry`: append attempts, fold them, read them back. The only door to a registry folder.

Writers never wait for each other and readers for nobody: files appear whole under the name that their content has, and are
never changed. What a call acknowledged by returning is on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

from harness.errors import DamagedError, RegistryError
from harness.records import Attempt, Blob, Outcome, Provenance, Trial
from harness.registry import folding, io, markers, schema
from harness.registry.annotations import Annotation, Kind, publish_annotation
from harness.registry.files import (
    FOLDERS, FORMAT, FORMAT_CONTENT, Layout, content_name, ensure_folder, min_reader_of, owner, publish, quarantine, sweep_tmp,
)  # fmt: skip
from harness.registry.reading import RELISTS, Changed, Entry, Reader
from harness.registry.unfolded import Unfolded

if TYPE_CHECKING:
    import pyarrow as pa

    from harness.registry import collecting, merging, verifying

T = TypeVar("T")

MAX_BLOB_BYTES = 16 << 20
QUERY_TIMEOUT_S = 60.0
MAX_WARNINGS = 20
SHA256 = re.compile(r"[0-9a-f]{64}")
MENDS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your disk quota",
    errno.EACCES: "make it writable or name another folder with --registry",
    errno.EPERM: "make it writable or name another folder with --registry",
    errno.EROFS: "it is mounted read-only: name another folder with --registry",
}


@dataclass(frozen=True)
class TrialState:
    """What is known of a trial on one machine: its latest attempt, and all that attempts of that status measured.

    status: "interrupted" only where every attempt was. quantities: metrics and series, or regions of a timing trial.
    wall_s: of the latest attempt; None where it was not measured.
    """

    status: str
    quantities: frozenset[str]
    attempt_id: str
    wall_s: float | None


class Registry:
    """A registry folder. path: where. warnings: what was met that is damaged or unreadable, for the caller to show.

    restored: ids of attempts that this object had recorded, that were gone or damaged at a fold, and are there again.
    """

    def __init__(self, path: Path) -> None:
        """Use `Registry.open`, which checks the folder first."""
        self.path = path
        self._layout = Layout(path)
        self._reader = Reader(self._layout)
        self._kept_facts: set[tuple[str, ...]] = set()
        self._unfolded = Unfolded()
        self.restored: list[str] = []

    @property
    def warnings(self) -> list[str]:
        found = self._reader.warnings
        more = len(found) - MAX_WARNINGS
        return found if more <= 0 else [*found[:MAX_WARNINGS], f"registry {self.path}: and {more} more warnings like these"]

    def warn(self, text: str) -> None:
        """One more of `warnings`: what a reader of its rows leaves out, and why."""
        self._reader.warn(text)

    # Opening --------------------------------------------------------------------------------------------------------

    @staticmethod
    def open(path: Path, create: bool = True) -> Registry:
        """create: for writing; makes what is missing, proves that it can write, sweeps and compacts what dead processes left.

        Without it nothing is made, and a folder that does not exist is an empty registry (with a warning).
        Raises RegistryError: no folder, not a registry, of a newer format, or not writable.
        """
        registry = Registry(Path(path))
        if create:
            registry._prepare()
            registry.sweep()
            registry.compact()  # a run that was killed never folded what it wrote
        elif registry.path.exists():
            registry._check_format(to_read=True)
        else:
            registry._reader.warn(f"registry {path}: there is none yet; `harness run SUITE --registry {path}` makes one")
        return registry

    def _prepare(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise RegistryError(f"registry {self.path}: is a file, not a folder; name a folder with --registry")
        try:
            self._refuse_strangers()
            for name in FOLDERS:
                ensure_folder(self._layout / name)
            if not self._layout.format.exists():
                publish(self._layout, FORMAT_CONTENT, self._layout.format)
            self._check_format()
            self._flush_names()
            self._probe()
        except OSError as exc:
            raise self._error("cannot be written", exc) from exc

    def _flush_names(self) -> None:
        """Folders and FORMAT may be of a process that died before it flushed them; a power cut would take all in them."""
        io.fsync_dir(self.path)
        with contextlib.suppress(PermissionError):  # a folder above that we may not list, so have not made
            io.fsync_dir(self.path.absolute().parent)

    def _refuse_strangers(self) -> None:
        """A folder full of other things is a mistyped --registry."""
        names = io.listdir(self.path)
        strangers = [n for n in names if n not in FOLDERS and not n.startswith(".")]
        if strangers and self._layout.format.name not in names:
            raise RegistryError(
                f"registry {self.path}: has no FORMAT file but holds {', '.join(strangers[:3])}; "
                "name an empty or a new folder with --registry"
            )

    def _check_format(self, to_read: bool = False) -> None:
        """to_read: a lost or damaged FORMAT file hides no record; nothing is added to a registry whose format is unknown."""
        try:
            min_reader = min_reader_of(io.read(self._layout.format))
        except (FileNotFoundError, NotADirectoryError) as exc:
            if to_read and self.path.is_dir() and any(self._reader.names(folder) for folder in ("folded", "attempts")):
                self.warn(f"registry {self.path}: its FORMAT file is gone; it is read as one of format {FORMAT}")
                return
            raise RegistryError(
                f"registry {self.path}: has no FORMAT file, so it is none; name another folder with --registry"
            ) from exc
        except OSError as exc:
            raise self._error("cannot be read", exc) from exc
        except ValueError as exc:
            told = f"registry {self.path}: its FORMAT file is damaged; write {FORMAT_CONTENT.decode().strip()} into it"
            if not to_read:
                raise RegistryError(told) from exc
            self.warn(f"{told}; it is read as one of format {FORMAT}")
            return
        if min_reader > FORMAT:
            raise RegistryError(
                f"registry {self.path}: needs a harness that reads format {min_reader}, this one reads {FORMAT}; "
                "`pip install --upgrade paper-harness`"
            )

    def _probe(self) -> None:
        """Do once, with a small file, all that an append does: permissions and free space show only then. Raises OSError."""
        probe = self._layout / "attempts" / f".probe-{owner()}-{secrets.token_hex(8)}"
        publish(self._layout, b"probe", probe)
        io.unlink(probe)

    def _error(self, what: str, exc: OSError) -> RegistryError:
        mend = MENDS.get(exc.errno or 0, "check the disk")
        return RegistryError(f"registry {self.path}: {what}: {exc.strerror or exc}; {mend}")

    # Writing --------------------------------------------------------------------------------------------------------

    def append(self, attempt: Attempt, blob_files: Mapping[str, Path] | None = None) -> Attempt:
        """Record one attempt; it is on the disk when this returns. The same attempt again changes nothing.

        blob_files: name -> file, for `attempt.outcome.blobs`; a name that is absent is looked for at the blob's own "path".
        Returns the attempt as recorded: with its `blobs`, and `failed` where its values could not be written as a row.
        Raises RegistryError if the disk refuses; then nothing was recorded.
        """
        try:
            self._keep_facts(attempt.provenance)
            attempt = self._take_blobs(attempt, blob_files or {})
            attempt, row, content = encode(attempt)
            name = content_name(content, ".parquet")
            publish(self._layout, content, self._layout / "attempts" / name)
            self._unfolded.add(attempt.provenance.invocation, name, row)
        except OSError as exc:
            raise self._error(f"cannot record attempt {attempt.attempt_id}", exc) from exc
        return attempt

    def _take_blobs(self, attempt: Attempt, files: Mapping[str, Path]) -> Attempt:
        """Store the artefacts; one that is missing or too large is left out and named in the log, never the attempt."""
        if not attempt.outcome.blobs:
            return attempt
        kept, refused = list(attempt.blobs), []
        for saved in attempt.outcome.blobs:
            name = str(saved["name"])
            try:
                content = io.read_regular(Path(files.get(name, saved["path"])), MAX_BLOB_BYTES)
            except OSError as exc:
                refused.append(f"harness: artefact {name!r} is left out: {exc.strerror}\n")
                continue
            if len(content) > MAX_BLOB_BYTES:
                refused.append(f"harness: artefact {name!r} is left out: larger than {MAX_BLOB_BYTES >> 20} MiB\n")
                continue
            blob = Blob(name, str(saved["media_type"]), content_name(content), len(content))
            path = self._layout / "blobs" / blob.sha256
            renew(path)
            publish(self._layout, content, path)
            kept.append(blob)
        outcome = replace(attempt.outcome, log=attempt.outcome.log + "".join(refused)) if refused else attempt.outcome
        return replace(attempt, blobs=tuple(kept), outcome=outcome)

    def _keep_facts(self, where: Provenance) -> None:
        """Machine, environment and data, once per content: rows name them, and need not repeat them."""
        key = (where.machine, where.environment, *sorted(where.data_facts))
        if key in self._kept_facts:
            return
        facts = [("machine", where.machine, where.machine_facts), ("environment", where.environment, where.environment_facts)]
        facts += [("data", digest, covered) for digest, covered in where.data_facts.items()]
        for kind, name, content in facts:
            if content:
                self._publish_facts(kind, name, content)
        io.fsync_dir(self._layout / "facts")  # also those that were there: who wrote them may have died before
        self._kept_facts.add(key)

    def _publish_facts(self, kind: str, name: str, content: Mapping[str, Any]) -> None:
        """Raises OSError."""
        text = json.dumps({"kind": kind, "name": name, "facts": content}, sort_keys=True, default=str).encode()
        path = self._layout / "facts" / content_name(text, ".json")
        if not renew(path):
            publish(self._layout, text, path)

    def keep_facts(self, kind: str, name: str, facts: Mapping[str, Any]) -> None:
        """Keep what is of no attempt, such as a check of a machine; durable when this returns. It is never collected.

        name: another one for whatever differs; two facts of one kind and name are a conflict. Raises RegistryError.
        """
        try:
            self._publish_facts(kind, name, facts)
            io.fsync_dir(self._layout / "facts")
        except OSError as exc:
            raise self._error(f"cannot keep {kind} {name}", exc) from exc

    def begin(self, trial: Trial, provenance: Provenance, attempt_id: str | None = None) -> Path:
        """Mark that an attempt starts: if this process dies before `end`, the next sweep records it as `interrupted`.

        Returns the marker; its stem is the attempt's id (made here where none is given). Raises RegistryError.
        """
        from harness.provenance import new_id  # importlib.metadata and subprocess: not for those who only read

        try:
            self._keep_facts(provenance)
            return markers.write_marker(self._layout, attempt_id or new_id(), trial, provenance)
        except OSError as exc:
            raise self._error("cannot mark the start of an attempt", exc) from exc

    def end(self, marker: Path) -> None:
        """Take the marker away: its attempt is recorded. Twice is once."""
        try:
            markers.remove(marker)
        except OSError as exc:
            raise self._error("cannot remove a start marker", exc) from exc

    def sweep(self) -> int:
        """Record what dead processes left behind as `interrupted`, and tidy up; how many attempts that were.

        `open` for writing calls it. Raises RegistryError.
        """
        from harness.registry import index

        try:
            torn: list[Path] = []
            dead = list(markers.left_behind(self._layout, torn))
            recorded = self._recorded(dead)
            lost = [m for m in dead if m.attempt.attempt_id not in recorded and attempt_of(m.attempt) not in recorded]
            for marker in lost:
                self.append(marker.attempt)
            for marker in dead:
                markers.remove(marker.path)
            for path in torn:
                self._reader.warn(
                    f"{path}: no start marker (a power cut tears them); moved to {quarantine(self._layout, path)}"
                )
            sweep_tmp(self._layout)
            index.remove_stale(self._layout / "index")
            folding.remove_replaced(self._reader, self._layout)
        except OSError as exc:
            raise self._error("cannot be swept", exc) from exc
        return len(lost)

    def _recorded(self, dead: Sequence[markers.Marker]) -> set[object]:
        """Which of these attempts were recorded before their process died: by id, and by trial and invocation."""
        if not dead:
            return set()
        rows = self._reader.table({"attempt_id", "trial_id", "invocation"}).to_pylist()
        return {row["attempt_id"] for row in rows} | {(row["trial_id"], row["invocation"]) for row in rows}

    def annotate(self, attempts: Iterable[str], kind: Kind, reason: str, author: str) -> Annotation:
        """Say of attempts (whole ids) that they are invalid or expected, or withdraw what was said; durable when this returns.

        Raises RegistryError if the disk refuses; then nothing was said.
        """
        try:
            before = [act for _, act in self._reader.acts()]
            return publish_annotation(self._layout, before, attempts, kind, reason, author)
        except OSError as exc:
            raise self._error("cannot keep an annotation", exc) from exc

    def merge(self, source: Path, dry_run: bool = False, progress: Callable[[int, int], None] | None = None) -> merging.Report:
        """Take in all that another registry holds and this one does not; what was met. The other is only read.

        progress: called with (files looked at, of how many). dry_run: nothing is written here either.
        Raises RegistryError: the source is no registry that this harness reads, lies inside this one or around it, or the
        disk refuses; what was taken in by then is whole, and the same call goes on from there.
        """
        from harness.registry import merging

        for text in merging.check_source(self.path, Path(source)):
            self.warn(text)
        try:
            return merging.merge(self._reader, self._layout, Layout(Path(source)), dry_run, progress)
        except OSError as exc:
            raise self._error(f"cannot take in {source}", exc) from exc

    def verify(self, hands_off: bool = False) -> list[verifying.Finding]:
        """Read every file and say what is wrong. Damaged files go to quarantine; hands_off: nothing in the folder changes."""
        from harness.registry import verifying

        return verifying.verify(self._layout, hands_off).findings

    def garbage(self, grace_s: float = folding.GRACE_S) -> list[collecting.Garbage]:
        """What is no longer needed and older than grace_s. Never a record. Raises RegistryError."""
        from harness.registry import collecting

        try:
            return collecting.garbage(self._reader, self._layout, grace_s)
        except OSError as exc:
            raise self._error("cannot be looked through", exc) from exc

    def collect(self, grace_s: float = folding.GRACE_S) -> list[collecting.Garbage]:
        """Delete the same, each judged again at that moment; what went. Raises RegistryError."""
        from harness.registry import collecting

        try:
            return collecting.collect(self._reader, self._layout, grace_s)
        except OSError as exc:
            raise self._error("cannot delete garbage", exc) from exc

    # Folding --------------------------------------------------------------------------------------------------------

    def fold(self, invocation: str) -> str | None:
        """Put the loose files of one invocation into one file, then compact what has become too many.

        What this object appended is taken from memory as far as it is kept there (16 MiB), and is folded even where its file
        was deleted or damaged meanwhile: it was acknowledged.
        Returns the name of the folded file (the last, where the rows are too many for one), None where there was nothing to
        gain. Readers see every attempt once throughout. Raises RegistryError if the disk refuses; the registry is whole then
        too.
        """
        written = self._unfolded.of(invocation)
        if written is None:  # another process's: each file must be read to tell
            made = self._folding(lambda: folding.fold_entries(self._reader, self._layout, self._files_of(invocation)))
        else:
            made, restored = self._folding(lambda: folding.fold_written(self._reader, self._layout, written))
            self._unfolded.forget(invocation)
            self.restored += restored
        self.compact()
        return made[-1] if made else None

    def _files_of(self, invocation: str) -> list[Entry]:
        return folding.entries_of(self._reader, self._reader.entries(), invocation)

    def compact(self, everything: bool = False) -> folding.Compaction:
        """Fold where there are too many loose files, or folded ones of one size; with `everything`, all that fits together.

        `open` for writing and `fold` do the former. Raises RegistryError if the disk refuses; the registry is whole then too.
        """
        from harness.registry import index

        done = self._folding(lambda: folding.compact(self._reader, self._layout, everything))
        index.refresh(self._reader, self._layout)
        return done

    def _folding(self, fold: Callable[[], T]) -> T:
        try:
            tries = 0
            while tries < RELISTS:
                left_out = len(self._reader.left_out)
                with contextlib.suppress(Changed):  # another process folds too, or a file cannot be used: list anew
                    return fold()
                tries += len(self._reader.left_out) == left_out  # one left out is one file less: that ends by itself
        except OSError as exc:
            raise self._error("cannot fold", exc) from exc
        raise RegistryError(f"registry {self.path}: its files change faster than they can be folded; try again")

    def remove_replaced(self, grace_s: float = folding.GRACE_S) -> int:
        """Delete files that folded ones replaced more than grace_s ago; how many. `open` for writing does it too."""
        try:
            return folding.remove_replaced(self._reader, self._layout, grace_s)
        except OSError as exc:
            raise self._error("cannot delete replaced files", exc) from exc

    # Reading --------------------------------------------------------------------------------------------------------

    def table(self, columns: Iterable[str] | None = None) -> pa.Table:
        """Every attempt once, as Arrow, in no particular order. columns: see `schema.attempt_schema`; None: all."""
        return self._reader.table(columns)

    def query(
        self, sql: str, parameters: Sequence[object] | Mapping[str, object] = (), timeout_s: float = QUERY_TIMEOUT_S
    ) -> pa.Table:
        """One read-only SELECT over the views (`harness.registry.views`), with `?` or `$name` parameters.

        Raises HarnessError: not one SELECT, something it may not touch, a mistake in it, too slow or too large.
        """
        from harness.registry.query import run_query

        return run_query(self._reader, self._layout, sql, parameters, timeout_s)

    def states(self, machine: str) -> dict[str, TrialState]:
        """trial_id -> what is known of it on this machine. An attempt that is annotated as invalid is as if it never was."""
        columns = ("trial_id", "machine", "status", "started_at", "wall_s", "measurements", "series", "timings")
        by_trial: dict[str, list[dict[str, Any]]] = {}
        for row in self._rows_of(machine, columns):
            by_trial.setdefault(row["trial_id"], []).append(row)
        return {trial: state_of(rows) for trial, rows in by_trial.items()}

    def wall_times(self, machine: str) -> dict[str, float]:
        """series_key -> median seconds of whole `ok` attempts on this machine, no invalid ones: what the next will take."""
        seconds: dict[str, list[float]] = {}
        for row in self._rows_of(machine, ("series_key", "machine", "status", "wall_s")):
            if row["status"] == "ok" and row["wall_s"] is not None:
                seconds.setdefault(row["series_key"], []).append(row["wall_s"])
        return {series: median(values) for series, values in seconds.items()}

    def _rows_of(self, machine: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        import pyarrow.compute as pc

        table = self._reader.table(columns)
        rows: list[dict[str, Any]] = table.filter(pc.equal(table["machine"], machine)).to_pylist()
        invalid = {row["attempt_id"] for row in self.annotations().to_pylist() if row["annotation"] == "invalid"}
        return [row for row in rows if row["attempt_id"] not in invalid]

    def find(self, prefix: str) -> list[dict[str, Any]]:
        """The attempts whose id, or whose trial's id, starts with prefix; newest first, all columns, JSON decoded."""
        import pyarrow.compute as pc

        ids = self._reader.table({"attempt_id", "trial_id"})
        hits = pc.or_kleene(pc.starts_with(ids["attempt_id"], prefix), pc.starts_with(ids["trial_id"], prefix))
        if not pc.any(hits).as_py():
            return []
        table = self._reader.table()
        hits = pc.or_kleene(pc.starts_with(table["attempt_id"], prefix), pc.starts_with(table["trial_id"], prefix))
        return self._readable(table.filter(hits))

    def attempts(self, **equal: str | int | None) -> list[dict[str, Any]]:
        """Whole attempts whose columns have these values (`attempts(suite="vision", status="failed")`), newest first.

        JSON is decoded. Raises KeyError for a name that is no column.
        """
        import pyarrow.compute as pc

        table = self._reader.table()
        for column, value in equal.items():
            values = table[column]
            table = table.filter(values.is_null() if value is None else pc.equal(values, value))
        return self._readable(table)

    def _readable(self, table: pa.Table) -> list[dict[str, Any]]:
        """Rows for people, newest first, each with its `annotation` and `annotation_reason` (None where there is none)."""
        said = {row["attempt_id"]: row for row in self.annotations().to_pylist()}
        rows = [schema.readable(row) for row in sorted(table.to_pylist(), key=newest, reverse=True)]
        for row in rows:
            row.update({name: said.get(row["attempt_id"], {}).get(name) for name in ("annotation", "annotation_reason")})
        return rows

    def annotations(self) -> pa.Table:
        """What people say of attempts, as far as it is in force; columns: `annotations.COLUMNS`, all text."""
        return self._reader.annotations()

    def facts(self) -> list[dict[str, Any]]:
        """What attempts share: {"kind": "machine" | "environment" | "data", "name": the digest in the rows, "facts"}; and what
        `keep_facts` kept: "ceilings", the checks of machines; "claim", what claims are judged on."""
        return self._reader.facts()

    def read_blob(self, sha256: str) -> bytes:
        """An artefact. Raises RegistryError if it is not there, DamagedError if its content is not what its name says."""
        path = self._layout / "blobs" / sha256
        try:
            # A record from elsewhere may hold any text as a digest: "../../etc/passwd" too.
            content = io.read(path) if SHA256.fullmatch(sha256) else None
        except FileNotFoundError:
            content = None
        if content is None:
            raise RegistryError(f"registry {self.path}: there is no blob {sha256!r}; merge it from where it was made")
        if content_name(content) != sha256:
            raise DamagedError(f"{path}: damaged, its SHA-256 is not its name; fetch it again from a copy (`harness merge`)")
        return content


def renew(path: Path) -> bool:
    """Whether a file is there; and that it is used again, for a collection of garbage that looks just then. Raises OSError."""
    try:
        io.touch(path)
    except FileNotFoundError:
        return False
    except PermissionError:  # another user's in a registry that several share
        return True
    return True


def encode(attempt: Attempt) -> tuple[Attempt, pa.Table, bytes]:
    """The attempt, its row, its loose file. One whose values no row can hold (text that is no Unicode, say) becomes `failed`.

    It must not raise on what a plugin made: every attempt leaves a record, and the next trials have to go on.
    """
    try:
        row = schema.to_table(attempt)
        return attempt, row, schema.encode_one(row)
    except (ValueError, TypeError, OverflowError) as exc:  # pyarrow's own errors are among these
        old = attempt.outcome
        told = Outcome(
            status="failed",
            error=printable(f"the result cannot be recorded: {type(exc).__name__}: {exc}"),
            started_at=old.started_at,
            log=printable(old.log),
            log_dropped_bytes=old.log_dropped_bytes,
        )
        failed = replace(attempt, outcome=told)
        row = schema.to_table(failed)
        return failed, row, schema.encode_one(row)


def printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def attempt_of(attempt: Attempt) -> tuple[str, str]:
    return attempt.trial.trial_id, attempt.provenance.invocation


def newest(row: Mapping[str, Any]) -> tuple[bool, Any, str]:
    """Sorts by start; what has none (never from a worker) counts as oldest. The id decides between equals."""
    started = row["started_at"]
    return (started is not None, started.timestamp() if started is not None else 0.0, row["attempt_id"])


def state_of(rows: Sequence[Mapping[str, Any]]) -> TrialState:
    """Latest attempt of one trial; an interrupted one says nothing about the trial, so it comes last."""
    last = max(rows, key=lambda row: (row["status"] != "interrupted", newest(row)))
    quantities = {
        entry[name]
        for row in rows
        if row["status"] == last["status"]
        for column, name in (("measurements", "quantity"), ("series", "quantity"), ("timings", "region"))
        for entry in row[column]
    }
    return TrialState(last["status"], frozenset(quantities), last["attempt_id"], last["wall_s"])
