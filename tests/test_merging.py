"""Merging registries: a union that loses nothing, changes no source, mends what is damaged, and can be stopped anywhere."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from failing_disk import Stop, each_failure, failing_at
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from invoking import harness
from registry_samples import WHERE, flip_a_bit, ids, make_attempt, make_trial

from harness.errors import RegistryError
from harness.records import Measurement
from harness.registry import Registry, conflicts, io, schema
from harness.registry.files import FOLDERS, Layout, content_name, publish
from harness.registry.merging import Report
from harness.registry.reading import NAMES, Reader
from harness.registry.standing import Standing


@pytest.fixture
def here(tmp_path: Path) -> Registry:
    return Registry.open(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> Registry:
    return Registry.open(tmp_path / "there")


def files_of(path: Path, *folders: str) -> dict[str, bytes]:
    """Every file below these folders (all of them: none given), with its content."""
    chosen = folders or (*FOLDERS, "")
    return {
        str(file.relative_to(path)): file.read_bytes()
        for folder in chosen
        for file in sorted((path / folder).iterdir())
        if file.is_file()
    }


def only(path: Path, folder: str) -> Path:
    """The one file of a folder."""
    (file,) = (path / folder).iterdir()
    return file


def save_blob(registry: Registry, number: int, content: bytes) -> str:
    """An attempt with an artefact; the artefact's digest."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "b"
        file.write_bytes(content)
        saved = {"name": "b", "path": str(file), "media_type": "text/plain"}
        registry.append(make_attempt(number, blobs=(saved,)))
    return hashlib.sha256(content).hexdigest()


def put_folded(registry: Registry, rows: pa.Table) -> str:
    """A folded file of these rows, without a manifest; its name."""
    content = schema.encode_many(rows)
    name = content_name(content, ".parquet")
    publish(registry._layout, content, registry.path / "folded" / name)
    return name


def put_manifest(registry: Registry, folded: str, replaces: list[str]) -> str:
    content = json.dumps({"format": 1, "folded": folded, "rows": 1, "replaces": replaces}).encode()
    name = content_name(content, ".json")
    publish(registry._layout, content, registry.path / "manifests" / name)
    return name


# The laws ---------------------------------------------------------------------------------------------------------------

# One step of a registry's life. Attempts have few ids, so that copies and conflicts are common.
STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 5), st.sampled_from([0.5, 0.5, 0.25, math.nan, -0.0, 0.0])),
    st.tuples(st.just("append"), st.integers(0, 5), st.just(0.5)),
    st.tuples(st.just("fold"), st.just(0), st.just(0.0)),
    st.tuples(st.just("compact"), st.just(0), st.just(0.0)),
    st.tuples(st.just("delete replaced"), st.just(0), st.just(0.0)),
    st.tuples(st.just("blob"), st.integers(0, 5), st.just(0.5)),
    st.tuples(st.just("annotate"), st.integers(0, 5), st.sampled_from([0.0, 1.0, 2.0])),
    st.tuples(st.just("damage"), st.integers(0, 50), st.just(0.0)),
)
LIVES = st.lists(STEPS, max_size=7)
Step = tuple[str, int, float]


def live(path: Path, steps: list[Step]) -> Path:
    """A registry that went through these steps."""
    registry = Registry.open(path)
    for what, number, value in steps:
        if what == "append":
            measured = (Measurement("accuracy", "test", "1", "higher", value, 0.0),)
            registry.append(make_attempt(number, measurements=measured, where=replace(WHERE, machine=f"m-{number % 2}")))
        elif what == "blob":
            save_blob(registry, number, str(number).encode())
        elif what == "annotate":
            kind = ("invalid", "expected", "withdrawn")[int(value)]
            registry.annotate([f"{number:032x}"], kind, "why", "somebody")
        elif what == "damage":
            damage(path, number)
        elif what == "delete replaced":
            registry.remove_replaced(grace_s=-1.0)
        else:
            registry.compact(everything=True) if what == "compact" else registry.fold("inv-1")
    return path


def damage(path: Path, which: int) -> None:
    files = [path / name for name in files_of(path, *NAMES)]
    if files:
        flip_a_bit(files[which % len(files)], at=-1)


def state(path: Path) -> dict[str, Any]:
    """All that a registry says, as canonical text: two that say the same are equal, however their files are folded."""
    reader = Reader(Layout(path))
    reader.entries()  # what is damaged goes
    entries = reader.entries()
    rows = [reader.read(entry, None) for entry in entries]
    whole = conflicts.join(rows, keep_conflicts=True) if rows else schema.attempt_schema().empty_table()
    return {
        "all rows": sorted(conflicts.digests(whole)),
        "rows that are read": sorted(conflicts.digests(reader.table())),
        "the same by two columns": sorted(map(str, reader.table({"measurements"}).to_pylist())),
        "conflicts": sorted(conflict.attempt_id for conflict in reader.conflicts()),
        "facts": sorted(name for name, _ in reader.named_facts()),
        "annotations": sorted(name for name, _ in reader.acts()),
        "in force": reader.annotations().to_pylist(),
        "blobs": sorted(name for name in reader.names("blobs") if reader.has_its_name(("blobs", name))),
    }


