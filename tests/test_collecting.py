"""`harness gc`: what may go is named and goes, what a reader, a writer or a person still needs never does."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from failing_disk import EACH_CALL, Stop, each_failure, no_flush  # noqa: F401 (a fixture)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from invoking import harness
from registry_samples import WHERE, flip_a_bit, ids, make_attempt, make_trial

from harness.registry import Registry, collecting, io
from harness.registry.collecting import Garbage
from harness.registry.files import STALE_S, Layout, content_name, owner
from harness.registry.folding import GRACE_S
from harness.registry.reading import Reader, checked_name
from harness.registry.verifying import verify

pytestmark = pytest.mark.usefixtures("no_flush")

DAY_S = 24 * 3600.0


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(tmp_path / "registry")


@pytest.fixture(scope="session")
def dead_owner() -> str:
    """The part of a tmp file's name that tells its writer, for one that is gone."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return f"{owner().rsplit('-', 2)[0]}-{process.pid}-1"


def made_old(path: Path, age_s: float) -> Path:
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def make_all_old(registry: Registry, age_s: float) -> None:
    """All but the index, which a reader keeps young."""
    for path in registry.path.rglob("*"):
        if path.is_file() and path.parent.name != "index":
            made_old(path, age_s)


def put(registry: Registry, path: str, content: bytes = b"x", age_s: float = 0.0) -> Path:
    file = registry.path / path
    file.write_bytes(content)
    return made_old(file, age_s)


def put_facts(registry: Registry, kind: str, name: str, age_s: float) -> str:
    content = json.dumps({"kind": kind, "name": name, "facts": {}}).encode()
    return str(put(registry, f"facts/{content_name(content, '.json')}", content, age_s).relative_to(registry.path))


def listed(registry: Registry, **options: Any) -> list[tuple[str, str]]:
    return sorted((one.kind, one.path) for one in Registry.open(registry.path, create=False).garbage(**options))


def saved(path: Path, content: bytes) -> dict[str, str]:
    path.write_bytes(content)
    return {"name": path.name, "path": str(path), "media_type": "text/plain"}


def answers(registry: Registry) -> tuple[Any, ...]:
    """All that anybody may ask of a registry."""
    opened = Registry.open(registry.path, create=False)
    rows = sorted(opened.table().to_pylist(), key=lambda row: row["attempt_id"])
    blobs = {blob["sha256"]: opened.read_blob(blob["sha256"]) for row in rows for blob in row["blobs"]}
    named = {value for row in rows for value in (row["machine"], row["environment"], row["data_digest"])}
    facts = sorted(str(told) for told in opened.facts() if told["name"] in named)
    return rows, blobs, facts, opened.annotations().to_pylist()


# What may go --------------------------------------------------------------------------------------------------------------


def test_a_registry_in_use_has_no_garbage(registry, tmp_path):
    """Folded, annotated, with artefacts, with a trial that runs: all of it is needed."""
    for number in range(3):
        registry.append(make_attempt(number, blobs=(saved(tmp_path / "b", b"x"),)))
    registry.fold("inv-1")
    registry.begin(make_trial(), WHERE)
    registry.annotate([f"{1:032x}"], "invalid", "broken", "me")

    assert listed(registry) == []


def test_files_that_were_replaced_go_after_the_grace_time_and_their_manifest_with_them(registry):
    """Both at once: a manifest without anything to replace only costs time."""
    for number in range(3):
        registry.append(make_attempt(number))
    loose = [f"attempts/{name}" for name in io.listdir(registry.path / "attempts")]
    registry.fold("inv-1")
    (manifest,) = io.listdir(registry.path / "manifests")
    assert listed(registry) == []

    make_all_old(registry, GRACE_S + 60)
    assert listed(registry) == [("replaced", path) for path in loose]
    gone = registry.collect()
    assert sorted(one.path for one in gone) == [*loose, f"manifests/{manifest}"]
    assert len(ids(registry)) == 3
    assert listed(registry) == []


