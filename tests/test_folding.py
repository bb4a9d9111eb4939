"""Folding and compaction: few files, few rewrites, no attempt lost, whoever folds at once and wherever it stops."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from failing_disk import EACH_CALL, Stop, each_failure, no_flush  # noqa: F401 (a fixture)
from hypothesis import given, settings
from hypothesis import strategies as st
from invoking import harness
from registry_samples import WHERE, flip_a_bit, ids, make_attempt

from harness.registry import Registry, folding, io, schema
from harness.registry.files import Layout, content_name
from harness.registry.folding import FAN_OUT, MAX_BYTES, MAX_ROWS, Weight
from harness.registry.reading import Entry, Reader
from harness.registry.sizing import row_bytes

pytestmark = pytest.mark.usefixtures("no_flush")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(tmp_path / "registry")


def loose_files(registry: Registry) -> list[Path]:
    return sorted((registry.path / "attempts").glob("*.parquet"))


def open_files(registry: Registry) -> list[Entry]:
    """Those that a reader opens."""
    return Reader(Layout(registry.path)).entries()


def record(registry: Registry, first: int, last: int, invocation: str, **outcome: object) -> None:
    for number in range(first, last):
        registry.append(make_attempt(number, where=replace(WHERE, invocation=invocation), **outcome))


def named(*numbers: int) -> list[str]:
    return [f"{n:032x}" for n in numbers]


def copied(source: Path, target: Path) -> Registry:
    shutil.copytree(source, target)
    return Registry.open(target, create=False)


@pytest.mark.parametrize("step", EACH_CALL)
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "no space"), Stop()], ids=["full", "killed"])
def test_a_fold_that_stops_anywhere_loses_and_doubles_no_attempt(tmp_path, error, step):
    """Each step of a fold leaves the registry whole for a reader that comes just then; a second fold finishes the work."""
    expected = [f"{n:032x}" for n in range(4)]

    def prepare(number: int) -> Registry:
        registry = Registry.open(tmp_path / str(number))
        for n in range(4):
            registry.append(make_attempt(n))
        return registry

    for registry in each_failure(error, prepare, lambda r: r.fold("inv-1"), step):
        assert ids(registry) == expected
        Registry.open(registry.path).fold("inv-1")
        assert ids(registry) == expected
        # A file that could not be looked at is left for later; of one loose file there is nothing to gain.
        assert len(open_files(registry)) <= 2


# Folding ----------------------------------------------------------------------------------------------------------------


def test_a_fold_takes_the_files_of_its_invocation_and_sorts_attempts_by_id(registry):
    """Another process may be in the middle of its own."""
    for number in (3, 1, 2):
        registry.append(make_attempt(number))
    registry.append(make_attempt(9, where=replace(WHERE, invocation="inv-2")))

    name = registry.fold("inv-1")

    folded = schema.decode((registry.path / "folded" / name).read_bytes())
    assert folded["attempt_id"].to_pylist() == [f"{n:032x}" for n in (1, 2, 3)]
    assert len(open_files(registry)) == 2
    assert ids(registry) == [f"{n:032x}" for n in (1, 2, 3, 9)]


def test_replaced_files_go_after_the_grace_time_and_not_before(registry):
    """A reader may have listed them a moment ago."""
    for number in range(3):
        registry.append(make_attempt(number))
    registry.fold("inv-1")

    assert registry.remove_replaced() == 0
    assert len(loose_files(registry)) == 3
    assert registry.remove_replaced(grace_s=-1) == 3
    assert loose_files(registry) == []
    assert len(ids(registry)) == 3


def test_a_reader_whose_listed_files_vanish_lists_again(registry):
    """Even with the grace time over between listing and opening, every attempt is read once."""
    for number in range(3):
        registry.append(make_attempt(number))
    reader = Reader(registry._layout)
    entries = reader.entries

    def list_then_lose_the_race() -> list[tuple[str, str]]:
        reader.entries = entries
        listed = entries()
        registry.fold("inv-1")
        registry.remove_replaced(grace_s=-1)
        return listed

    reader.entries = list_then_lose_the_race

    assert len(reader.table()) == 3


def test_a_damaged_folded_file_brings_the_files_back_that_it_replaced(registry):
    """Until the grace time is over every row is there twice; then damage costs nothing."""
    for number in range(3):
        registry.append(make_attempt(number))
    flip_a_bit(registry.path / "folded" / registry.fold("inv-1"))
    reader = Registry.open(registry.path, create=False)

    assert len(reader.table()) == 3
    assert "damaged, its SHA-256 is not its name; moved to" in reader.warnings[0]


def test_nothing_is_deleted_for_a_folded_file_that_is_damaged(registry):
    """The index may say that it was healthy once; deletion looks again."""
    for number in range(3):
        registry.append(make_attempt(number))
    path = registry.path / "folded" / registry.fold("inv-1")
    ids(registry)  # fills the index
    stat = path.stat()
    flip_a_bit(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert registry.remove_replaced(grace_s=-1) == 0
    assert len(ids(registry)) == 3


def test_a_damaged_manifest_hides_no_attempt(registry):
    """Without it the loose files count again, and rows that stand twice are read once."""
    for number in range(3):
        registry.append(make_attempt(number))
    registry.fold("inv-1")
    (manifest,) = (registry.path / "manifests").glob("*.json")
    flip_a_bit(manifest, 30)
    reader = Registry.open(registry.path, create=False)

    assert sorted(reader.table()["attempt_id"].to_pylist()) == [f"{n:032x}" for n in range(3)]
    assert "damaged" in reader.warnings[0]


def test_folds_of_folds_stand_for_what_the_first_ones_replaced(registry, monkeypatch):
    """A loose file replaced by a fold that was itself replaced and deleted is not read again."""
    monkeypatch.setattr(folding, "FAN_OUT", 2)
    for invocation in ("inv-a", "inv-b"):
        for number in range(2):
            registry.append(make_attempt(number + 10 * (invocation == "inv-b"), where=replace(WHERE, invocation=invocation)))
        registry.fold(invocation)

    (entry,) = open_files(registry)
    assert entry[0] == "folded"
    assert len(ids(registry)) == 4
    assert registry.remove_replaced(grace_s=-1) == 6
    assert len(ids(registry)) == 4


def test_two_that_fold_the_same_files_make_the_same_file(registry):
    """So a race between them has no loser."""
    for number in range(3):
        registry.append(make_attempt(number))
    layout, entries = Layout(registry.path), open_files(registry)

    (a,), (b,) = (folding.fold_entries(Reader(layout), layout, order) for order in (entries, entries[::-1]))

    assert a == b
    assert len(io.listdir(registry.path / "manifests")) == 1


@pytest.mark.parametrize("then", [lambda r: r.fold("inv-0"), lambda r: Registry.open(r.path)], ids=["fold", "open"])
def test_more_than_a_hundred_loose_files_are_compacted(registry, then):
    """Small files are the main cost of a query: 100 of them cost more than a million rows in one. A killed run leaves many."""
    for number in range(101):
        registry.append(make_attempt(number, where=replace(WHERE, invocation=f"inv-{number}")))

    then(registry)

    assert len(open_files(registry)) == 1
    assert len(ids(registry)) == 101


# How much one file holds ------------------------------------------------------------------------------------------------


def test_a_fold_never_holds_more_rows_than_the_bound(registry, monkeypatch):
    """A million attempts in one go would not fit into memory; many files of bounded size do."""
    monkeypatch.setattr(folding, "MAX_ROWS", 10)
    monkeypatch.setattr(folding, "AT_ONCE", 3)
    record(registry, 0, 35, "inv-1")

    Registry.open(registry.path).fold("inv-1")

    rows = [pq.read_metadata(registry.path / folder / name).num_rows for folder, name in open_files(registry)]
    assert sum(rows) == 35
    assert max(rows) <= 10
    assert ids(registry) == named(*range(35))


def test_a_fold_never_holds_more_bytes_than_the_bound(registry, monkeypatch):
    """Rows differ: one with a log of a megabyte weighs as much as a thousand others."""
    monkeypatch.setattr(folding, "MAX_BYTES", 100_000)
    monkeypatch.setattr(folding, "AT_ONCE", 1)
    record(registry, 0, 12, "inv-1", log="x" * 30_000)

    Registry.open(registry.path).fold("inv-1")

    weights = [folding.weigh(Layout(registry.path), entry) for entry in open_files(registry)]
    assert [w.rows for w in weights] == [3, 3, 3, 3]
    assert all(90_000 < w.size_bytes < 100_000 for w in weights)


def test_a_folded_file_is_written_in_groups_that_can_be_read_one_by_one(registry, monkeypatch):
    """Who streams a file needs no more memory than a group takes."""
    monkeypatch.setattr(schema, "GROUP_BYTES", 50_000)
    record(registry, 0, 20, "inv-1", log="x" * 10_000)

    path = registry.path / "folded" / registry.fold("inv-1")

    groups = pq.ParquetFile(path).metadata
    assert {groups.row_group(n).num_rows for n in range(groups.num_row_groups)} == {4}
    assert ids(registry) == named(*range(20))


def test_the_weight_of_rows_comes_from_their_values_alone(registry):
    """Equal rows must be cut into equal groups, or two that fold the same rows would make two files."""
    record(registry, 0, 5, "inv-1", log="ä" * 100, diagnostics={"note": "text", "x": 1.5})
    table = registry.table().sort_by("attempt_id")

    sliced = pa.concat_tables([table.slice(n, 1) for n in range(5)])

    assert row_bytes(sliced).tolist() == row_bytes(table).tolist()
    assert row_bytes(table.slice(2, 2)).tolist() == row_bytes(table).tolist()[2:4]
    # Arrow's own figure for the whole, which also counts what it aligns and masks.
    assert row_bytes(table).sum() == pytest.approx(table.nbytes, rel=0.2)


def test_equal_rows_make_an_equal_file_however_they_came_together(tmp_path):
    """So the files of two machines that compacted apart are the same file after a merge."""
    names = set()
    for way, cuts in enumerate([(0, 12), (0, 5, 12), (0, 1, 2, 7, 12)]):
        registry = Registry.open(tmp_path / str(way))
        record(registry, 0, 12, "inv-1", log="line\n" * 50)
        layout = Layout(registry.path)
        loose = open_files(registry)
        for start, end in itertools.pairwise(cuts):
            folding.fold_entries(Reader(layout), layout, loose[start:end])
        registry.compact(everything=True)
        ((folder, name),) = open_files(registry)
        assert folder == "folded"
        names.add(name)

    assert len(names) == 1


def test_a_file_of_before_weights_were_noted_is_weighed_by_what_its_footer_says(registry):
    """The registry that was committed a year ago is compacted like any other."""
    record(registry, 0, 6, "inv-1")
    table = registry.table().sort_by("attempt_id")
    content = schema.to_parquet(table, compression="zstd")
    name = folding.publish_folded(Layout(registry.path), content, 6, [name for _, name in open_files(registry)])

    weight = folding.weigh(Layout(registry.path), ("folded", name))

    assert weight.rows == 6
    assert weight.size_bytes > len(content) / 2


# Tiers ----------------------------------------------------------------------------------------------------------------


class Simulated:
    """A registry of weights alone: years of it in a second. Files are (folder, name); a fold adds what it joins."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.weights: dict[Entry, Weight] = {}
        self.rewritten = 0
        self.made = 0
        monkeypatch.setattr(folding, "weigh", lambda layout, entry: self.weights[entry])

    def add(self, folder: str, weight: Weight) -> None:
        self.made += 1
        self.weights[(folder, f"{self.made:08d}")] = weight

    def compact(self, everything: bool = False) -> None:
        layout = Layout(Path("nowhere"))
        while batches := folding.choose(layout, list(self.weights), everything):
            for batch in batches:
                parts = [self.weights.pop(entry) for entry in batch]
                together = Weight(sum(p.rows for p in parts), sum(p.size_bytes for p in parts))
                assert together.share <= 1
                self.rewritten += together.rows
                self.add("folded", together)

    @property
    def small(self) -> int:
        return sum(weight.tier is not None for weight in self.weights.values())


