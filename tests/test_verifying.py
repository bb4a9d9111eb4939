"""`harness verify`: every kind of damage, loss and doubt is found and named with its mend, and health is no finding."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from failing_disk import no_flush, raising  # noqa: F401 (a fixture)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from invoking import harness
from registry_samples import WHERE, flip_a_bit, ids, make_attempt, make_trial

from harness.registry import Registry, io, schema
from harness.registry.files import Layout, content_name
from harness.registry.reading import checked_name
from harness.registry.verifying import Finding, Report, verify

pytestmark = pytest.mark.usefixtures("no_flush")

OTHER = "ab" * 32


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Something of everything: a fold with what it replaced, loose files, facts, a blob, an annotation, a marker."""
    folder = tmp_path_factory.mktemp("model")
    registry = Registry.open(folder / "registry")
    (folder / "artefact").write_bytes(b"a circuit")
    for number in range(3):
        registry.append(make_attempt(number, where=replace(WHERE, invocation="inv-1")))
    registry.fold("inv-1")
    saved = {"name": "circuit", "path": str(folder / "artefact"), "media_type": "text/plain"}
    registry.append(make_attempt(3, blobs=(saved,)))
    registry.append(make_attempt(4))
    registry.annotate([f"{4:032x}"], "expected", "known", "me")
    registry.begin(make_trial(), WHERE)
    return registry.path


@pytest.fixture
def registry(model: Path, tmp_path: Path) -> Registry:
    """A copy of it, which may be damaged."""
    shutil.copytree(model, tmp_path / "registry", copy_function=shutil.copy2)
    ids(Registry(tmp_path / "registry"))  # the index of checked files trusts all of it
    return Registry.open(tmp_path / "registry", create=False)


def examine(registry: Registry, hands_off: bool = False) -> Report:
    return verify(Layout(registry.path), hands_off)


def only(report: Report) -> Finding:
    (finding,) = report.findings
    return finding


def files_of(registry: Registry, folder: str) -> list[Path]:
    return sorted(path for path in (registry.path / folder).iterdir() if not path.name.startswith("."))


def loose(registry: Registry, number: int) -> Path:
    """The loose file of this attempt."""
    return next(path for path in files_of(registry, "attempts")
                if schema.decode(path.read_bytes())["attempt_id"][0].as_py() == f"{number:032x}")  # fmt: skip


def change_a_value(path: Path) -> None:
    """Flip a bit such that the file can still be read, as two in three flips do; its size and time stay."""
    content, stat = path.read_bytes(), path.stat()
    for at in range(len(content) // 4, len(content)):
        flip_a_bit(path, at)
        with contextlib.suppress(Exception):
            schema.decode(path.read_bytes())["attempt_id"].validate(full=True)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            return
        path.write_bytes(content)
    raise AssertionError("no such bit")


def snapshot(folder: Path) -> dict[str, bytes | str]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else "" for path in folder.rglob("*")}


# Health -----------------------------------------------------------------------------------------------------------------


def test_a_healthy_registry_has_no_finding_and_everything_in_it_was_read(registry):
    """The gate must not cry wolf, or nobody looks when it is closed."""
    report = examine(registry)

    assert report.findings == []
    kept = [
        path
        for folder in ("attempts", "folded", "manifests", "facts", "annotations", "blobs")
        for path in files_of(registry, folder)
    ]
    assert report.files == len(kept)
    assert report.size_bytes == sum(path.stat().st_size for path in kept)
    assert report.attempts == 5 + 3  # three of them stand in their loose files too