def test_unfinished_files_of_dead_writers_go_and_those_of_living_ones_stay(registry, dead_owner):
    """A writer that takes its time, on this host or another, must find its file."""
    put(registry, f"tmp/{dead_owner}-ab", age_s=STALE_S + 60)
    put(registry, f"tmp/{dead_owner}-cd", age_s=STALE_S - 60)
    put(registry, f"tmp/{owner()}-ef", age_s=STALE_S + 60)
    put(registry, "tmp/elsewhere-1-2-ab", age_s=2 * DAY_S)
    put(registry, f"attempts/.probe-{dead_owner}-ab", age_s=STALE_S + 60)
    put(registry, f"index/{dead_owner}-ab", age_s=STALE_S + 60)

    assert listed(registry) == [
        ("index", f"index/{dead_owner}-ab"),
        ("unfinished", f"attempts/.probe-{dead_owner}-ab"),
        ("unfinished", f"tmp/{dead_owner}-ab"),
    ]


def test_torn_markers_go_and_readable_ones_stay(registry):
    """A marker that can be read becomes an `interrupted` attempt; one that cannot says nothing."""
    marker = made_old(registry.begin(make_trial(), WHERE), STALE_S + 60)
    put(registry, f"started/{1:032x}.json", b"{torn", age_s=STALE_S + 60)
    put(registry, f"started/{2:032x}.json", b"{torn", age_s=60)
    put(registry, f"quarantine/{3:032x}.json", b"{torn")

    assert listed(registry) == [("marker", f"quarantine/{3:032x}.json"), ("marker", f"started/{1:032x}.json")]
    assert marker.exists()


def test_artefacts_that_no_attempt_names_go_and_named_or_young_ones_stay(registry, tmp_path):
    """A writer publishes the artefact before the row: a young one may just have its row written."""
    (kept,) = registry.append(make_attempt(1, blobs=(saved(tmp_path / "b", b"named"),))).blobs
    made_old(registry.path / "blobs" / kept.sha256, 100 * DAY_S)
    old, young = content_name(b"old"), content_name(b"young")
    put(registry, f"blobs/{old}", b"old", age_s=GRACE_S + 60)
    put(registry, f"blobs/{young}", b"young", age_s=GRACE_S - 60)

    assert listed(registry) == [("blob", f"blobs/{old}")]
    assert listed(registry, grace_s=60) == sorted([("blob", f"blobs/{old}"), ("blob", f"blobs/{young}")])


def test_an_artefact_is_named_also_by_a_row_that_a_folded_file_replaced(registry, tmp_path):
    """Should the folded file be damaged, the replaced one is read again."""
    for number in range(2):
        registry.append(make_attempt(number, blobs=(saved(tmp_path / "b", b"named"),)))
    flip_a_bit(registry.path / "folded" / registry.fold("inv-1"))
    make_all_old(registry, GRACE_S + 60)

    assert listed(registry) == []


def test_facts_that_neither_an_attempt_nor_a_running_trial_names_go(registry):
    """Of a run that was killed before its first attempt ended."""
    registry.append(make_attempt(1))
    registry.begin(make_trial(), replace(WHERE, environment="env-running", environment_facts={"packages": {}}))
    make_all_old(registry, GRACE_S + 60)
    unnamed = [put_facts(registry, kind, "nobody", GRACE_S + 60) for kind in ("machine", "environment", "data")]
    put_facts(registry, "machine", "young", 60)
    put_facts(registry, "a kind of the next version", "nobody", GRACE_S + 60)

    assert listed(registry) == sorted(("facts", path) for path in unnamed)


def test_what_is_used_again_counts_as_young(registry, tmp_path):
    """Between the artefact and its row a collection may look: it must not take for old what was just published again."""
    name = content_name(b"again")
    blob = put(registry, f"blobs/{name}", b"again", age_s=GRACE_S + 60)
    assert listed(registry) == [("blob", f"blobs/{name}")]

    registry.append(make_attempt(1, blobs=(saved(tmp_path / "b", b"again"),)))
    assert time.time() - blob.stat().st_mtime < 60
    facts = sorted((registry.path / "facts").iterdir())
    for path in facts:
        made_old(path, GRACE_S + 60)
    Registry.open(registry.path).begin(make_trial(), WHERE)
    assert all(time.time() - path.stat().st_mtime < 60 for path in facts)