TIERS = 1 + int(math.log(MAX_ROWS / 2, FAN_OUT))


@pytest.mark.parametrize(
    ("nights", "rows", "row_bytes", "rewrites"),
    [(10_000, 100, 2_000, 7), (3_000, 333, 10_000, 6), (2_000, 500, 700, 6), (20_000, 1, 2_000, 10)],
)
def test_years_of_nights_leave_few_files_and_cost_each_row_few_rewrites(monkeypatch, nights, rows, row_bytes, rewrites):
    """A million attempts: what the module's docstring promises, counted after each night."""
    registry = Simulated(monkeypatch)
    most = 0
    for _ in range(nights):
        registry.add("folded", Weight(rows, rows * row_bytes))
        registry.compact()
        most = max(most, registry.small)

    total = Weight(nights * rows, nights * rows * row_bytes)
    assert sum(w.rows for w in registry.weights.values()) == total.rows
    assert most <= (FAN_OUT - 1) * TIERS
    assert len(registry.weights) - registry.small <= 2 * total.share
    assert registry.rewritten <= rewrites * total.rows


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.tuples(st.integers(1, MAX_ROWS * 2), st.integers(1, 50_000)), max_size=60))
def test_any_mixture_of_sizes_ends_within_the_bounds(sizes):
    """Merged registries bring files of every size, also larger than this version would write."""
    with pytest.MonkeyPatch.context() as patch:
        registry = Simulated(patch)
        for rows, each in sizes:
            registry.add("folded", Weight(rows, rows * each))
        total = Weight(sum(r for r, _ in sizes), sum(r * e for r, e in sizes))
        oversized = sum(w.share > 1 for w in registry.weights.values())
        registry.compact()
        assert registry.small <= (FAN_OUT - 1) * TIERS

        registry.compact(everything=True)
        # Any two files would be too much for one.
        least = sorted(w.share for w in registry.weights.values())[:2]
        assert len(least) < 2 or sum(least) > 1
        within = total.rows / MAX_ROWS + total.size_bytes / MAX_BYTES
        assert len(registry.weights) - oversized <= 2 * within + 1