def test_what_git_and_network_disks_leave_is_no_finding(registry):
    """A registry may be a git repository, with the folders that git would not keep empty."""
    (registry.path / ".git").mkdir()
    for name in (
        ".gitignore",
        "blobs/.gitkeep",
        "attempts/.nfs000000001",
        "attempts/.probe-host-1-2-ab",
        "quarantine/.gitkeep",
    ):
        (registry.path / name).write_text("")

    assert examine(registry).findings == []


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from dataclasses import replace
from pathlib import Path
from harness.registry import Registry, folding
from registry_samples import WHERE, make_attempt, make_trial
folding.FAN_OUT = 2
registry = Registry.open(Path(sys.argv[2]))
artefact = Path(sys.argv[2]).with_name("artefact")
artefact.write_text("a circuit")
print("ready", flush=True)
for night in range(1000):
    where = replace(WHERE, invocation=f"night-{night}", environment_facts={"night": night}, environment=f"env-{night}")
    for number in range(3):
        marker = registry.begin(make_trial(), where)
        saved = {"name": "b", "path": str(artefact), "media_type": "text/plain"}
        registry.append(make_attempt(1000 + 10 * night + number, where=where, blobs=(saved,)))
        registry.end(marker)
    registry.fold(where.invocation)
    registry.remove_replaced(grace_s=-1)