def test_while_records_are_lost_or_cannot_be_read_what_they_may_name_stays(registry, tmp_path):
    """The copy that brings them back need not bring their artefacts."""
    registry.append(make_attempt(1, blobs=(saved(tmp_path / "b", b"named"),)))
    (row,) = (registry.path / "attempts").glob("*.parquet")
    content = row.read_bytes()
    flip_a_bit(row)
    make_all_old(registry, GRACE_S + 60)
    assert ids(registry) == []

    assert listed(registry) == []
    row.write_bytes(content)
    assert listed(registry) == [("quarantine", f"quarantine/{row.name}")]


def test_what_lies_in_quarantine_goes_when_it_has_come_back_whole_and_not_before(registry):
    """The only copy of something, even a damaged one, is for a person to delete."""
    for number in range(2):
        registry.append(make_attempt(number))
    first, second = sorted((registry.path / "attempts").glob("*.parquet"))
    content = first.read_bytes()
    flip_a_bit(first)
    flip_a_bit(second)
    assert ids(registry) == []

    first.write_bytes(content)

    assert listed(registry) == [("quarantine", f"quarantine/{first.name}")]
    first.write_bytes(b"PAR1 damaged again PAR1")
    assert listed(registry) == []


def test_an_old_index_goes_and_a_young_one_stays(registry):
    """It is made again when it is needed."""
    registry.append(make_attempt(1))
    ids(registry)
    assert listed(registry) == []

    made_old(registry.path / "index" / checked_name(), GRACE_S + 60)
    assert listed(registry) == [("index", f"index/{checked_name()}")]
    registry.collect()
    assert len(ids(registry)) == 1


# What never goes --------------------------------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_collected_every_question_has_the_same_answer(tmp_path_factory, dead_owner, data):
    """Any history of appends, folds, damage and leftovers, any age of any file, any grace time, collected twice."""
    folder = tmp_path_factory.mktemp("history")
    registry = Registry.open(folder / "registry")
    draw = data.draw
    for number in range(draw(st.integers(0, 8))):
        blobs = (saved(folder / "b", bytes([draw(st.integers(0, 2))])),) if draw(st.booleans()) else ()
        where = replace(WHERE, invocation=f"inv-{draw(st.integers(0, 2))}", environment=f"env-{number % 2}",
                        environment_facts={"n": number % 2})  # fmt: skip
        registry.append(make_attempt(number, where=where, blobs=blobs))
        if draw(st.booleans()):
            registry.fold(where.invocation)
        if draw(st.booleans()):
            registry.compact(everything=True)
    put(registry, f"tmp/{dead_owner}-ab")
    put(registry, f"blobs/{content_name(b'nobody')}", b"nobody")
    put_facts(registry, "environment", "nobody", 0)
    rows = list(registry.path.rglob("*.parquet"))
    if rows and draw(st.booleans()):
        flip_a_bit(draw(st.sampled_from(sorted(rows))))
    before = answers(registry)
    for path in sorted(registry.path.rglob("*")):
        if path.is_file():
            made_old(path, draw(st.sampled_from([0.0, 2 * DAY_S, 30 * DAY_S])))
    grace_s = draw(st.sampled_from([-1.0, DAY_S, GRACE_S]))

    for _ in range(2):
        Registry.open(registry.path, create=False).collect(grace_s)
        assert answers(registry) == before
    assert listed(registry, grace_s=grace_s) == []
    shutil.rmtree(folder)