def test_folded_files_of_one_size_are_folded_when_there_are_four_and_not_before(registry):
    """Not each night all that ever was: only what has become too many of a kind."""
    counts = []
    for night in range(5):
        record(registry, 10 * night, 10 * night + 10, f"inv-{night}")
        registry.fold(f"inv-{night}")
        counts.append(len(open_files(registry)))

    assert counts == [1, 2, 3, 1, 2]
    assert ids(registry) == named(*range(50))


def test_compacting_everything_takes_loose_and_folded_files_together(registry):
    """What a person asks for before copying or committing a registry."""
    record(registry, 0, 10, "inv-1")
    registry.fold("inv-1")
    record(registry, 10, 13, "inv-2")

    done = registry.compact(everything=True)

    assert (done.files_before, done.files_after, done.rows, len(done.made)) == (4, 1, 13, 1)
    assert done.bytes_after == (registry.path / "folded" / done.made[0]).stat().st_size < done.bytes_before
    assert ids(registry) == named(*range(13))
    assert registry.compact(everything=True).made == ()


@pytest.mark.parametrize("step", EACH_CALL)
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "no space"), Stop()], ids=["full", "killed"])
def test_a_compaction_that_stops_anywhere_loses_and_doubles_no_attempt(tmp_path, monkeypatch, error, step):
    """Tiers on tiers: two files of a tier become one, which fills the next; each disk call of that fails once."""
    monkeypatch.setattr(folding, "FAN_OUT", 2)
    model = Registry.open(tmp_path / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folding, "FAN_OUT", 100)
        for start, end in ((0, 2), (2, 4)):
            record(model, start, end, f"inv-{start}")
            model.fold(f"inv-{start}")
    record(model, 4, 5, "inv-4")
    expected = named(*range(5))
    assert len(open_files(model)) == 3
    points = 0

    for registry in each_failure(
        error, lambda n: copied(model.path, tmp_path / str(n)), lambda r: r.compact(everything=True), step
    ):
        points += 1
        assert ids(registry) == expected
        Registry.open(registry.path).compact(everything=True)
        assert ids(registry) == expected
        assert len(open_files(registry)) == 1
    assert points > 20 / step