"""


def test_a_registry_that_is_being_written_has_no_finding(registry):
    """Markers, unfinished files, folds and deletions come and go while verify reads; none of them is damage."""
    path = registry.path.with_name("busy")
    arguments = [sys.executable, "-c", WRITER, str(Path(__file__).parent), str(path)]
    writer = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout.readline() == "ready\n"
        reports = [verify(Layout(path)) for _ in range(12)]
        while reports[-1].attempts <= reports[0].attempts:
            reports.append(verify(Layout(path)))
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.communicate()

    assert [finding for report in reports for finding in report.findings] == []


# Damage -----------------------------------------------------------------------------------------------------------------

FOLDERS = ("attempts", "folded", "manifests", "facts", "annotations", "blobs")


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_flipped_bit_is_found_and_the_file_moved_aside(registry, folder):
    """Wherever it is; and nobody reads the file afterwards."""
    victim = files_of(registry, folder)[0]
    flip_a_bit(victim, victim.stat().st_size // 2)

    report = examine(registry)

    finding = report.findings[0]
    assert (finding.kind, finding.path) == ("damaged", f"{folder}/{victim.name}")
    assert f"its SHA-256 is not its name; moved to quarantine/{victim.name}" in finding.what
    assert report.closes
    assert not victim.exists()
    assert (registry.path / "quarantine" / victim.name).exists()


@pytest.mark.parametrize("folder", ["attempts", "folded", "manifests", "facts", "annotations"])
@pytest.mark.parametrize("length", [0, 100], ids=["empty", "cut"])
def test_a_file_whose_end_is_missing_is_called_truncated(registry, folder, length):
    """Another word, for another cause: a copy that was broken off."""
    victim = files_of(registry, folder)[0]
    victim.write_bytes(victim.read_bytes()[: min(length, victim.stat().st_size - 1)])

    finding = examine(registry).findings[0]

    assert (finding.kind, finding.path) == ("truncated", f"{folder}/{victim.name}")
    assert ("is empty" if length == 0 else "its end is missing") in finding.what


def test_damage_that_kept_size_and_time_is_found_and_never_read_again(registry, monkeypatch):
    """Readers trust a file of known size and time; verify does not, and takes their trust away even where nothing moves."""
    victim = loose(registry, 4)
    change_a_value(victim)
    assert len(ids(registry)) == 5  # trusted

    real = io.rename
    monkeypatch.setattr(
        io, "rename", lambda a, b: raising(OSError(errno.EROFS, "Read-only"))() if "quarantine" in str(b) else real(a, b)
    )
    finding = examine(registry).findings[0]
    monkeypatch.undo()

    assert finding.kind == "damaged"
    assert "could not be moved to quarantine (Read-only)" in finding.what
    assert f"attempts/{victim.name}" not in json.loads((registry.path / "index" / checked_name()).read_text())
    assert len(ids(registry)) == 4


def test_the_mend_says_whether_anything_is_lost(registry):
    """Damage to what other files hold too is no reason to search for a copy at night."""
    spared, lost = loose(registry, 0), loose(registry, 4)
    (folded,) = files_of(registry, "folded")
    for victim in (spared, lost, folded):
        flip_a_bit(victim)

    mends = {finding.path.partition("/")[2]: finding.mend for finding in examine(registry).findings}

    assert mends[lost.name] == "fetch it again from a copy (`harness merge COPY`)"
    assert mends[spared.name] == "fetch it again from a copy (`harness merge COPY`)"  # the fold that held it is damaged too
    flip_a_bit(registry.path / "quarantine" / folded.name)
    (registry.path / "quarantine" / folded.name).rename(folded)  # mended
    flip_a_bit(loose(registry, 1))
    assert "nothing is lost: other files hold its attempts" in {finding.mend for finding in examine(registry).findings}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_single_bit_flip_or_cut_in_any_file_is_found_by_its_path(model, tmp_path_factory, data):
    """Also where size and time stay; afterwards every row that is read is one that was written."""
    path = tmp_path_factory.mktemp("flip") / "registry"
    shutil.copytree(model, path, copy_function=shutil.copy2)
    registry = Registry.open(path, create=False)
    rows = {row["attempt_id"]: row for row in registry.table().to_pylist()}
    files = [file for folder in FOLDERS for file in files_of(registry, folder)]
    victim = data.draw(st.sampled_from(files))
    content, stat = victim.read_bytes(), victim.stat()
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        flip_a_bit(victim, at)
        os.utime(victim, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    else:
        victim.write_bytes(content[:at])

    report = verify(Layout(path))

    assert report.findings[0].path == str(victim.relative_to(path))
    assert report.findings[0].kind in ("damaged", "truncated")
    assert all(rows[row["attempt_id"]] == row for row in Registry.open(path, create=False).table().to_pylist())
    shutil.rmtree(path)


# What does not belong here, and what is missing --------------------------------------------------------------------------


def publish(registry: Registry, folder: str, content: bytes, suffix: str) -> Path:
    path = registry.path / folder / content_name(content, suffix)
    path.write_bytes(content)
    return path


def manifest(registry: Registry, **told: object) -> Path:
    return publish(registry, "manifests", json.dumps({"format": 1, **told}).encode(), ".json")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path may have 108 characters
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


STRANGE: list[tuple[str, Callable[[Path], object], str]] = [
    ("notes.txt", lambda p: p.write_text("x"), "is no part of a registry"),
    ("backup", lambda p: p.mkdir(), "is no part of a registry"),
    ("attempts/notes.parquet", lambda p: p.write_text("x"), "is a file without a name that files have here; it is not read"),
    ("folded/empty", lambda p: p.write_text(""), "is a file without a name that files have here"),
    ("attempts/.hidden", lambda p: p.write_text("x"), "is a file without a name that files have here"),
    ("blobs/2026", lambda p: p.mkdir(), "is a folder without a name that files have here"),
    (f"attempts/{OTHER}.parquet", pipe, "is a pipe where a file should be; moved to quarantine"),
    (f"folded/{OTHER}.parquet", lambda p: p.mkdir(), "is a folder where a file should be; moved to quarantine"),
    (f"blobs/{OTHER}", make_socket, "is a socket where a file should be; moved to quarantine"),
    (
        f"facts/{OTHER}.json",
        lambda p: p.symlink_to("/dev/zero"),
        "is a symbolic link where a file should be; moved to quarantine",
    ),
    (f"manifests/{OTHER}.json", lambda p: p.symlink_to("nowhere"), "is a symbolic link where a file should be; moved to"),
    ("started/notes", lambda p: p.write_text("x"), "has no name of a start marker"),
    ("tmp/notes", lambda p: p.write_text("x"), "is no unfinished file of a writer"),
    ("tmp/folder", lambda p: p.mkdir(), "is a folder, not a file"),
    ("quarantine/notes", lambda p: p.write_text("x"), "is no file that harness would put here"),
]


@pytest.mark.parametrize(("path", "make", "what"), STRANGE, ids=[s[0][:20] for s in STRANGE])
def test_what_harness_did_not_write_is_named_wherever_it_lies(registry, path, make, what):
    """It may be a record under a wrong name, or a mistyped copy; and a reader must not hang on a pipe."""
    make(registry.path / path)

    finding = only(examine(registry))

    assert (finding.kind, finding.path) == ("foreign", path)
    assert what in finding.what
    assert "move it away" in finding.mend
    assert len(ids(registry)) == 5


def test_a_device_is_no_file(registry):
    """Reading /dev/zero under a record's name would never end."""
    try:
        os.mknod(registry.path / "attempts" / f"{OTHER}.parquet", 0o600 | 0o020000, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("making a device needs root")

    assert "is a device where a file should be" in only(examine(registry)).what


def test_a_link_to_a_right_file_is_named_and_left(registry):
    """Its attempts are read, so moving it would lose them; but a copy of the registry is without them."""
    victim = loose(registry, 4)
    elsewhere = registry.path.parent / victim.name
    victim.rename(elsewhere)
    victim.symlink_to(elsewhere)

    finding = only(examine(registry))

    assert (finding.kind, finding.mend) == ("foreign", "put the file itself here")
    assert len(ids(registry)) == 5


def test_a_folder_that_is_a_link_is_named_and_its_files_are_read(registry):
    """People move the large folder to another disk; backups then miss it."""
    (registry.path / "blobs").rename(registry.path.parent / "blobs")
    (registry.path / "blobs").symlink_to(registry.path.parent / "blobs")

    finding = only(examine(registry))

    assert (finding.kind, finding.path, finding.mend) == ("foreign", "blobs", "move the folder here")


def test_a_name_with_control_characters_is_printed_escaped_on_its_own_line(registry):
    """A file name must not retitle a terminal or forge a second line."""
    (registry.path / "attempts" / "a\x1b]0;owned\x07\nfine: all is well").write_text("x")
    (registry.path / os.fsdecode(b"not-utf8-\xff")).write_text("x")

    told = harness("verify", "--registry", registry.path)

    assert told.code == 3
    assert "\x1b" not in told.out
    assert len(told.out.splitlines()) == 3
    assert r"a\x1b]0;owned\x07\nfine: all is well" in told.out
    assert len(harness("verify", "--json", "--registry", registry.path).json["findings"]) == 2


def rows_of(*numbers: int, **changes: object) -> pa.Table:
    rows = [schema.to_table(make_attempt(number)) for number in numbers]
    table = schema.conform(pa.concat_tables([schema.conform(row) for row in rows]))
    for column, value in changes.items():
        place = table.schema.get_field_index(column)
        table = table.set_column(
            place, table.schema.field(column), pa.array([value] * len(numbers), table.schema.field(column).type)
        )
    return table


@pytest.mark.parametrize(
    ("table", "what"),
    [
        (rows_of(7, 8), "holds 2 attempts; a loose file holds one"),
        (rows_of(7, attempt_id="../../x"), "1 of its rows have no right attempt id, '../../x' for one"),
        (rows_of(7, attempt_id=None), "1 of its rows have no right attempt id"),
        (rows_of(7, net="{broken"), "its column net holds what is no JSON: '{broken'"),
        (rows_of(7, worker_environment="[" * 100_000), "its column worker_environment holds what is no JSON"),
        (rows_of(7, blobs=[{"name": "x", "media_type": "", "sha256": "../x", "size_bytes": 1}]), "names an artefact '../x'"),
    ],
    ids=["two rows", "path as id", "no id", "no JSON", "deep JSON", "path as blob"],
)
def test_rows_that_no_writer_of_ours_would_write_are_foreign(registry, table, what):
    """The name says that nobody changed the file since it was written, not who wrote it."""
    path = publish(registry, "attempts", schema.encode_many(table), ".parquet")

    finding = only(examine(registry))

    assert (finding.kind, finding.path) == ("foreign", f"attempts/{path.name}")
    assert what in finding.what
    assert path.exists()  # it holds rows that may be right


def test_a_file_that_is_no_parquet_though_its_name_is_right_is_named_and_stays(registry):
    """Perhaps a newer pyarrow reads it: that is not for us to throw out."""
    path = publish(registry, "attempts", b"PAR1 no parquet PAR1", ".parquet")

    finding = only(examine(registry))

    assert (finding.kind, finding.path) == ("unreadable", f"attempts/{path.name}")
    assert path.exists()


def test_a_file_of_a_newer_schema_is_named_with_the_upgrade(registry, monkeypatch):
    """It is not damage; the next version reads it."""
    monkeypatch.setattr(schema, "SCHEMA_VERSION", 99)
    content = schema.encode_many(rows_of(7))
    monkeypatch.undo()
    path = publish(registry, "folded", content, ".parquet")

    finding = only(examine(registry))

    assert (finding.kind, finding.mend) == ("newer", "`pip install --upgrade paper-harness`")
    assert path.exists()


@pytest.mark.parametrize("folder", ["manifests", "facts", "annotations"])
@pytest.mark.parametrize(
    "content", [b"{}", b"[1]", b"no json}", b"[" * 200_000 + b"]" * 200_000], ids=["empty", "list", "text", "deep"]
)
def test_json_of_the_wrong_shape_is_moved_aside_though_its_name_is_right(registry, folder, content):
    """Nothing in it can be used, and every reader would stumble over it."""
    path = publish(registry, folder, content, ".json")

    finding = only(examine(registry))

    assert (finding.kind, finding.path) == ("foreign", f"{folder}/{path.name}")
    assert f"its name is right, but it is none of {folder}" in finding.what
    assert not path.exists()


def test_an_artefact_that_is_not_there_is_named_with_the_attempt_that_names_it(registry):
    """A certificate that cannot be shown proves nothing."""
    (blob,) = files_of(registry, "blobs")
    blob.unlink()

    finding = only(examine(registry))

    assert (finding.kind, finding.path) == ("missing", f"blobs/{blob.name}")
    assert "is named by an attempt in attempts/" in finding.what


def test_a_folded_file_that_is_gone_with_what_it_replaced_is_missing(registry):
    """Its manifest is all that tells of the loss; while the replaced files are there nothing is lost."""
    (folded,) = files_of(registry, "folded")
    folded.unlink()
    assert examine(registry).findings == []

    loose(registry, 1).unlink()
    finding = only(examine(registry))
    assert (finding.kind, finding.path) == ("missing", f"folded/{folded.name}")
    assert "nor are 1 of the 3 files that it replaced" in finding.what


def test_a_manifest_that_counts_the_rows_otherwise_is_a_conflict(registry):
    """One of the two is wrong."""
    (folded,) = files_of(registry, "folded")
    path = manifest(registry, folded=folded.name, rows=7, replaces=[])

    finding = only(examine(registry))

    assert (finding.kind, finding.path) == ("conflict", f"manifests/{path.name}")
    assert f"says that {folded.name} holds 7 attempts; it holds 3" in finding.what


def test_a_manifest_that_hides_rows_is_moved_aside_and_they_are_read_again(registry):
    """A stranger's manifest may let a file stand for one whose rows it does not hold."""
    (folded,) = files_of(registry, "folded")
    victim = loose(registry, 4)
    path = manifest(registry, folded=folded.name, rows=3, replaces=[victim.name])
    assert len(ids(registry)) == 4

    finding = only(examine(registry))

    assert (finding.kind, finding.path) == ("conflict", f"manifests/{path.name}")
    assert f"lets {folded.name} replace {victim.name}, whose rows it does not hold" in finding.what
    assert len(ids(registry)) == 5


def test_equal_files_that_replace_each_other_are_no_finding(registry):
    """Two versions of pyarrow write the same rows as different bytes, and each may fold the other's file."""
    (folded,) = files_of(registry, "folded")
    table = schema.decode(folded.read_bytes())
    other = publish(registry, "folded", schema.to_parquet(table, compression="snappy"), ".parquet")
    manifest(registry, folded=folded.name, rows=3, replaces=[other.name])
    manifest(registry, folded=other.name, rows=3, replaces=[folded.name])

    assert examine(registry).findings == []
    assert len(ids(registry)) == 5


def test_differing_rows_of_one_attempt_are_a_conflict(registry):
    """Both are kept, one is read; a person decides."""
    path = publish(registry, "attempts", schema.encode_many(rows_of(4, status="failed")), ".parquet")

    finding = only(examine(registry))

    assert finding.kind == "conflict"
    assert f"attempts/{path.name}" in finding.path
    assert f"`harness annotate {4:032x} --invalid REASON`" in finding.mend


def test_differing_facts_of_one_name_are_a_conflict(registry):
    """The name is a digest of what it tells: two texts under one cannot both be right."""
    told = json.dumps({"kind": "environment", "name": "env-1", "facts": {"packages": {}}}).encode()
    path = publish(registry, "facts", told, ".json")

    finding = only(examine(registry))

    assert finding.kind == "conflict"
    assert f"facts/{path.name}" in finding.path
    assert "environment env-1 is told differently" in finding.what


def test_a_torn_start_marker_is_moved_aside(registry):
    """Markers are not flushed, so a power cut may tear one; the next run must not stumble over it."""
    path = registry.path / "started" / f"{99:032x}.json"
    path.write_text('{"process": {"ho')

    finding = only(examine(registry))

    assert (finding.kind, finding.path) == ("damaged", f"started/{path.name}")
    assert not path.exists()
    again = only(examine(registry))
    assert (again.kind, again.closes) == ("quarantined", False)


def test_a_file_that_may_not_be_read_is_named_and_not_taken_for_damaged(registry, monkeypatch):
    """Permissions are mended in place; the file is right as it is."""
    victim = loose(registry, 4)
    real = io.read
    denied = OSError(errno.EACCES, "Permission denied")
    monkeypatch.setattr(io, "read", lambda path: raising(denied)() if path == victim else real(path))

    finding = only(examine(registry))

    assert (finding.kind, finding.path) == ("unreadable", f"attempts/{victim.name}")
    assert "cannot be read (Permission denied)" in finding.what
    assert victim.exists()


def test_a_folder_that_cannot_be_listed_is_named_and_the_rest_is_looked_at(registry, monkeypatch):
    """One closed folder must not hide the damage in the others."""
    flip_a_bit(files_of(registry, "facts")[0], 20)
    real = io.listdir
    closed = registry.path / "attempts"
    monkeypatch.setattr(io, "listdir", lambda path: raising(PermissionError(13, "denied"))() if path == closed else real(path))

    kinds = {(finding.kind, finding.path.partition("/")[0]) for finding in examine(registry).findings}

    assert kinds == {("unreadable", "attempts"), ("damaged", "facts")}


@pytest.mark.parametrize(
    ("content", "kind"),
    [("{torn", "damaged"), ('{"format": "x"}', "damaged"), (None, "missing"), ('{"format": 9, "min_reader": 9}', "newer")],
)
def test_the_format_file_is_looked_at_too(registry, content, kind):
    """Without it nobody opens the registry; verify does, and says what to write into it."""
    path = registry.path / "FORMAT"
    if content is None:
        path.unlink()
    else:
        path.write_text(content)

    finding = only(examine(registry))

    assert (finding.kind, finding.path) == (kind, "FORMAT")
    told = harness("verify", "--registry", registry.path)
    assert told.code == 3
    assert ("`pip install" if kind == "newer" else '"min_reader": 1} into it') in told.out


def test_every_flipped_bit_of_the_format_file_is_found(registry):
    """The one file that is not named by its content: what it may say is known instead."""
    path = registry.path / "FORMAT"
    whole = path.read_bytes()

    found = {}
    for bit in range(8 * len(whole.rstrip())):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        found[bit] = {(one.kind, one.path) for one in examine(registry, hands_off=True).findings}

    assert [bit for bit, said in found.items() if said != {("damaged", "FORMAT")}] == []


# Quarantine -------------------------------------------------------------------------------------------------------------


def test_what_lies_in_quarantine_closes_the_gate_until_its_content_is_back(registry):
    """A loss that was seen once must not be forgotten because the file was moved."""
    victim = loose(registry, 4)
    content = victim.read_bytes()
    flip_a_bit(victim)
    examine(registry)

    still = only(examine(registry))
    assert (still.kind, still.path, still.closes) == ("quarantined", f"quarantine/{victim.name}", True)
    victim.write_bytes(content)
    back = only(examine(registry))
    assert (back.kind, back.closes, back.mend) == ("quarantined", False, "`harness gc --yes` deletes it")


def test_what_lies_in_quarantine_and_is_held_by_other_files_is_no_loss(registry):
    """A loose file that was folded, or a fold whose files are still there."""
    (folded,) = files_of(registry, "folded")
    flip_a_bit(folded)
    assert examine(registry).closes

    report = examine(registry)

    assert [(f.kind, f.closes) for f in report.findings] == [("quarantined", False)]
    assert "other files hold its attempts" in report.findings[0].what


# Nothing changes that need not -------------------------------------------------------------------------------------------


def test_verify_with_hands_off_changes_nothing_at_all(registry):
    """For a backup, or a disk that is mounted read-only."""
    flip_a_bit(loose(registry, 4))
    (registry.path / "attempts" / f"{OTHER}.parquet").mkdir()
    publish(registry, "facts", b"{}", ".json")
    before = snapshot(registry.path)

    report = examine(registry, hands_off=True)

    assert sorted(finding.kind for finding in report.findings) == ["damaged", "foreign", "foreign"]
    assert all("left where it is" in finding.what for finding in report.findings)
    assert snapshot(registry.path) == before


def test_verify_of_a_folder_that_cannot_be_written_finds_the_same(registry, monkeypatch):
    """Nothing can be moved and no index kept; that is said, and is no error."""
    flip_a_bit(loose(registry, 4))
    for name in ("create", "rename", "mkdir", "unlink", "link"):
        monkeypatch.setattr(io, name, raising(OSError(errno.EROFS, "Read-only file system")))

    finding = only(examine(registry))

    assert finding.kind == "damaged"
    assert "could not be moved to quarantine (Read-only file system)" in finding.what


# The command --------------------------------------------------------------------------------------------------------------


def test_the_command_exits_with_0_for_health_and_3_for_doubt_and_says_how_much_it_read(registry):
    """The gate of a nightly job."""
    well = harness("verify", "--registry", registry.path)
    assert well.code == 0
    assert "nothing wrong;" in well.out
    assert "8 rows of attempts" in well.out

    victim = loose(registry, 4)
    flip_a_bit(victim)
    ill = harness("verify", "--no-move", "--registry", registry.path)
    assert ill.code == 3
    assert f"damaged: {victim}: was changed: its SHA-256 is not its name; left where it is; fetch it again" in ill.out
    assert "1 damaged;" in ill.out
    told = harness("verify", "--json", "--registry", registry.path)
    assert told.code == 3
    assert told.json["sound"] is False
    assert told.json["findings"][0]["path"] == f"attempts/{victim.name}"


def test_the_command_names_a_folder_that_is_no_registry(tmp_path):
    """A mistyped --registry is no healthy registry."""
    for path in (tmp_path, tmp_path / "none"):
        told = harness("verify", "--registry", path)
        assert told.code == 2
        assert "no registry there" in told.err