def test_a_row_that_comes_while_garbage_is_collected_keeps_its_artefact(registry):
    """It is looked for again just before each deletion."""
    layout = Layout(registry.path)
    names = [content_name(bytes([n])) for n in range(3)]
    for number, name in enumerate(names):
        put(registry, f"blobs/{name}", bytes([number]), age_s=GRACE_S + 60)
    first, *later = sorted(names)

    found = collecting.found(Reader(layout), layout, GRACE_S)
    assert next(found).path == f"blobs/{first}"
    attempt = make_attempt(1)
    for name in later:
        blob = {"name": "b", "path": str(registry.path / "blobs" / name), "media_type": ""}
        attempt = registry.append(replace(attempt, outcome=replace(attempt.outcome, blobs=(blob,))))

    assert list(found) == []


def test_a_folded_file_that_is_damaged_keeps_what_it_replaced(registry):
    """The index of checked files is not believed when something is deleted."""
    for number in range(3):
        registry.append(make_attempt(number))
    path = registry.path / "folded" / registry.fold("inv-1")
    ids(registry)
    stat = path.stat()
    flip_a_bit(path)
    make_all_old(registry, GRACE_S + 60)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert registry.collect() == []
    assert len(ids(registry)) == 3


@pytest.mark.parametrize("step", EACH_CALL)
@pytest.mark.parametrize("error", [OSError(errno.EIO, "bad disk"), Stop()], ids=["io error", "killed"])
def test_a_collection_may_stop_anywhere(tmp_path, dead_owner, error, step):
    """Whatever is left, the answers are the same, the next collection goes on, and verify finds nothing."""
    model = Registry.open(tmp_path / "model")
    for number in range(2):
        model.append(make_attempt(number, blobs=(saved(tmp_path / "b", b"named"),)))
    model.fold("inv-1")
    put(model, f"tmp/{dead_owner}-ab")
    put(model, f"blobs/{content_name(b'nobody')}", b"nobody")
    make_all_old(model, GRACE_S + 60)
    before = answers(model)

    def copied(number: int) -> Registry:
        shutil.copytree(model.path, tmp_path / str(number), copy_function=shutil.copy2)
        return Registry.open(tmp_path / str(number), create=False)

    for registry in each_failure(error, copied, lambda r: r.collect(), step):
        assert answers(registry) == before
        assert verify(Layout(registry.path)).findings == []
        Registry.open(registry.path, create=False).collect()
        assert answers(registry) == before
        assert len(list(registry.path.rglob("*.parquet"))) == 1


# The command ------------------------------------------------------------------------------------------------------------------


def test_gc_lists_and_deletes_only_with_yes(registry):
    """A person sees first what would go, why, and how much it is."""
    registry.append(make_attempt(1))
    old = put(registry, f"blobs/{content_name(b'old')}", b"old" * 700_000, age_s=8 * DAY_S)
    old = old.rename(old.with_name(content_name(b"old" * 700_000)))

    dry = harness("gc", "--registry", registry.path)
    assert dry.code == 0
    assert dry.out.splitlines() == [
        "blob: 1 files, 2.1 MB: no attempt names it",
        f"  blobs/{old.name}",
        "1 files, 2.1 MB may go; `harness gc --yes` deletes them",
    ]
    assert harness("gc", "--grace", "30d", "--registry", registry.path).out == "no garbage\n"
    assert old.exists()

    told = harness("gc", "--yes", "--json", "--registry", registry.path)
    assert (told.code, told.json["deleted"], told.json["size_bytes"]) == (0, True, 2_100_000)
    assert told.json["files"] == [{**vars(Garbage("blob", f"blobs/{old.name}", 2_100_000)), "why": "no attempt names it"}]
    assert not old.exists()


@pytest.mark.parametrize("grace", ["week", "7", "-1d"])
def test_gc_refuses_a_grace_time_that_it_cannot_read(registry, grace):
    """Deleting on a misread number would be a poor way to say so."""
    told = harness("gc", "--yes", "--grace", grace, "--registry", registry.path)

    assert told.code == 2
    assert "write a number with its unit" in told.err


def test_gc_where_there_is_no_registry_is_a_mistake(tmp_path):
    """A mistyped --registry is not a clean one."""
    assert harness("gc", "--registry", tmp_path / "none").code == 2