@pytest.mark.parametrize("step", EACH_CALL)
@pytest.mark.parametrize("error", [OSError(errno.EIO, "bad disk"), Stop()], ids=["io error", "killed"])
def test_deleting_what_was_replaced_may_stop_anywhere(tmp_path, error, step):
    """Files and then manifests go one by one; whatever is left tells the same attempts, and the next sweep goes on."""
    model = Registry.open(tmp_path / "model")
    record(model, 0, 3, "inv-1")
    model.fold("inv-1")
    record(model, 3, 5, "inv-2")
    model.compact(everything=True)
    expected = named(*range(5))

    for registry in each_failure(error, lambda n: copied(model.path, tmp_path / str(n)), lambda r: r.remove_replaced(-1), step):
        assert ids(registry) == expected
        Registry.open(registry.path).remove_replaced(grace_s=-1)
        assert ids(registry) == expected
        assert len(list(registry.path.rglob("*.parquet"))) == 1


# What is folded is checked, what is deleted is proved to be held ----------------------------------------------------------


def test_damage_that_kept_size_and_time_is_not_folded_into_a_healthy_file(registry):
    """The new file's name would vouch for the wrong numbers for ever."""
    record(registry, 0, 3, "inv-1")
    ids(registry)  # the index of checked files now trusts all three
    victim = loose_files(registry)[0]
    stat = victim.stat()
    flip_a_bit(victim)
    os.utime(victim, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    fresh = Registry.open(registry.path)

    fresh.fold("inv-1")

    assert len(ids(registry)) == 2
    assert f"{victim.name}: damaged" in fresh.warnings[0]


def forge_manifest(registry: Registry, folded: str, replaces: list[str]) -> None:
    content = json.dumps({"format": 1, "folded": folded, "rows": 1, "replaces": replaces}).encode()
    path = registry.path / "manifests" / content_name(content, ".json")
    path.write_bytes(content)


def test_no_file_is_deleted_that_holds_a_row_which_its_replacement_does_not(registry):
    """A manifest from a stranger may say anything; only the rows themselves are believed."""
    record(registry, 0, 3, "inv-1")
    folded = registry.fold("inv-1")
    record(registry, 3, 5, "inv-2")
    (one, other) = sorted({n for _, n in open_files(registry)} - {folded})
    forge_manifest(registry, folded, [one, other])

    assert registry.remove_replaced(grace_s=-1) == 3
    assert {path.name for path in loose_files(registry)} == {one, other}


def test_no_file_is_deleted_whose_row_differs_from_the_one_of_the_same_id(registry):
    """A conflict keeps both rows; a manifest that hides one must not have it deleted."""
    record(registry, 0, 2, "inv-1")
    folded = registry.fold("inv-1")
    registry.append(make_attempt(1, status="failed", error="another end"))
    (differing,) = {n for _, n in open_files(registry)} - {folded}
    forge_manifest(registry, folded, [differing])

    registry.remove_replaced(grace_s=-1)

    assert [path.name for path in loose_files(registry)] == [differing]


def test_manifests_of_manifests_that_replace_nothing_any_more_go_too(registry):
    """67 bytes for each attempt ever recorded, read by each query, would outweigh the attempts."""
    for night in range(4):
        record(registry, 10 * night, 10 * night + 2, f"inv-{night}")
        registry.fold(f"inv-{night}")
    assert len(io.listdir(registry.path / "manifests")) == 5

    assert registry.remove_replaced() == 0
    assert len(io.listdir(registry.path / "manifests")) == 5

    assert registry.remove_replaced(grace_s=-1) == 12
    assert io.listdir(registry.path / "manifests") == []
    assert len(ids(registry)) == 8


def test_a_manifest_stays_while_it_explains_where_the_file_of_another_went(registry):
    """Else the other would name a folded file that is nowhere, which looks like a loss."""
    record(registry, 0, 2, "inv-1")
    registry.fold("inv-1")
    record(registry, 2, 3, "inv-2")
    kept = loose_files(registry)[0].read_bytes(), loose_files(registry)[0]
    registry.compact(everything=True)
    for path in registry.path.glob("attempts/*"):
        path.unlink()
    (registry.path / "folded" / next(n for n in io.listdir(registry.path / "folded")
                                    if ("folded", n) not in open_files(registry))).unlink()  # fmt: skip
    kept[1].write_bytes(kept[0])  # one that could not be deleted, or came back in a merge

    assert folding.spent_manifests(Layout(registry.path), -1) == []
    kept[1].unlink()
    assert registry.remove_replaced(grace_s=-1) == 0
    assert io.listdir(registry.path / "manifests") == []


# Two at once ------------------------------------------------------------------------------------------------------------

COMPACTOR = """
import sys, time
from pathlib import Path
from harness.registry import Registry, folding
folding.FAN_OUT = 2
registry = Registry.open(Path(sys.argv[1]), create=False)
print("ready", flush=True)
sys.stdin.readline()
time.sleep(float(sys.argv[2]))
registry.compact(everything=sys.argv[3] == "all")
registry.remove_replaced(grace_s=-1)
"""


def race(tmp_path: Path, model: Registry, times: int, seed: int) -> None:
    """Several compactors, which also delete at once what they replaced, start at nearly one moment; a reader looks on."""
    expected = ids(model)
    draw = random.Random(seed)
    for number in range(times):
        registry = copied(model.path, tmp_path / f"race-{number}")
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", COMPACTOR, str(registry.path), str(draw.random() * 0.02), draw.choice(["all", "tiers"])],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for _ in range(3)
        ]  # fmt: skip
        for racer in racers:
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
        while any(racer.poll() is None for racer in racers):
            assert ids(registry) == expected
        for racer in racers:
            racer.communicate()
            assert racer.returncode == 0
        fresh = Registry.open(registry.path)
        assert ids(registry) == expected
        assert fresh.warnings == []
        fresh.compact(everything=True)
        assert len(open_files(fresh)) == 1
        assert ids(registry) == expected
        assert io.listdir(registry.path / "tmp") == []
        shutil.rmtree(registry.path)