def merged(folder: Path, first: Path, *others: Path) -> dict[str, Any]:
    """What a copy of `first` says after the others were merged into it."""
    number = len(list(folder.iterdir()))
    target = Path(shutil.copytree(first, folder / f"merged-{number}"))
    for other in others:
        Registry.open(target, create=False).merge(other)
    return state(target)


@given(a=LIVES, b=LIVES, c=LIVES)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(a=[("append", 1, 0.5), ("append", 2, 0.5), ("fold", 0, 0.0)], b=[("append", 1, 0.25)], c=[("append", 1, math.nan)])
@example(
    a=[("append", 1, 0.5), ("append", 2, 0.5), ("fold", 0, 0.0), ("damage", 2, 0.0)],
    b=[("append", 1, 0.5), ("annotate", 1, 0.0)],
    c=[("append", 1, 0.0), ("append", 1, -0.0), ("compact", 0, 0.0), ("delete replaced", 0, 0.0)],
)
def test_a_merge_is_a_set_union(a, b, c):
    """Merging by hand, by cron and over three machines in any order must end in one and the same registry."""
    check_laws(a, b, c)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@given(a=LIVES, b=LIVES, c=LIVES)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_merge_is_a_set_union_at_length(a, b, c):
    """The same, tried longer."""
    check_laws(a, b, c)


def check_laws(a: list[Step], b: list[Step], c: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        for flush in ("fsync", "fsync_dir"):  # no power is cut here, and they are most of the time
            patch.setattr(io, flush, lambda _: None)
        folder = Path(name)
        one, two, three = (live(folder / letter, steps) for letter, steps in zip("abc", (a, b, c), strict=True))
        before = {path: files_of(path) for path in (two, three)}

        both = merged(folder, one, two)
        assert merged(folder, two, one) == both  # commutative
        assert merged(folder, one, two, two) == both  # idempotent
        assert merged(folder, one, one) == state(Path(shutil.copytree(one, folder / "alone")))
        left = Path(shutil.copytree(one, folder / "left"))
        Registry.open(left, create=False).merge(two)
        right = Path(shutil.copytree(two, folder / "right"))
        Registry.open(right, create=False).merge(three)
        assert merged(folder, left, three) == merged(folder, one, right)  # associative
        assert {path: files_of(path) for path in (two, three)} == before or one in before  # sources are only read


# What is copied ---------------------------------------------------------------------------------------------------------


def test_everything_that_a_registry_holds_arrives_and_the_source_is_untouched(here, there):
    """Attempts, facts, artefacts and annotations: a merge that forgets one of them is found out when the disk is gone."""
    here.append(make_attempt(1))
    there.append(make_attempt(2, where=replace(WHERE, machine="m-2", machine_facts={"cpu": "another"})))
    blob = save_blob(there, 3, b"an artefact")
    there.annotate([f"{2:032x}"], "invalid", "throttled", "somebody")
    before, had = files_of(there.path), files_of(here.path)

    report = here.merge(there.path)

    assert ids(here) == [f"{n:032x}" for n in (1, 2, 3)]
    assert report.attempts == 2
    assert not report.doubtful
    assert report.copied == {"annotations": 1, "attempts": 2, "blobs": 1, "facts": 1}
    came = {name: content for name, content in before.items() if name.split("/")[0] in NAMES and name not in had}
    assert report.copied_bytes == sum(map(len, came.values()))
    assert here.read_blob(blob) == b"an artefact"
    assert here.annotations().to_pylist() == there.annotations().to_pylist()
    assert {fact["name"] for fact in here.facts()} >= {"m-1", "m-2"}
    assert files_of(there.path) == before


def test_running_and_broken_things_are_not_merged(here, there):
    """A marker of a run elsewhere would become a false `interrupted` here; what is in quarantine is damaged."""
    there.append(make_attempt(1))
    there.begin(make_trial(seed=9), WHERE)
    for folder in ("tmp", "quarantine", "index"):
        (there.path / folder / "something").write_text("x")

    here.merge(there.path)

    assert ids(here) == [f"{1:032x}"]
    assert not any(files_of(here.path, "started", "tmp", "quarantine"))
    assert not (here.path / "index" / "something").exists()


def test_files_for_which_a_folded_one_stands_are_not_copied(here, there):
    """Loose files are kept a week beside the fold of them: copied, they would be folded once more."""
    for number in range(3):
        there.append(make_attempt(number))
    there.fold("inv-1")
    assert len(list((there.path / "attempts").iterdir())) == 3

    report = here.merge(there.path)

    assert report.copied["folded"] == 1
    assert report.skipped["attempts"] == 3
    assert list((here.path / "attempts").iterdir()) == []
    assert len(ids(here)) == 3


def delete_loose(registry: Registry) -> None:
    """As the grace time does; the manifests that tell of it stay as long as they are of use."""
    for file in (registry.path / "attempts").iterdir():
        file.unlink()


def test_what_the_target_has_folded_does_not_come_back_loose(here, there):
    """Two machines that merge each other nightly would else grow loose files without end."""
    for number in range(3):
        there.append(make_attempt(number))
    here.merge(there.path)
    here.compact(everything=True)
    delete_loose(here)

    report = here.merge(there.path)

    assert report.copied == {}
    assert report.skipped["attempts"] == 3
    assert list((here.path / "attempts").iterdir()) == []


def test_a_damaged_folded_file_of_the_source_brings_the_files_that_it_replaced(here, there):
    """The fold is the better copy only while it is whole."""
    for number in range(3):
        there.append(make_attempt(number))
    there.fold("inv-1")
    flip_a_bit(only(there.path, "folded"))

    report = here.merge(there.path)

    assert ids(here) == [f"{n:032x}" for n in range(3)]
    assert report.copied["attempts"] == 3
    assert "manifests" not in report.copied
    assert report.doubtful
    assert "folded/" in report.damaged[0]
    assert only(there.path, "folded").exists()


def test_the_union_of_both_sides_manifests_decides(here, there):
    """The fold of a fold is here already: neither the loose files there nor the fold between need come."""
    for number in range(3):
        there.append(make_attempt(number))
    there.fold("inv-1")
    here.merge(there.path)
    between = only(here.path, "folded")
    here.append(make_attempt(7))
    here.compact(everything=True)
    delete_loose(here)
    between.unlink()
    flip_a_bit(only(there.path, "folded"))

    report = here.merge(there.path)

    assert report.copied == {}
    assert not report.damaged  # nobody had to read it


# Damage -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["attempts", "folded", "facts", "blobs", "annotations", "manifests"])
def test_fetch_it_again_from_a_copy_works_for_every_kind_of_file(here, there, folder):
    """The words stand in every message about damage: they must be true, whether anybody has noticed the damage or not."""
    for number in range(2):
        there.append(make_attempt(number))
    there.fold("inv-1")
    save_blob(there, 3, b"an artefact")
    there.annotate([f"{1:032x}"], "invalid", "throttled", "somebody")
    here.merge(there.path)
    whole = files_of(here.path, *NAMES)
    hurt = sorted((here.path / folder).iterdir())[0]
    # Unnoticed: size and time are what they were when the file was last checked.
    before = hurt.stat()
    flip_a_bit(hurt, at=10)
    os.utime(hurt, ns=(before.st_atime_ns, before.st_mtime_ns))

    report = Registry.open(here.path, create=False).merge(there.path)

    assert files_of(here.path, *NAMES) == whole
    assert report.restored == [f"{folder}/{hurt.name}"]
    assert report.doubtful
    assert hashlib.sha256(only(here.path, "quarantine").read_bytes()).hexdigest() != hurt.name.partition(".")[0]
    assert not Registry.open(here.path, create=False).merge(there.path).doubtful


def test_what_was_put_aside_before_comes_back(here, there):
    """The usual way: a query or `verify` met the damage first, in this process or in another."""
    there.append(make_attempt(1))
    here.merge(there.path)
    flip_a_bit(only(here.path, "attempts"))
    assert here.table({"status"}).num_rows == 0

    here.merge(there.path)

    assert here.table({"status"}).num_rows == 1
    assert ids(here) == [f"{1:032x}"]


def test_damage_of_the_source_is_named_and_not_copied_and_all_the_rest_is(here, there):
    """One bad file must not stop a backup, and must not enter it."""
    for number in range(3):
        there.append(make_attempt(number))
    files = sorted((there.path / "attempts").iterdir())
    flip_a_bit(files[0])
    files[1].write_bytes(files[1].read_bytes()[:-1])
    fact = sorted((there.path / "facts").iterdir())[0]
    flip_a_bit(fact, at=5)
    before = files_of(there.path)

    report = here.merge(there.path)

    assert len(ids(here)) == 1
    assert len(report.damaged) == 3
    assert all(any(file.name in text for text in report.damaged) for file in (*files[:2], fact))
    assert report.doubtful
    assert files_of(there.path) == before


def test_a_file_that_is_damaged_on_both_sides_is_named_for_both_and_restored_by_a_third(here, there, tmp_path):
    """Two bad copies make no good one, and the third copy still helps."""
    there.append(make_attempt(1))
    here.merge(there.path)
    third = shutil.copytree(there.path, tmp_path / "third")
    for registry in (here, there):
        flip_a_bit(only(registry.path, "attempts"))

    report = here.merge(there.path)

    assert {text.split("/attempts/")[0] for text in report.damaged} == {str(here.path), str(there.path)}
    assert only(here.path, "quarantine")
    assert ids(here) == []
    here.merge(third)
    assert ids(here) == [f"{1:032x}"]


@pytest.mark.parametrize("what", ["a folder", "a pipe", "a dead link", "a link to a device"])
def test_what_is_no_plain_file_in_the_source_is_left_out_and_never_waited_for(here, there, what):
    """A pipe would be waited for for ever, a device read for ever."""
    there.append(make_attempt(1))
    odd = there.path / "blobs" / ("0" * 64)
    {
        "a folder": lambda: odd.mkdir(),
        "a pipe": lambda: os.mkfifo(odd),
        "a dead link": lambda: odd.symlink_to("nowhere"),
        "a link to a device": lambda: odd.symlink_to("/dev/zero"),
    }[what]()

    report = here.merge(there.path)

    assert ids(here) == [f"{1:032x}"]
    assert len(report.damaged) == 1
    assert odd.name in report.damaged[0]
    assert not list((here.path / "blobs").iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_file_of_the_source_that_may_not_be_read_is_named_and_the_rest_is_merged(here, there):
    """Somebody else's file with closed permissions."""
    for number in range(2):
        there.append(make_attempt(number))
    closed = sorted((there.path / "attempts").iterdir())[0]
    closed.chmod(0)

    report = here.merge(there.path)

    assert len(ids(here)) == 1
    assert closed.name in report.damaged[0]


def test_a_read_only_source_is_merged(here, there):
    """A backup medium, another user's folder: nothing is written there, no index, no quarantine."""
    there.append(make_attempt(1))
    flip_a_bit(sorted((there.path / "facts").iterdir())[0], at=5)
    before = files_of(there.path)
    folders = [there.path, *(there.path / name for name in FOLDERS)]
    calls: list[str] = []
    for folder in folders:
        folder.chmod(0o555)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("create", "rename", "unlink", "link", "mkdir"):
                patch.setattr(io, name, noting(calls, there.path, getattr(io, name)))
            here.merge(there.path)
    finally:
        for folder in folders:
            folder.chmod(0o755)

    assert ids(here) == [f"{1:032x}"]
    assert calls == []  # holds for root too, whom permissions do not stop
    assert files_of(there.path) == before


def noting(calls: list[str], root: Path, real: Any) -> Any:
    def call(*arguments: Any) -> Any:
        if any(str(a).startswith(f"{root}{os.sep}") for a in arguments):
            calls.append(f"{real.__name__} {arguments}")
        return real(*arguments)

    return call


def test_artefacts_that_nobody_has_are_named(here, there):
    """A row promises an artefact: that it is gone must not show years later only, when it is asked for."""
    lost, kept = save_blob(there, 1, b"lost"), save_blob(there, 2, b"kept")
    (there.path / "blobs" / lost).unlink()

    assert here.merge(there.path, dry_run=True).missing == [lost]
    assert here.merge(there.path).missing == [lost]
    assert here.read_blob(kept) == b"kept"


# Conflicts --------------------------------------------------------------------------------------------------------------


def contradicting(here: Registry, there: Registry) -> str:
    """One id, two outcomes; the id."""
    here.append(make_attempt(1, status="failed", error="here"))
    there.append(make_attempt(1, status="oom", error="there"))
    return f"{1:032x}"


def test_a_conflict_keeps_both_rows_reads_one_and_says_so(here, there):
    """Which of the two is true a person must say; until then no row is lost and every reader sees the same one."""
    attempt = contradicting(here, there)

    report = here.merge(there.path)

    assert [conflict.attempt_id for conflict in report.conflicts] == [attempt]
    assert report.doubtful
    assert len(list((here.path / "attempts").iterdir())) == 2
    fresh = Registry.open(here.path, create=False)
    assert fresh.table({"status"}).num_rows == 1
    assert any(attempt in text and "--invalid" in text for text in fresh.warnings)


@pytest.mark.parametrize("columns", [(), ("status",), ("error", "measurements"), None])
def test_which_row_of_a_conflict_is_read_does_not_depend_on_sides_columns_or_folds(here, there, tmp_path, columns):
    """Else the same data would give two leaderboards."""
    contradicting(here, there)
    for registry in (here, there):
        registry.append(make_attempt(2))
    copies = [shutil.copytree(registry.path, tmp_path / f"copy of {registry.path.name}") for registry in (here, there)]
    for registry, other in ((here, copies[1]), (there, copies[0])):
        registry.compact(everything=True)  # folded files are met first: each side meets its own row before the other's
        registry.merge(other)
    wanted = None if columns is None else {"attempt_id", "error", *columns}

    def read(registry: Registry) -> list[dict[str, Any]]:
        reader = Reader(registry._layout)
        return reader.table(wanted or None).select(["attempt_id", "error"]).sort_by("attempt_id").to_pylist()

    assert read(here) == read(there)
    assert len(read(here)) == 2


def test_a_fold_loses_neither_row_of_a_conflict(here, there):
    """Compaction deletes the files that it replaces: what it leaves out is gone for good."""
    attempt = contradicting(here, there)
    here.merge(there.path)
    before = state(here.path)

    for _ in range(2):
        here.compact(everything=True)
        here.append(make_attempt(7))
        here.remove_replaced(grace_s=-1.0)

    assert [conflict.attempt_id for conflict in Reader(here._layout).conflicts()] == [attempt]
    assert set(before["all rows"]) < set(state(here.path)["all rows"])


def test_equal_copies_are_no_conflict_whatever_they_hold(here, there):
    """NaN is not equal to NaN, and yet a copy of it is a copy."""
    odd = (math.nan, -0.0, math.inf, None)
    measured = tuple(Measurement("accuracy", f"part {n}", "1", "higher", value, 0.0) for n, value in enumerate(odd))
    for registry in (here, there):
        registry.append(make_attempt(1, measurements=measured))
        registry.append(make_attempt(2 if registry is here else 3))
        registry.compact(everything=True)

    report = here.merge(there.path)

    assert report.conflicts == []
    assert len(list((here.path / "folded").iterdir())) == 2
    assert ids(here) == [f"{n:032x}" for n in (1, 2, 3)]
    assert Registry.open(here.path, create=False).warnings == []


FLOATS = st.one_of(st.none(), st.sampled_from([0.0, -0.0, math.nan, math.inf, 1.0, 5e-324]), st.floats())


@given(
    st.lists(
        st.tuples(FLOATS, FLOATS, st.sampled_from(["", "a", "nan"]), st.lists(FLOATS, max_size=2)), min_size=1, max_size=40
    ),
    st.lists(
        st.tuples(FLOATS, FLOATS, st.sampled_from(["", "a", "nan"]), st.lists(FLOATS, max_size=2)), min_size=1, max_size=40
    ),
)
@settings(max_examples=150, deadline=None)
def test_comparing_by_columns_and_comparing_by_text_agree(a, b):
    """The quick comparison only spares the text: calling equal what the text tells apart would hide a conflict."""
    size = min(len(a), len(b))
    one, two = as_rows(a[:size]), as_rows(b[:size])
    told = conflicts.digests(one), conflicts.digests(two)

    assert conflicts.same(one, two) == (told[0] == told[1])
    assert conflicts.same(one, one)
    suspect = {at for start, end in conflicts.unequal(one, two) for at in range(start, end)}
    assert {at for at in range(size) if told[0][at] != told[1][at]} <= suspect


def as_rows(values: list[tuple[Any, ...]]) -> pa.Table:
    rows = []
    for wall, value, text, curve in values:
        row = schema.to_row(make_attempt(1, error=text))
        row["wall_s"], row["measurements"] = wall, [("accuracy", "test", "1", "higher", value, None)] if text else []
        row["series"] = [("loss", "train", "1", "step", curve, curve)] if len(curve) else None
        rows.append(row)
    types = schema.attempt_schema()
    return pa.table({name: pa.array([row[name] for row in rows], types.field(name).type) for name in types.names}, schema=types)


def test_facts_that_differ_under_one_name_are_all_kept_and_named(here, there):
    """A machine that got more memory under the same HARNESS_MACHINE: its seconds must not be pooled unseen."""
    here.append(make_attempt(1))
    there.append(make_attempt(2, where=replace(WHERE, machine_facts={"cpu": "another"})))

    report = here.merge(there.path)

    ((kind, name, files),) = report.fact_conflicts
    assert (kind, name, len(files)) == ("machine", "m-1", 2)
    assert report.doubtful
    assert len([fact for fact in here.facts() if fact["kind"] == "machine"]) == 2


# Which registries -------------------------------------------------------------------------------------------------------


def test_a_registry_merged_with_itself_stays_as_it_is(here, tmp_path):
    """Also under another name."""
    here.append(make_attempt(1))
    before = files_of(here.path, *NAMES)
    (tmp_path / "alias").symlink_to(here.path)

    for source in (here.path, tmp_path / "alias"):
        assert here.merge(source).copied == {}
    assert files_of(here.path, *NAMES) == before


@pytest.mark.parametrize("inner", ["here", "there"])
def test_registries_that_lie_in_one_another_are_refused(tmp_path, inner):
    """A copy inside its source grows while it is made."""
    outer = Registry.open(tmp_path / "outer")
    nested = Registry.open(outer.path / "blobs" / "nested")
    target, source = (nested, outer) if inner == "here" else (outer, nested)

    with pytest.raises(RegistryError, match="lies in the other; move it beside"):
        target.merge(source.path)


def test_a_source_that_is_none_or_is_too_new_is_refused_and_nothing_is_written(here, there, tmp_path):
    """A mistyped folder is no empty registry, and what one does not understand one does not merge."""
    (tmp_path / "pictures").mkdir()
    (there.path / "FORMAT").write_text('{"format": 9, "min_reader": 9}')
    before = files_of(here.path)

    for source, words in (("nowhere", "no such folder"), ("pictures", "no FORMAT file"), ("there", "reads format 9")):
        with pytest.raises(RegistryError, match=words):
            here.merge(tmp_path / source)
    assert files_of(here.path) == before


def test_a_source_of_a_newer_format_that_we_may_read_is_merged_with_files_that_we_cannot(here, there, monkeypatch):
    """A file of a newer schema is as good as any: a newer harness will read it here."""
    monkeypatch.setattr(schema, "SCHEMA_VERSION", schema.SCHEMA_VERSION + 1)
    there.append(make_attempt(1))
    monkeypatch.undo()
    (there.path / "FORMAT").write_text('{"format": 2, "min_reader": 1}')

    report = here.merge(there.path)

    assert report.copied["attempts"] == 1
    assert not report.damaged
    assert ids(here) == []


def test_a_target_from_before_there_were_annotations_gets_the_folder(here, there):
    """Registries are older than programs."""
    (here.path / "annotations").rmdir()
    there.append(make_attempt(1))
    there.annotate([f"{1:032x}"], "expected", "known", "somebody")

    Registry.open(here.path, create=False).merge(there.path)

    assert here.annotations().num_rows == 1


# Manifests that lie, and rings ------------------------------------------------------------------------------------------


def test_a_manifest_from_elsewhere_cannot_hide_rows_of_this_registry(here, there):
    """Files are proved by their names, but a manifest only says something: believed, it would delete a stranger's rows."""
    here.append(make_attempt(1))
    there.append(make_attempt(2))
    fold = put_folded(there, there.table())
    lie = put_manifest(there, fold, [only(here.path, "attempts").name])

    for dry_run in (True, False):
        report = here.merge(there.path, dry_run=dry_run)
        assert any(lie in text and "does not hold" in text for text in report.damaged)
    assert ids(here) == [f"{1:032x}", f"{2:032x}"]
    assert not (here.path / "manifests" / lie).exists()


def test_a_manifest_that_speaks_the_truth_about_our_files_is_believed(here, there):
    """The fold of files that both sides have is the reason why manifests are merged at all."""
    for number in range(2):
        there.append(make_attempt(number))
    here.merge(there.path)
    there.fold("inv-1")

    report = here.merge(there.path)

    assert not report.damaged
    assert report.copied == {"folded": 1, "manifests": 1}
    assert [folder for folder, _ in Reader(here._layout).entries()] == ["folded"]


def test_a_manifest_that_would_hide_the_other_row_of_a_conflict_is_refused(here, there):
    """The same id is not the same row."""
    contradicting(here, there)
    fold = put_folded(there, there.table())
    put_manifest(there, fold, [only(here.path, "attempts").name])

    report = here.merge(there.path)

    assert len(report.conflicts) == 1
    assert len(report.damaged) == 1


def test_files_that_stand_for_one_another_in_a_ring_are_all_read(here):
    """Two versions of pyarrow write one table as two files, and each may fold the other's: then none may hide both."""
    here.append(make_attempt(1))
    rows = here.table()
    two = pa.concat_tables([rows, rows])
    a, b = put_folded(here, rows), put_folded(here, two)
    put_manifest(here, a, [b, only(here.path, "attempts").name])
    put_manifest(here, b, [a])

    assert ids(here) == [f"{1:032x}"]
    assert sorted(Reader(here._layout).entries()) == sorted([("folded", a), ("folded", b)])


@given(st.lists(st.tuples(st.integers(0, 5), st.lists(st.integers(0, 7), max_size=3)), max_size=8), st.sets(st.integers(0, 5)))
@settings(max_examples=300, deadline=None)
def test_no_ring_of_manifests_hides_a_healthy_file_behind_nothing(manifests, healthy):
    """From each file that is not read a path of manifests leads to a healthy one that is: so no row is out of sight.

    Files 0 to 5 are folded, 6 and 7 loose.
    """
    told = [{"folded": str(fold), "replaces": [str(name) for name in names]} for fold, names in manifests]
    sound = {str(fold) for fold in healthy}

    hidden = Standing(told).replaced(lambda name: name in sound)

    edges = {(str(name), str(fold)) for fold, names in manifests for name in names}
    for name in map(str, range(8)):
        reached, waiting = set(), [name]
        while waiting:
            step = waiting.pop()
            further = {fold for low, fold in edges if low == step} - reached
            reached |= further
            waiting += further
        read = {fold for fold in reached - {name} if fold in sound and fold not in hidden}
        assert (name in hidden) <= bool(read)
        if not any(fold in sound for fold in reached):
            assert name not in hidden


# Stopped anywhere -------------------------------------------------------------------------------------------------------


@pytest.fixture
def rich(tmp_path: Path) -> Path:
    """A source with one of everything: a fold that stands for two files, a loose file with an artefact, an annotation."""
    registry = Registry.open(tmp_path / "rich")
    for number in range(2):
        registry.append(make_attempt(number, where=replace(WHERE, environment_facts={}, data_facts={})))
    registry.fold("inv-1")
    save_blob(registry, 3, b"an artefact")
    registry.annotate([f"{1:032x}"], "invalid", "throttled", "somebody")
    return registry.path


def all_is_whole(path: Path) -> set[str]:
    """The names of all files that a registry holds for good; each has been found to have the content that it names."""
    files = files_of(path, *NAMES)
    assert all(hashlib.sha256(content).hexdigest() == Path(name).stem for name, content in files.items())
    return set(files)


FAILURES = {
    "full": OSError(errno.ENOSPC, "no space"),
    "killed": Stop(),
    "bad": OSError(errno.EIO, "bad disk"),
}


@pytest.mark.parametrize("error", ["killed", *(pytest.param(name, marks=pytest.mark.slow) for name in ("full", "bad"))])
def test_a_merge_that_stops_at_any_disk_call_leaves_a_whole_registry_and_the_next_one_finishes(
    tmp_path, rich, monkeypatch, error
):
    """Full disk, bad disk or power cut at call n for every n: what is there is whole, what is missing comes with the repeat."""
    for flush in ("fsync", "fsync_dir"):  # their calls are counted and fail like the others; the disk itself is not asked
        monkeypatch.setattr(io, flush, lambda _: None)
    template = Registry.open(tmp_path / "template")
    template.append(make_attempt(1, where=replace(WHERE, machine="m-2")))
    template.append(make_attempt(7))
    template.compact(everything=True)
    target = Path(shutil.copytree(template.path, tmp_path / "target"))
    Registry.open(target, create=False).merge(rich)
    wanted, everybody, before = all_is_whole(target), ids(Registry(target)), files_of(rich)

    def prepare(number: int) -> Registry:
        return Registry.open(Path(shutil.copytree(template.path, tmp_path / str(number))), create=False)

    points = 0
    for registry in each_failure(FAILURES[error], prepare, lambda r: r.merge(rich)):
        points += 1
        all_is_whole(registry.path)
        reader = Registry(registry.path)
        assert {f"{1:032x}", f"{7:032x}"} <= set(reader.table({"attempt_id"})["attempt_id"].to_pylist())
        assert not any("damaged" in text for text in reader.warnings)
        assert not Registry(registry.path).merge(rich).damaged
        assert all_is_whole(registry.path) >= wanted
        assert ids(registry) == everybody
        shutil.rmtree(registry.path)
    assert points > 60  # each of five files created, written, flushed, linked; folders listed and flushed
    assert files_of(rich) == before


def test_an_invalid_attempt_is_never_seen_without_its_annotation(tmp_path, rich, monkeypatch):
    """What is said of attempts is copied before them: a reader in the middle of a merge must not rank what is invalid."""
    for flush in ("fsync", "fsync_dir"):
        monkeypatch.setattr(io, flush, lambda _: None)

    def prepare(number: int) -> Registry:
        return Registry.open(tmp_path / str(number))

    for registry in each_failure(Stop(), prepare, lambda r: r.merge(rich)):
        reader = Registry.open(registry.path, create=False)
        if f"{1:032x}" in reader.table({"attempt_id"})["attempt_id"].to_pylist():
            assert reader.annotations()["attempt_id"].to_pylist() == [f"{1:032x}"]


def test_an_error_of_the_target_names_it_and_the_mend(here, there, monkeypatch):
    """A full disk is not a damaged source."""
    there.append(make_attempt(1))
    calls = failing_at(monkeypatch, 10_000, Stop())
    here.merge(there.path)
    number = calls.index("create") + 1
    monkeypatch.undo()
    (only(here.path, "attempts")).unlink()
    for fact in (here.path / "facts").iterdir():
        fact.unlink()

    failing_at(monkeypatch, number, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(RegistryError, match=r"here: cannot take in .*there: No space left on device; free some space"):
        Registry(here.path).merge(there.path)


def test_files_that_the_source_folds_and_deletes_meanwhile_are_found_in_the_fold(here, there, monkeypatch):
    """Writers do not wait for a merge: what was listed may be gone when its turn comes."""
    for number in range(3):
        there.append(make_attempt(number))
    real = io.create

    def fold_first(path: Path) -> int:
        if path.is_relative_to(here.path) and list((there.path / "attempts").iterdir()):
            other = Registry.open(there.path)
            other.fold("inv-1")
            other.remove_replaced(grace_s=-1.0)
        return real(path)

    monkeypatch.setattr(io, "create", fold_first)
    report = here.merge(there.path)

    assert ids(here) == [f"{n:032x}" for n in range(3)]
    assert report.damaged == []
    assert list((there.path / "attempts").iterdir()) == []


def test_writers_on_both_sides_lose_nothing(here, there):
    """A nightly merge runs while people work; a second one takes what the first came too early for."""
    done = threading.Event()

    def write(registry: Registry, first: int) -> None:
        for number in range(first, first + 40):
            registry.append(make_attempt(number, where=replace(WHERE, invocation=f"inv-{first}")))
            if number % 10 == 9:
                registry.fold(f"inv-{first}")

    writers = [threading.Thread(target=write, args=(Registry.open(r.path), first)) for r, first in ((here, 100), (there, 200))]
    for writer in writers:
        writer.start()
    reports: list[Report] = []
    while any(writer.is_alive() for writer in writers) and not done.is_set():
        reports.append(Registry.open(here.path, create=False).merge(there.path))
    for writer in writers:
        writer.join()
    reports.append(Registry.open(here.path, create=False).merge(there.path))

    assert ids(here) == [f"{n:032x}" for n in (*range(100, 140), *range(200, 240))]
    assert not any(report.doubtful for report in reports)


# The command line -------------------------------------------------------------------------------------------------------


def test_the_command_merges_several_sources_and_says_what_came(here, there, tmp_path):
    """One line a source on stdout, exit 0."""
    there.append(make_attempt(1))
    third = Registry.open(tmp_path / "third")
    third.append(make_attempt(2))

    ended = harness("merge", there.path, third.path, "--registry", here.path)

    assert ended.code == 0, ended.err
    assert [line.partition(": ")[0] for line in ended.out.splitlines()] == [str(there.path), str(third.path)]
    assert "1 attempts are new" in ended.out
    assert ids(here) == [f"{1:032x}", f"{2:032x}"]
    again = harness("merge", there.path, third.path, "--registry", here.path, "--json")
    assert [told["copied"] for told in again.json.values()] == [{}, {}]


def test_the_command_names_all_wrong_sources_at_once_and_copies_nothing(here, there, tmp_path):
    """A mistake in the third name must not show after an hour of copying the first two."""
    there.append(make_attempt(1))
    (tmp_path / "pictures").mkdir()

    ended = harness("merge", there.path, tmp_path / "pictures", tmp_path / "nowhere", "--registry", here.path)

    assert ended.code == 2
    assert "pictures: has no FORMAT file" in ended.err
    assert "nowhere: there is no such folder" in ended.err
    assert ids(here) == []


def test_the_command_ends_with_3_for_damage_and_for_conflicts_and_merges_the_rest(here, there):
    """A nightly job must notice; the healthy files must be safe all the same."""
    attempt = contradicting(here, there)
    there.append(make_attempt(2))
    there.append(make_attempt(3))
    hurt = sorted((there.path / "attempts").iterdir())[-1]
    flip_a_bit(hurt)

    ended = harness("merge", there.path, "--registry", here.path, "--json")

    assert ended.code == 3
    (told,) = ended.json.values()
    assert told["doubtful"] is True
    assert hurt.name in told["damaged"][0]
    assert len(ids(here)) >= 2
    plain = harness("merge", there.path, "--registry", here.path)
    assert plain.code == 3
    assert hurt.name in plain.out
    assert (attempt in plain.out) == bool(told["conflicts"])


def test_a_dry_run_foretells_the_merge_and_writes_nothing(here, there):
    """Conflicts and damage too: that is what one looks for beforehand."""
    contradicting(here, there)
    there.append(make_attempt(2))
    there.append(make_attempt(3))
    there.fold("inv-1")
    flip_a_bit(sorted((there.path / "facts").iterdir())[0], at=5)
    before = files_of(here.path), files_of(there.path)

    dry = harness("merge", there.path, "--registry", here.path, "--dry-run", "--json")
    assert (files_of(here.path), files_of(there.path)) == before
    real = harness("merge", there.path, "--registry", here.path, "--json")

    assert dry.code == real.code == 3
    (foretold,), (told,) = dry.json.values(), real.json.values()
    same = ("copied", "skipped", "copied_bytes", "attempts", "damaged", "restored", "missing")
    assert {name: foretold[name] for name in same} == {name: told[name] for name in same}
    assert [c["attempt_id"] for c in foretold["conflicts"]] == [c["attempt_id"] for c in told["conflicts"]]


def test_a_dry_run_into_a_registry_that_is_not_there_yet_makes_none(there, tmp_path):
    """It says what a first merge would bring."""
    there.append(make_attempt(1))

    ended = harness("merge", there.path, "--registry", tmp_path / "new", "--dry-run", "--json")

    assert ended.code == 0, ended.err
    assert ended.json[str(there.path)]["attempts"] == 1
    assert not (tmp_path / "new").exists()


def test_many_loose_files_that_come_at_once_are_compacted(here, there):
    """The command that brought them pays for it, not each query after it."""
    for number in range(120):
        there.append(make_attempt(number))

    assert harness("merge", there.path, "--registry", here.path).code == 0

    assert len(Reader(here._layout).entries()) == 1
    assert len(ids(here)) == 120