@pytest.fixture
def many_files(registry: Registry) -> Registry:
    """Folded files of several sizes and some loose ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folding, "FAN_OUT", 100)
        for start, end in ((0, 8), (8, 12), (12, 14), (14, 16)):
            record(registry, start, end, f"inv-{start}")
            registry.fold(f"inv-{start}")
        record(registry, 16, 20, "inv-16")
    return registry


def test_compactors_that_race_lose_and_double_nothing(tmp_path, many_files):
    """No lock, no loser: what each finds gone it lists anew."""
    race(tmp_path, many_files, times=1, seed=1)


@pytest.mark.slow
def test_fifty_races_of_compactors_lose_and_double_nothing(tmp_path, many_files):
    """The same, often enough to meet the rare orders."""
    race(tmp_path, many_files, times=50, seed=2)


# The command --------------------------------------------------------------------------------------------------------------


def test_compact_says_what_it_did(many_files):
    """In numbers that a person can hold against `ls`; for machines as JSON."""
    before = len(open_files(many_files))

    told = harness("compact", "--all", "--registry", many_files.path)

    assert told.code == 0
    assert told.out.startswith(f"{before} files of 0.1 MB are now 1 of 0.0 MB; 20 attempts were written anew")
    again = harness("compact", "--all", "--json", "--registry", many_files.path)
    assert again.json["made"] == []
    assert again.json["files_after"] == 1
    assert ids(many_files) == named(*range(20))


def test_compacting_where_there_is_no_registry_is_a_mistake_that_makes_nothing(tmp_path):
    """A mistyped --registry must not leave an empty one behind."""
    told = harness("compact", "--registry", tmp_path / "none")

    assert told.code == 2
    assert "no registry there" in told.err
    assert io.listdir(tmp_path) == []
